"""Pictures with drawn truth: the same things, each drawn in every style, and the pairs that a benchmark makes of them.

A pair asks for thing c in style B, given c drawn in style A and another thing d drawn in B; the drawing of c in B
exists. Pairs come from a grid of content pictures and style pictures, so that each adapter serves in many pairs. The
things were kept out of the training of the embedded model; whether a style was, its entry says.

The drawings are shipped (``embedded/paired``, where ``LICENCES.md`` names their sources).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from blora.errors import SettingFault, SettingsError

__all__ = ["FOLDER", "Pair", "PairedSet", "Split", "Style", "Thing", "load_paired", "make_pairs"]

Split = Literal["validation", "test"]

FOLDER = Path(__file__).parents[1] / "embedded" / "paired"
"""Where the shipped drawings lie."""


@dataclass(frozen=True)
class Thing:
    """Something that is drawn: its code point, its name and its split."""

    code: str
    name: str
    split: Split


@dataclass(frozen=True)
class Style:
    """How things are drawn.

    Attributes:
        name: Of the drawn set, or of the look that it is redrawn in.
        words: The same as a prompt says it.
        hand: Styles of one hand share outlines, so they say nothing about finding a thing again.
        licence: Of its drawings.
        seen: Whether the embedded model was trained on this style (never on these things).
    """

    name: str
    words: str
    hand: str
    licence: str
    seen: bool


@dataclass(frozen=True, eq=False)
class PairedSet:
    """All drawings: ``pictures`` is (things, styles, height, width, 3) uint8."""

    things: tuple[Thing, ...]
    styles: tuple[Style, ...]
    pictures: NDArray[np.uint8]

    def members(self, split: Split) -> list[int]:
        """Numbers of the things of a split."""
        return [number for number, thing in enumerate(self.things) if thing.split == split]


@dataclass(frozen=True)
class Pair:
    """One question; all fields are numbers of things and styles in the set.

    Attributes:
        thing: What is to be drawn (c).
        content_style: How the content picture draws it (A).
        style_thing: What the style picture shows (d).
        style: How it is to be drawn (B), which is how the style picture is drawn.
    """

    thing: int
    content_style: int
    style_thing: int
    style: int

    @property
    def content(self) -> tuple[int, int]:
        """Thing and style of the content picture."""
        return self.thing, self.content_style

    @property
    def reference(self) -> tuple[int, int]:
        """Thing and style of the style picture."""
        return self.style_thing, self.style

    @property
    def truth(self) -> tuple[int, int]:
        """Thing and style of the picture asked for."""
        return self.thing, self.style

    @property
    def seed(self) -> int:
        """Of the pair's pictures, the same in all rows of a benchmark: 0 to 2**63 - 1."""
        text = f"{self.content} {self.reference}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def load_paired(folder: Path = FOLDER) -> PairedSet:
    """Read the drawings and their index.

    Raises:
        ValueError: The pixels are not those that the index was written for.
    """
    index: dict[str, Any] = json.loads((folder / "index.json").read_text("utf-8"))
    side, columns, count = index["side_px"], index["columns"], len(index["things"])
    atlases = []
    for style in index["styles"]:
        with Image.open(folder / style["file"]) as image:
            cells = np.asarray(image.convert("RGB")).reshape(-1, side, columns, side, 3)
        atlases.append(cells.transpose(0, 2, 1, 3, 4).reshape(-1, side, side, 3)[:count])
    digest = hashlib.sha256(b"".join(atlas.tobytes() for atlas in atlases)).hexdigest()
    if digest != index["pixels_sha256"]:
        raise ValueError(f"{folder}: pixels of digest {digest[:12]}, the index says {index['pixels_sha256'][:12]}")
    names = ("name", "words", "hand", "licence", "seen")
    styles = tuple(Style(**{name: style[name] for name in names}) for style in index["styles"])
    return PairedSet(tuple(Thing(**thing) for thing in index["things"]), styles, np.stack(atlases, axis=1))


def make_pairs(paired: PairedSet, split: Split, count: int, style_pictures: int = 1) -> list[Pair]:
    """Make at least so many pairs: content pictures times styles, near a square, as few as do.

    Content pictures are things from the front of the split, each in one style in turn; a style is shown by things from
    its back, `style_pictures` of them, which the content pictures take in turn. Pairs of one style ask nothing and are
    left out, and so are those of one thing, where the style has no other picture.

    Raises:
        SettingsError: The split has no so many pairs, or too few things to show a style by.
    """
    things = paired.members(split)
    if not 1 <= style_pictures < len(things):
        accepted = f"1 to {len(things) - 1}"
        raise SettingsError([SettingFault("style_pictures", f"more than {split} has", str(style_pictures), accepted)])
    every = range(len(paired.styles))
    # Spread over the table: seen, unseen, drawn and redrawn alternate, so that a small grid has some of each.
    order = sorted(every, key=lambda style: (style * 5) % len(every))
    styles = order[: min(len(every), max(2, math.ceil(math.sqrt(count))))]
    for contents in range(1, len(things) + 1):
        pairs = _grid(things, contents, styles, order, style_pictures)
        if len(pairs) >= count:
            return pairs
    largest = len(_grid(things, len(things), order, order, style_pictures))
    raise SettingsError([SettingFault("pairs", f"more than {split} has", str(count), f"1 to {largest}")])


def _grid(
    things: Sequence[int], contents: int, styles: Sequence[int], order: Sequence[int], style_pictures: int
) -> list[Pair]:
    """Pairs of the first contents with each style, shown by one of its pictures."""
    apart = len(things) // style_pictures
    pairs = []
    for row, thing in enumerate(things[:contents]):
        own = order[row % len(order)]
        for column, style in enumerate(styles):
            turns = ((row + column + later) % style_pictures for later in range(style_pictures))
            shown = (things[-1 - (column + apart * turn) % len(things)] for turn in turns)
            other = next((one for one in shown if one != thing), None)
            if style != own and other is not None:
                pairs.append(Pair(thing, own, other, style))
    return pairs
