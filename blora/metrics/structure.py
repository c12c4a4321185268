"""How much is drawn in a picture at all: fog has hardly any edges, and what it has of them is weak.

    structure(picture)                                # about 8 to 18 for photographs of things, 2 for haze
    structure_kept(sample, [content, style])          # 1: as much as the plainer of both, 0: one colour

The measure is the root mean square of the colour gradient (CIELAB): it falls with the contrast, as the variance of
colours does, and unlike that also where edges are blurred away. A sample may be as plain as the plainer of the pictures
that it was made of, since a flat style flattens a busy content; hence the smaller of both is what it is held against.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from blora.metrics.feature_scorer import ScoreItem
from blora.metrics.palette_distance import rgb_to_lab

__all__ = ["StructureScorer", "structure", "structure_kept"]

SIDE_PX: Final = 64
"""Pictures are brought to this square first: fog is coarse, and grain is no structure."""

Picture = NDArray[np.uint8]
"""RGB uint8 (height, width, 3), of any size."""


def structure(picture: Picture) -> float:
    """Root mean square of the colour gradient, CIE76 a pixel of a square of `SIDE_PX`; 0 for one colour."""
    square = Image.fromarray(picture).resize((SIDE_PX, SIDE_PX), Image.Resampling.BOX)
    down, across = np.gradient(rgb_to_lab(np.asarray(square)), axis=(0, 1))
    return float(np.sqrt((down**2 + across**2).sum(axis=-1).mean()))


def structure_kept(sample: Picture, references: Sequence[Picture]) -> float:
    """The sample's structure as a share of the least of some pictures' (one or more), at most 1."""
    least = min(structure(picture) for picture in references)
    return min(1.0, structure(sample) / least) if least > 0 else 1.0


class StructureScorer:
    """Whether anything is to be seen in a picture, against what it was made of."""

    name = "cielab-gradient"
    version = "1"

    def score(self, items: Sequence[ScoreItem]) -> list[dict[str, float]]:
        """Return `structure` for items with a content or a style image."""
        references = [[p for p in (item.content, item.style) if p is not None] for item in items]
        return [
            {"structure": structure_kept(item.sample, pictures)} if pictures else {}
            for item, pictures in zip(items, references, strict=True)
        ]
