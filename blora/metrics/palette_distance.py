"""How far apart the colours of two pictures are, whatever stands where in them.

The distance is the sliced Wasserstein distance between the pictures' colours in CIELAB: how far, on average, colours
would have to be moved to turn one palette into the other. It is zero for pictures with the same palette, does not
depend on layout or size, and its unit is that of the colour difference CIE76 (2.3 is just noticeable, 100 is black
against white).

Source: conversion as in CIE 15:2004 with the sRGB matrix of IEC 61966-2-1 and the D65 white point; distance as in
Bonneel et al. 2015, "Sliced and Radon Wasserstein barycenters of measures", with a fixed set of directions.
"""

from __future__ import annotations

import itertools
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from blora.sampling.colour_transfer import to_linear

__all__ = ["colour_distance", "rgb_to_lab"]

SIDE_PX: Final = 128
"""Pictures are averaged down to this longer side first; palettes hardly change, the work shrinks."""
QUANTILES: Final = 256
"""Points at which two distributions are compared along each direction."""

_SRGB_TO_XYZ: Final = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
_WHITE_D65: Final = _SRGB_TO_XYZ.sum(axis=1)

# Half of the 26 directions from a cube's centre to its faces, edges and corners: even over the sphere, and no chance.
_DIRECTIONS: Final = np.array([d for d in itertools.product((-1.0, 0.0, 1.0), repeat=3) if d > (0.0, 0.0, 0.0)])
_UNIT_DIRECTIONS: Final = _DIRECTIONS / np.linalg.norm(_DIRECTIONS, axis=1, keepdims=True)


def rgb_to_lab(rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Convert sRGB values 0-255 (..., 3) to CIELAB (..., 3): L in 0-100, a and b around zero."""
    xyz = to_linear(rgb) @ _SRGB_TO_XYZ.T / _WHITE_D65
    edge = 6 / 29
    f = np.where(xyz > edge**3, np.cbrt(xyz), xyz / (3 * edge**2) + 4 / 29)
    x, y, z = f[..., 0], f[..., 1], f[..., 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def colour_distance(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Distance between the palettes of two pictures (height, width, 3), about the CIE76 difference of their colours."""
    gaps = np.abs(_palette(one) - _palette(other))
    # A shift by a vector of length d shows along a random direction as d / 2 on average.
    return float(2 * gaps.mean())


def _palette(rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Quantiles of the picture's colours along each direction (QUANTILES, directions)."""
    picture = Image.fromarray(rgb)
    picture.thumbnail((SIDE_PX, SIDE_PX), Image.Resampling.BOX)
    lab = rgb_to_lab(np.asarray(picture)).reshape(-1, 3)
    middles = (np.arange(QUANTILES) + 0.5) / QUANTILES
    quantiles: NDArray[np.float64] = np.quantile(lab @ _UNIT_DIRECTIONS.T, middles, axis=0)
    return quantiles
