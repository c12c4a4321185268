"""What goes into a training, what comes out of it, and what is told on the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from blora.adapters.adapter import Adapter
from blora.errors import TrainingDivergedError

__all__ = ["StepReport", "TrainItem", "TrainResult"]


@dataclass(frozen=True, eq=False)
class TrainItem:
    """What one adapter is trained from.

    Attributes:
        images: One picture, or several photos of one object, each (height, width, 3) uint8; their order is irrelevant.
            Photos take turns: each is seen once before any is seen again, in an order drawn anew for each round.
        key: Names the adapter (its id); with the settings' seed it fixes all its random numbers.
        metadata: Goes into the adapter's files as it is, for example the image ids.
        prompt: What it is trained with, such as "A [v] dog"; empty for the settings' own.
        draws: Empty: all random numbers are the adapter's own. Else the name of a stream of noise and timesteps:
            candidates of one image that name the same one differ in their first weights alone, and a pack computes
            the frozen front of the UNet once for all of them.
    """

    images: tuple[NDArray[np.uint8], ...]
    key: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    draws: str = ""
    prompt: str = ""


@dataclass(frozen=True, eq=False)
class TrainResult:
    """What came of one item.

    Attributes:
        adapter: The trained adapter, None if it was given up.
        final_loss: Mean of the finite losses in the last tenth of the steps.
        skipped_steps: Steps that were not taken because something was not finite.
        losses: Loss of each step, NaN where it was not finite.
        error: Why it was given up, or None.
    """

    adapter: Adapter | None
    final_loss: float
    skipped_steps: int
    losses: list[float]
    error: TrainingDivergedError | None


@dataclass(frozen=True)
class StepReport:
    """One step of a pack.

    Attributes:
        step: Steps done, from 1.
        steps: Steps in all.
        losses: This step's loss of each adapter, NaN where it was not finite.
        active: Adapters that have not been given up.
        seconds: Wall seconds of this step.
    """

    step: int
    steps: int
    losses: tuple[float, ...]
    active: int
    seconds: float
