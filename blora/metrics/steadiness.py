"""How steady a stylised clip is: what changes from frame to frame, against what changes in the clip it was drawn from.

    frames = sample(base, [Draw(one.content, wave.style, "A [v]", seed=0) for one in adapters], settings.sample)
    steadiness(frames, sources).flicker_ratio        # 1: they change as much as the sources do

A ratio alone is no praise: a still has 0. The correlation says whether what changes is where the source changes.
Both compare pixels in place, without optical flow: a texture that rightly moves with its thing counts as change.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from blora.sampling.colour_transfer import to_oklab

__all__ = ["VERSION", "Steadiness", "steadiness"]

VERSION: Final = 1
"""Counts changes of this file that alter a number."""

_LEAST_CHANGE: Final = 1e-6  # of a mean OKLab distance, below which nothing changes


@dataclass(frozen=True)
class Steadiness:
    """What changes between successive frames.

    Attributes:
        drawn_change: Mean distance of a pixel's colours in OKLab between successive drawn frames; white to black is 1.
        source_change: The same of the source frames, cut and resized as the drawn ones are.
        flicker_ratio: The first over the second; None where the source does not change.
        motion_correlation: Mean over the steps of Pearson's correlation, over pixels, of how much the drawn and how
            much the source frames change; -1 to 1, 1 is best; a step in which the drawn frames do not change counts 0.
            None where the source does not change.
    """

    drawn_change: float
    source_change: float
    flicker_ratio: float | None
    motion_correlation: float | None


def steadiness(drawn: Sequence[NDArray[np.uint8]], sources: Sequence[NDArray[np.uint8]]) -> Steadiness:
    """Compare a drawn clip with its source, frame by frame.

    Args:
        drawn: Frames in order, RGB uint8 (height, width, 3), all of one size.
        sources: As many frames, of any sizes.

    Raises:
        ValueError: Fewer than two frames, another number of sources, or drawn frames of several sizes.
    """
    if len(drawn) < 2 or len(drawn) != len(sources) or len({frame.shape for frame in drawn}) > 1:
        shapes = sorted({frame.shape for frame in drawn})
        raise ValueError(
            f"frames: received {len(drawn)} drawn of {shapes} and {len(sources)} sources; "
            "accepted as many of each, two or more, drawn in one size"
        )
    height, width = drawn[0].shape[:2]
    ours, theirs = _changes(list(drawn)), _changes([_fitted(frame, width, height) for frame in sources])
    drawn_change, source_change = float(np.mean(ours)), float(np.mean(theirs))
    if source_change < _LEAST_CHANGE:
        return Steadiness(drawn_change, source_change, None, None)
    moving = [(one, other) for one, other in zip(ours, theirs, strict=True) if other.std() > _LEAST_CHANGE]
    correlation = float(np.mean([_correlation(one, other) for one, other in moving])) if moving else None
    return Steadiness(drawn_change, source_change, drawn_change / source_change, correlation)


def _changes(frames: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.float64]]:
    """Distance of each pixel's colours between each frame and the next, (height, width) each."""
    colours = [to_oklab(frame) for frame in frames]
    return [np.linalg.norm(after - before, axis=-1) for before, after in itertools.pairwise(colours)]


def _correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1]) if one.std() > _LEAST_CHANGE else 0.0


def _fitted(frame: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """The largest middle part of a frame that has the shape asked for, in that size."""
    scale = min(frame.shape[1] / width, frame.shape[0] / height)
    left, top = (frame.shape[1] - width * scale) / 2, (frame.shape[0] - height * scale) / 2
    box = (left, top, left + width * scale, top + height * scale)
    return np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.LANCZOS, box))
