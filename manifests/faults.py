"""A fault: a refused row or a failed item, with its reason. Faults are collected and stored; errors are raised."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from manifests.errors import explain, listed, printable

_NAMED = 6  # of items with one reason

KINDS = ("manifest", "image", "settings", "train", "check", "sample", "score", "review")
"""Where in the work a fault arose, in the order of the work."""


@dataclass(frozen=True)
class Fault:
    """A refused row or a failed item, with its reason.

    Attributes:
        kind: One of `KINDS`.
        what: What is wrong, in a few words.
        received: What was found; empty where there is nothing to show.
        accepted: What would have been fine.
        hint: What to do next.
        file: The manifest or picture that it is about, as the user wrote it.
        row: The 1-based line of YAML, JSON or CSV text; the 1-based record number of a Parquet file.
        field: The column or dotted path within the row.
        item: The adapter_id, sample_id, run_id or name it concerns.
        name: What people call the item, where that is an id.
        transient: True where a rerun may well succeed without any change.
    """

    kind: str
    what: str
    received: str
    accepted: str
    hint: str
    file: str = ""
    row: int | None = None
    field: str = ""
    item: str = ""
    transient: bool = False
    name: str = ""

    def __post_init__(self) -> None:
        """Refuse a kind that no reader knows.

        Raises:
            ValueError: `kind` is not one of `KINDS`.
        """
        if self.kind not in KINDS:
            raise ValueError(f"fault kind: received {self.kind!r}; accepted {', '.join(KINDS)}")

    @property
    def where(self) -> str:
        """The place in words, such as "pairs.csv, row 7, style"; empty where the fault has none."""
        places = (self.file, "" if self.row is None else f"row {self.row}", self.field)
        return printable(", ".join(place for place in places if place) or self.name or self.item)

    def __str__(self) -> str:
        """Return one line: where, what, received, accepted, what to do next."""
        return f"{self.where}: {self.text}" if self.where else self.text

    @property
    def text(self) -> str:
        """The same without where."""
        return explain(self.what, self.received, self.accepted, self.hint)


def told(faults: Iterable[Fault]) -> list[str]:
    """Return a line for each fault; items that failed for one and the same reason share theirs."""
    lines: dict[tuple[str, str], list[str]] = {}
    for fault in faults:
        place = "" if fault.item and not fault.file else fault.where
        lines.setdefault((place, fault.text), []).append(fault.where)
    named = [(list(dict.fromkeys(where for where in wheres if where)), text) for (_, text), wheres in lines.items()]
    return [f"{listed(names, _NAMED)}: {text}" if names else text for names, text in named]
