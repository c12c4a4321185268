"""The check of a trained adapter: its own image is drawn with both halves and looked at for defects.

    verdict = check_adapters(base, [(adapter, pixels)], settings)[0]
    verdict.passed, verdict.measures["reconstruction_distance"]

The prompt is the one of the training, both strengths are 1, and the noise is the same for all adapters, so that an
adapter's verdict does not depend on the others'. Several pictures are drawn and each defect is their mean, because one
picture may fail by its noise alone. One that comes out not finite is judged as the black picture that it would be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blora.adapters.adapter import Adapter
from blora.checks.defects import adapter_defects
from blora.checks.limits import adapter_limits, reconstruction_settings
from blora.errors import BloraError, OutOfMemoryError
from blora.models.model import Base
from blora.sampling.draw import Draw
from blora.sampling.sample import sample_each
from blora.settings.presets import Settings
from blora.settings.sampling import SampleSettings

__all__ = ["Verdict", "best_attempt", "check_adapters", "measure", "reconstruct"]

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Verdict:
    """What was found about an adapter.

    Attributes:
        measures: Every defect by name, larger is worse; see `blora.checks.defects`.
        limits: What they were held against; empty where the base has none.
    """

    measures: Mapping[str, float]
    limits: Mapping[str, float]

    @property
    def failed(self) -> tuple[str, ...]:
        """Defects beyond their limits."""
        return tuple(name for name, value in self.measures.items() if value > self.limits.get(name, float("inf")))

    @property
    def passed(self) -> bool | None:
        """Whether nothing is beyond its limit; None where there are no limits."""
        return not self.failed if self.limits else None

    def to_json(self) -> dict[str, Any]:
        """The verdict as an adapter's marker keeps it."""
        return {
            "passed": self.passed,
            "failed": list(self.failed),
            "measures": dict(self.measures),
            "limits": dict(self.limits),
        }


def check_adapters(
    base: Base,
    trained: Sequence[tuple[Adapter, Picture]],
    settings: Settings,
    *,
    drawing: SampleSettings | None = None,
) -> list[Verdict]:
    """Draw each adapter's own image and say what is wrong with it.

    Args:
        base: Loaded.
        trained: Adapters, each with its image (the first of several photos), RGB uint8 (height, width, 3).
        settings: Of the run: how pictures are drawn, and what is a defect.
        drawing: Replaces `reconstruction_settings` of the settings where memory asks for smaller batches.

    Raises:
        OutOfMemoryError: A picture does not fit on the device.
    """
    pictures = reconstruct(base, [adapter for adapter, _ in trained], settings, drawing=drawing)
    limits = adapter_limits(settings.check, base.revision)
    return [Verdict(measure(drawn, image), limits) for drawn, (_, image) in zip(pictures, trained, strict=True)]


def reconstruct(
    base: Base, adapters: Sequence[Adapter], settings: Settings, *, drawing: SampleSettings | None = None
) -> list[list[Picture]]:
    """Draw each adapter's own image `check.pictures` times, from the seeds 0, 1, ..."""
    count = settings.check.pictures
    draws = [
        Draw(adapter, adapter, adapter.metadata.get("prompt", settings.train.prompt), seed)
        for adapter in adapters
        for seed in range(count)
    ]
    chosen = drawing or reconstruction_settings(settings)
    black = np.zeros((chosen.height_px, chosen.width_px, 3), np.uint8)
    made = sample_each(base, draws, chosen)
    if short := next((one for one in made if isinstance(one, OutOfMemoryError)), None):
        raise short  # says nothing about the adapter
    drawn = [black if isinstance(one, BloraError) else one for one in made]
    return [drawn[start : start + count] for start in range(0, len(drawn), count)]


def measure(drawn: Sequence[Picture], image: Picture) -> dict[str, float]:
    """The mean of each defect over some reconstructions of one image."""
    rows = [adapter_defects(picture, image) for picture in drawn]
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def best_attempt(verdicts: Sequence[Verdict | None]) -> int:
    """Number of the attempt to keep: the first that passed, else the fewest defects and then the nearest image.

    Args:
        verdicts: One an attempt; None for a training that diverged.
    """

    def merit(number: int) -> tuple[bool, bool, int, float, int]:
        verdict = verdicts[number]
        if verdict is None:
            return True, True, 0, 0.0, number
        distance = verdict.measures["reconstruction_distance"]
        return False, not verdict.passed, len(verdict.failed), 0.0 if verdict.passed else distance, number

    return min(range(len(verdicts)), key=merit)
