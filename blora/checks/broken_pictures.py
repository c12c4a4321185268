"""Pictures broken on purpose, each in a way that `blora.checks.defects` looks for: to calibrate and to test with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

__all__ = ["blurred", "diptych", "faded", "halves", "white_behind"]

Picture = NDArray[np.uint8]
"""RGB uint8 (height, width, 3)."""


def diptych(one: Picture, other: Picture) -> Picture:
    """Two pictures of one size side by side, each at half its size on its own border's colour."""
    height, width = one.shape[:2]
    page = np.concatenate([np.full((height, width // 2, 3), _border(side), np.uint8) for side in (one, other)], axis=1)
    for left, side in ((0, one), (width // 2, other)):
        small = np.asarray(Image.fromarray(side).resize((width // 2, height // 2), Image.Resampling.BOX))
        page[height // 4 : height // 4 + small.shape[0], left : left + small.shape[1]] = small
    return page


def halves(one: Picture, other: Picture) -> Picture:
    """The upper half of one picture above the lower half of another of its size."""
    middle = one.shape[0] // 2
    return np.concatenate([one[:middle], other[middle:]], axis=0)


def faded(picture: Picture, kept: float, colour: float | None = None) -> Picture:
    """Every pixel moved towards a grey (None: the picture's mean colour) until so much of its distance is left."""
    target = picture.mean(axis=(0, 1)) if colour is None else colour
    return np.rint(target + kept * (picture - target)).clip(0, 255).astype(np.uint8)


def blurred(picture: Picture, share: float) -> Picture:
    """Every pixel mixed with those around it, by a Gaussian of so much of the shorter side."""
    return np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(share * min(picture.shape[:2]))))


def white_behind(picture: Picture) -> Picture:
    """What is nearer to the border's colour than half of the largest distance from it, made white."""
    apart = np.abs(picture.astype(int) - _border(picture)).sum(axis=-1)
    made = picture.copy()
    made[apart < apart.max() / 2] = 255
    return made


def _border(picture: Picture) -> NDArray[np.float64]:
    edge = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
    colour: NDArray[np.float64] = np.median(edge, axis=0)
    return colour
