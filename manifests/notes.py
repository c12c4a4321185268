"""A note: what a person may want to know of a row that is taken all the same, such as what was done to its picture.

A fault keeps something out of a run; a note keeps nothing out. `validate`, `plan` and the page of a run tell both.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from manifests.errors import listed, printable

_PLACES_TOLD = 3
_LONGEST_TEXT = 500


@dataclass(frozen=True)
class Note:
    """Something to know of a row.

    Attributes:
        text: What, in a sentence without its subject: "CMYK converted to RGB".
        item: The name that it concerns, of a content or style, say.
        file: The manifest, as the user wrote it.
        row: The 1-based line of YAML, JSON or CSV text; the 1-based record number of a Parquet file.
    """

    text: str
    item: str = ""
    file: str = ""
    row: int | None = None

    def __post_init__(self) -> None:
        """Bound the text, which may quote what a stranger wrote, and make it printable."""
        object.__setattr__(self, "text", printable(self.text)[:_LONGEST_TEXT])

    @property
    def where(self) -> str:
        """The place in words, such as "pairs.csv, row 7, owl"; empty where the note has none."""
        places = (self.file, "" if self.row is None else f"row {self.row}", self.item)
        return printable(", ".join(place for place in places if place))

    def __str__(self) -> str:
        """Return one line: where, what."""
        return f"{self.where}: {self.text}" if self.where else self.text


def told(notes: Iterable[Note]) -> list[str]:
    """Return a line for each thing that there is to know, with the first places that it is true of."""
    places: dict[str, list[str]] = {}
    for note in dict.fromkeys(notes):
        places.setdefault(note.text, []).append(note.where)
    lines = []
    for text, wheres in places.items():
        somewhere = listed([where for where in wheres if where], _PLACES_TOLD)
        lines.append(f"{somewhere}: {text}" if somewhere else text)
    return lines
