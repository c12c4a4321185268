"""Detectors of what goes wrong with B-LoRAs: pure functions of pixels and scores, each with larger for worse.

    defect                     what it says                                                        unit, range
    reconstruction_distance    how unlike the adapter's own image its reconstruction is            CIE76, about 0 to 150
    split_image                two pictures side by side, or above each other, instead of one      share, 0 to 1
    grey_collapse              how much of the image's colour and contrast is gone                 share, 0 to 1
    white_background           how much more of the picture is white than of the image             share, -1 to 1
    style_copy                 how much nearer a sample is to the style image's thing than to      difference of
                               the content image's                                                 cosines, -2 to 2
    structure_loss             fog: how much less is drawn in a sample than in the plainer of its          share, 0 to 1
                               content and style images

The first four compare the reconstruction of an adapter's own image with that image; the others are of a sample. Where a
number becomes a defect depends on the base model and on the pictures: `blora.checks.limits` has what was measured.
The reconstruction is compared place by place, as adapters keep the layout of the image that they were trained on. On
reconstructions of 8 drawings that told the own image from others better than features that do not depend on place do
(EfficientNet-Lite0, block 15: 9 % misses without a false alarm, against 4 %).

Source: the failures that users of the published method report (white backgrounds of style references are learnt,
contents of style images leak, about one in eight pictures is usable); thresholds and rates are our own measurements.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from blora.metrics.palette_distance import rgb_to_lab

__all__ = [
    "ADAPTER_DEFECTS",
    "PICTURE_DEFECTS",
    "RECIPE",
    "adapter_defects",
    "grey_collapse",
    "picture_defects",
    "reconstruction_distance",
    "split_image",
    "structure_loss",
    "style_copy",
    "white_background",
]

RECIPE: Final = 1
"""Counts changes of this file that alter a number."""
ADAPTER_DEFECTS: Final = ("reconstruction_distance", "split_image", "grey_collapse", "white_background")
"""What an adapter is checked for, by its reconstruction."""
PICTURE_DEFECTS: Final = ("style_copy", "structure_loss")
"""What a picture that was drawn is checked for, by its scores."""
SIDE_PX: Final = 64
"""Pictures are brought to this square before their pixels are looked at: defects are coarse."""

_WHITE_LIGHT, _WHITE_CHROMA = 94.0, 8.0
_CELL_PX: Final = 4
_SEAM_STEP: Final = 10.0  # CIE76: a step that anybody sees

Picture = NDArray[np.uint8]
Lab = NDArray[np.float64]


def adapter_defects(picture: Picture, image: Picture) -> dict[str, float]:
    """All defects of a reconstruction by name.

    Args:
        picture: The reconstruction, RGB uint8 (height, width, 3).
        image: The adapter's own image, likewise, of any size.
    """
    return {
        "reconstruction_distance": reconstruction_distance(picture, image),
        "split_image": split_image(picture),
        "grey_collapse": grey_collapse(picture, image),
        "white_background": white_background(picture, image),
    }


def picture_defects(scores: Mapping[str, float]) -> dict[str, float]:
    """All defects of a picture that was drawn by name, less those whose scores it lacks.

    Args:
        scores: Of the picture, by name (`blora.metrics.score`).
    """
    values = {"style_copy": style_copy(scores), "structure_loss": structure_loss(scores)}
    return {name: value for name, value in values.items() if value is not None}


def reconstruction_distance(picture: Picture, image: Picture) -> float:
    """How far colours are apart: root mean square of the CIE76 difference over cells of 4 of 64 pixels a side."""
    apart = _cells(_lab(picture)) - _cells(_lab(image))
    return float(np.sqrt((apart**2).sum(axis=-1).mean()))


def split_image(picture: Picture) -> float:
    """How much a picture looks like two: the largest of gap, seam and repeat, over both directions; 0 to 1.

    gap: how much less is drawn in the middle eighth than in the emptier of both sides (one minus the square of the
    ratio of mean gradients): two things and nothing between them. seam: in the middle eighth, the largest share of a
    full line across the picture along which colours step by more than `_SEAM_STEP`: two backgrounds. repeat: the
    correlation between one half and the other, moved and not mirrored, in cells of 4 pixels: one thing twice.
    """
    lab = _lab(picture)
    return max(max(_gap(side), _seam(side), _repeat(side)) for side in (lab, lab.transpose(1, 0, 2)))


def grey_collapse(picture: Picture, image: Picture) -> float:
    """Share of the image's spread of colours (root mean square distance from their mean, CIELAB) that is gone."""
    own = _spread(_lab(image))
    return float(np.clip(1 - _spread(_lab(picture)) / own, 0, 1)) if own > 0 else 0.0


def white_background(picture: Picture, image: Picture) -> float:
    """Share of near-white pixels in the picture less that in the image: -1 to 1."""
    return _whiteness(_lab(picture)) - _whiteness(_lab(image))


def style_copy(scores: Mapping[str, float]) -> float | None:
    """How much nearer a sample is to the style image's content than to the content image's; None without both scores.

    Args:
        scores: Of the sample, by name, with ``leakage_lite0`` and ``content_lite0`` (`blora.metrics.score`).
    """
    leakage, held = scores.get("leakage_lite0"), scores.get("content_lite0")
    return None if leakage is None or held is None else leakage - held


def structure_loss(scores: Mapping[str, float]) -> float | None:
    """How much of the structure that a sample should have is missing; None without that score.

    Args:
        scores: Of the sample, by name, with ``structure`` (`blora.metrics.structure`).
    """
    kept = scores.get("structure")
    return None if kept is None else 1 - kept


def _lab(picture: Picture) -> Lab:
    """The whole picture as a small square in CIELAB (SIDE_PX, SIDE_PX, 3)."""
    square = Image.fromarray(picture).resize((SIDE_PX, SIDE_PX), Image.Resampling.BOX)
    return rgb_to_lab(np.asarray(square))


def _cells(lab: Lab) -> Lab:
    """Mean colours of cells of `_CELL_PX` pixels a side."""
    across = SIDE_PX // _CELL_PX
    cells: Lab = lab.reshape(across, _CELL_PX, across, _CELL_PX, 3).mean(axis=(1, 3))
    return cells


def _spread(lab: Lab) -> float:
    return float(np.sqrt(((lab - lab.mean(axis=(0, 1))) ** 2).sum(axis=-1).mean()))


def _whiteness(lab: Lab) -> float:
    white = (lab[..., 0] >= _WHITE_LIGHT) & (np.hypot(lab[..., 1], lab[..., 2]) <= _WHITE_CHROMA)
    return float(white.mean())


def _gap(lab: Lab) -> float:
    """How much less is drawn in the middle columns than in the emptier side; 0 where a side has as little."""
    down, across = np.gradient(lab, axis=(0, 1))
    drawn = np.sqrt((down**2 + across**2).sum(axis=-1)).mean(axis=0)
    eighth = SIDE_PX // 8
    middle = drawn[7 * eighth // 2 : 9 * eighth // 2].mean()
    sides = min(drawn[eighth : 3 * eighth].mean(), drawn[5 * eighth : 7 * eighth].mean())
    return float(np.clip(1 - (middle / sides) ** 2, 0, 1)) if sides > 0 else 0.0


def _repeat(lab: Lab) -> float:
    """Correlation of the left half's colours with the right half's, from the picture's mean; 0 where negative."""
    cells = _cells(lab)
    apart = cells - cells.mean(axis=(0, 1))
    left, right = np.split(apart, 2, axis=1)
    length = float(np.sqrt((left**2).sum() * (right**2).sum()))
    return max(0.0, float((left * right).sum()) / length) if length > 1e-6 else 0.0


def _seam(lab: Lab) -> float:
    """The largest share of rows that step at one column of the middle eighth."""
    steps = np.sqrt(((lab[:, 2:] - lab[:, :-2]) ** 2).sum(axis=-1)) > _SEAM_STEP
    eighth = SIDE_PX // 8
    return float(steps[:, 7 * eighth // 2 : 9 * eighth // 2].mean(axis=0).max())
