"""Give a picture the colours of another: a linear map in OKLab that carries mean and covariance over.

    kept = transfer_colours(drawn, pepper, amount=1.0)
    kept = transfer_colours(drawn, pepper, mask=subject_mask(drawn), target_mask=subject_mask(pepper))

Of all linear maps that turn one mean and covariance into another, the Monge-Kantorovich map moves colours least, so
that light stays light. Where the source hardly varies in a direction the map would blow up its noise, so it stretches
no direction more than `MAX_GAIN` times; up to that limit, and before colours outside sRGB are cut off, it is exact.

Source: Pitie and Kokaram 2007, "The linear Monge-Kantorovitch linear colour mapping"; OKLab as in Ottosson 2020.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "RECIPE",
    "Method",
    "Palette",
    "Values",
    "linear_map",
    "moments",
    "subject_mask",
    "to_linear",
    "to_oklab",
    "transfer_colours",
]

RECIPE: Final = 1
"""Counts changes of the colour code that alter a picture; part of the id of every picture that uses it."""
MAX_GAIN: Final = 4.0
"""The most that a direction of colour space is stretched."""
_NOISE: Final = 1e-6  # variance below which a direction counts as not varying at all
_BORDER_SHARE: Final = 1 / 16

Values = NDArray[np.float64]
Method = Literal["transfer", "subject", "guidance"]

_RGB_TO_LMS: Final = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_LMS_TO_LAB: Final = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


@dataclass(frozen=True, eq=False)
class Palette:
    """Whose colours a picture gets, and how.

    Attributes:
        picture: Whose colours, RGB uint8 (height, width, 3) of any size.
        by: "transfer" maps the colours of the whole result; "subject" those of what stands out from the border, in both
            pictures; "guidance" leads the sampling there (see `blora.sampling.palette_guidance`).
        amount: How far of the way, 0 to 1.
    """

    picture: NDArray[np.uint8]
    by: Method = "transfer"
    amount: float = 1.0

    def applied(self, drawn: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the result as it leaves the method: changed by "transfer" and "subject", as it is by "guidance"."""
        if self.by == "guidance":
            return drawn
        if self.by == "transfer":
            return transfer_colours(drawn, self.picture, self.amount)
        masks = {"mask": subject_mask(drawn), "target_mask": subject_mask(self.picture)}
        return transfer_colours(drawn, self.picture, self.amount, **masks)


def transfer_colours(
    picture: NDArray[np.uint8],
    target: NDArray[np.uint8],
    amount: float = 1.0,
    *,
    mask: Values | None = None,
    target_mask: Values | None = None,
) -> NDArray[np.uint8]:
    """Return a picture with the mean and covariance of another's colours.

    Args:
        picture: RGB uint8 (height, width, 3).
        target: Whose colours, RGB uint8 of any size.
        amount: How far of the way, 0 (unchanged) to 1.
        mask: Where to change the picture, (height, width) from 0 to 1; its colours are weighted so, too.
        target_mask: Which of the target's colours count, likewise.

    Raises:
        ValueError: A mask of another shape than its picture, or one that is zero everywhere.
    """
    source, wanted = to_oklab(picture), to_oklab(target)
    mean, covariance = moments(source, mask)
    target_mean, target_covariance = moments(wanted, target_mask)
    mapped = (source - mean) @ linear_map(covariance, target_covariance).T + target_mean
    share = amount if mask is None else amount * mask[..., None]
    return _to_rgb(source + share * (mapped - source))


def moments(values: Values, weights: Values | None = None) -> tuple[Values, Values]:
    """Return mean (channels,) and covariance (channels, channels) of values (…, channels), weighted by (…).

    Raises:
        ValueError: Weights of another shape, or without any weight.
    """
    if weights is not None and (weights.shape != values.shape[:-1] or not weights.sum() > 0):
        raise ValueError(
            f"mask: received {weights.shape} of sum {weights.sum()}; accepted {values.shape[:-1]}, not all 0"
        )
    flat = values.reshape(-1, values.shape[-1])
    shares = np.full(len(flat), 1 / len(flat)) if weights is None else weights.ravel() / weights.sum()
    mean = shares @ flat
    apart = flat - mean
    return mean, (apart * shares[:, None]).T @ apart


def linear_map(source: Values, target: Values) -> Values:
    """Return the symmetric matrix A with A source A = target, no direction stretched more than `MAX_GAIN` times."""
    source = source + _NOISE * np.eye(len(source))
    root = _root(source)
    back = np.linalg.inv(root)
    gains, directions = np.linalg.eigh(back @ _root(root @ target @ root) @ back)
    result: Values = (directions * np.minimum(gains, MAX_GAIN)) @ directions.T
    return result


def subject_mask(picture: NDArray[np.uint8]) -> Values:
    """Return how surely each pixel is no background, (height, width) from 0 to 1.

    Background is what is near the colour of the border (its median). The threshold is Otsu's, softened to a ramp.
    It fits a thing on plain paper, and is no segmentation of a photo. Everything is subject where nothing stands out.
    """
    lab = to_oklab(picture)
    height, width = lab.shape[:2]
    rows, columns = max(1, round(height * _BORDER_SHARE)), max(1, round(width * _BORDER_SHARE))
    edge = np.ones((height, width), bool)
    edge[rows : height - rows, columns : width - columns] = False
    distance = np.linalg.norm(lab - np.median(lab[edge], axis=0), axis=-1)
    limit = _otsu(distance)
    if limit <= 0:
        return np.ones_like(distance)
    result: Values = np.clip(2 * distance / limit - 1, 0, 1)
    return result


def _otsu(values: Values, bins: int = 128) -> float:
    """The threshold that parts values into the two most even groups; 0 where all are equal."""
    if float(np.ptp(values)) < 1e-3:
        return 0.0
    counts, edges = np.histogram(values, bins)
    middles = (edges[:-1] + edges[1:]) / 2
    below, total = np.cumsum(counts), counts.sum()
    sums = np.cumsum(counts * middles)
    with np.errstate(divide="ignore", invalid="ignore"):
        gaps = sums / below - (sums[-1] - sums) / (total - below)
        between = np.nan_to_num(below * (total - below) * gaps**2)
    return float(edges[1 + int(np.argmax(between[:-1]))])


def _root(matrix: Values) -> Values:
    """The symmetric root of a symmetric matrix without negative eigenvalues (but for rounding)."""
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    result: Values = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    return result


def to_oklab(rgb: NDArray[np.uint8]) -> Values:
    """Return sRGB (…, 3) uint8 as OKLab: lightness from 0 to 1, and two axes of colour within about 0.4 of 0."""
    lab: Values = np.cbrt(to_linear(rgb) @ _RGB_TO_LMS.T) @ _LMS_TO_LAB.T
    return lab


def to_linear(rgb: NDArray[np.uint8]) -> Values:
    """Return sRGB of any shape as linear light, 0 to 1 (IEC 61966-2-1)."""
    encoded = rgb.astype(np.float64) / 255
    linear: Values = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    return linear


def _to_rgb(lab: Values) -> NDArray[np.uint8]:
    """SRGB uint8 of OKLab values; what lies outside is cut off channel by channel."""
    linear = (lab @ np.linalg.inv(_LMS_TO_LAB).T) ** 3 @ np.linalg.inv(_RGB_TO_LMS).T
    linear = np.clip(linear, 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.asarray((encoded * 255).round(), np.uint8)
