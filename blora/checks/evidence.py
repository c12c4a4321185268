"""Values of every defect on what is known to be good and what is known to be bad, and the limit between them.

Adapters are trained on some drawings and draw their own image; the rest is broken on purpose.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from blora.checks.adapter_check import reconstruct
from blora.checks.broken_pictures import blurred, diptych, faded, halves, white_behind
from blora.checks.defects import grey_collapse, reconstruction_distance, split_image, white_background
from blora.checks.limits import LIMITS, reconstruction_settings
from blora.metrics.lite0 import load_lite0
from blora.metrics.structure import structure_kept
from blora.models.model import Base
from blora.sampling.colour_transfer import transfer_colours
from blora.sampling.draw import Draw
from blora.sampling.sample import sample
from blora.settings.presets import Settings
from blora.training.items import TrainItem
from blora.training.photos import pixel_digest
from blora.training.train import train

__all__ = ["SEEDS", "Drawings", "Evidence", "Picture", "choose_limit", "gather_evidence"]


SEEDS: Final = 4
"""Reconstructions of each adapter."""
PACK: Final = 4
OTHERS: Final = 6
"""Photographs whose colours each one gets."""
Picture = NDArray[np.uint8]


@dataclass
class Evidence:
    """Values of one defect on what is good, what is bad, and what adapters really made (part of the good or not)."""

    good: list[float] = field(default_factory=list)
    bad: list[float] = field(default_factory=list)
    real: list[float] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """The limit with its rates."""
        limit = round(choose_limit(self.good, self.bad), 3)
        beyond = {name: float(np.mean(np.array(getattr(self, name)) > limit)) for name in ("good", "bad", "real")
                  if getattr(self, name)}  # fmt: skip
        return {
            "limit": limit,
            "false_alarms": round(beyond["good"], 4),
            "misses": round(1 - beyond["bad"], 4),
            "good": len(self.good),
            "bad": len(self.bad),
            "real": len(self.real),
            "real_beyond": round(beyond.get("real", 0.0), 4),
        }


@dataclass(frozen=True, eq=False)
class Drawings:
    """Pictures to calibrate on.

    Attributes:
        pictures: RGB uint8, of any sizes.
        alike: Pairs of numbers: two drawings in one style; none where that is not known.
        truths: (picture, content, style, is it good) as numbers, for `style_copy`; none where that is not known.
        photographs: To be stylised by giving each the colours of others, for `structure_loss`.
    """

    pictures: list[Picture]
    alike: list[tuple[int, int]]
    truths: list[tuple[int, int, int, bool]]
    photographs: list[Picture]


def choose_limit(good: Sequence[float], bad: Sequence[float]) -> float:
    """Where the mean of false alarms (good above it) and misses (bad not above it) is least; the middle of such values.

    Raises:
        ValueError: One side has no values.
    """
    if not good or not bad:
        raise ValueError(f"choose_limit: received {len(good)} good and {len(bad)} bad values; accepted: some of each")
    values = np.unique([*good, *bad])
    cuts = np.concatenate([(values[:-1] + values[1:]) / 2, values[-1:]])
    alarms = 1 - np.searchsorted(np.sort(good), cuts, side="right") / len(good)
    misses = np.searchsorted(np.sort(bad), cuts, side="right") / len(bad)
    best = np.flatnonzero(np.isclose(alarms + misses, (alarms + misses).min()))
    return float(np.median(cuts[best]))


def gather_evidence(base: Base, drawings: Drawings, chosen: Sequence[int], settings: Settings) -> dict[str, Evidence]:
    """Values of every defect on what is good and what is bad.

    Args:
        base: Loaded with the settings' precision.
        drawings: To calibrate on.
        chosen: Numbers of the drawings that adapters are trained on.
        settings: Recipe of training, drawing and check.
    """
    by_defect = {name: Evidence() for name in LIMITS}
    often = settings.model_copy(update={"check": settings.check.model_copy(update={"pictures": SEEDS})})
    packs = [chosen[start : start + PACK] for start in range(0, len(chosen), PACK)]
    adapters = [adapter for pack in packs for adapter in _train(base, drawings, pack, settings)]
    alone = [Draw(None, None, settings.train.prompt, seed) for seed in range(SEEDS)]
    untrained = sample(base, alone, reconstruction_settings(settings))
    for own, made in zip(chosen, reconstruct(base, adapters, often), strict=True):
        image = drawings.pictures[own]
        others = [drawings.pictures[number] for number in chosen if number != own]
        for picture in made:
            by_defect["reconstruction_distance"].good.append(reconstruction_distance(picture, image))
            by_defect["reconstruction_distance"].bad += [reconstruction_distance(picture, other) for other in others]
            by_defect["split_image"].real.append(split_image(picture))
            by_defect["grey_collapse"].good.append(grey_collapse(picture, image))
            by_defect["white_background"].good.append(white_background(picture, image))
        by_defect["reconstruction_distance"].bad += [reconstruction_distance(picture, image) for picture in untrained]
        by_defect["structure_loss"].real += [1 - structure_kept(picture, [image]) for picture in made]
    for name in ("reconstruction_distance", "grey_collapse", "white_background"):
        by_defect[name].real = list(by_defect[name].good)
    _add_drawn(by_defect, drawings)
    _add_fog(by_defect["structure_loss"], drawings)
    return {name: evidence for name, evidence in by_defect.items() if evidence.good and evidence.bad}


def _add_drawn(by_defect: dict[str, Evidence], drawings: Drawings) -> None:
    """Add what drawings alone say."""
    pictures = drawings.pictures
    for number, picture in enumerate(pictures):
        other = pictures[(number + 7) % len(pictures)]
        by_defect["split_image"].good.append(split_image(picture))
        if other.shape == picture.shape:
            by_defect["split_image"].bad += [split_image(diptych(picture, other)), split_image(halves(picture, other))]
        by_defect["split_image"].bad.append(split_image(diptych(picture, picture)))
        by_defect["grey_collapse"].bad += [grey_collapse(faded(picture, kept), picture) for kept in (0.2, 0.35)]
        if white_background(picture, np.zeros_like(picture)) < 0.25:
            bad = [white_behind(picture), faded(picture, 0.1, 255)]
            by_defect["white_background"].bad += [white_background(drawing, picture) for drawing in bad]
    for drawing, like in drawings.alike:
        by_defect["grey_collapse"].good.append(grey_collapse(pictures[drawing], pictures[like]))
        by_defect["white_background"].good.append(white_background(pictures[drawing], pictures[like]))
    content = _content_features(pictures) if drawings.truths else np.zeros((0, 0), np.float32)
    for number, of_content, of_style, good in drawings.truths:
        value = float(content[number] @ content[of_style] - content[number] @ content[of_content])
        (by_defect["style_copy"].good if good else by_defect["style_copy"].bad).append(value)


def _add_fog(evidence: Evidence, drawings: Drawings) -> None:
    """Add stylised pictures that are known to be good, as they are and made fog: faded, and blurred."""
    pictures, photographs = drawings.pictures, drawings.photographs
    stylised = [(pictures[made], pictures[of], pictures[like]) for made, of, like, good in drawings.truths if good]
    for number, photograph in enumerate(photographs):
        others = [photographs[(number + step) % len(photographs)] for step in range(1, len(photographs))][:OTHERS]
        stylised += [(transfer_colours(photograph, other), photograph, other) for other in others]
    for picture, content, style in stylised:
        fog = [faded(picture, kept) for kept in (0.1, 0.2)] + [blurred(picture, share) for share in (0.05, 0.1)]
        evidence.good.append(1 - structure_kept(picture, [content, style]))
        evidence.bad += [1 - structure_kept(broken, [content, style]) for broken in fog]


def _train(base: Base, drawings: Drawings, chosen: Sequence[int], settings: Settings) -> list[Any]:
    items = [TrainItem((drawings.pictures[n],), f"{n} {pixel_digest(drawings.pictures[n])}") for n in chosen]
    adapters = [result.adapter for result in train(base, items, settings.train)]
    return [adapter for adapter in adapters if adapter is not None]


def _content_features(pictures: Sequence[Picture]) -> NDArray[np.float32]:
    """Unit-length content features (pictures, length), as the scores have them."""
    extractor = load_lite0()
    parts = [extractor.extract(pictures[start : start + 16]).content for start in range(0, len(pictures), 16)]
    return np.concatenate([part.numpy() for part in parts])
