"""Collecting the faults of one manifest: all of them, bounded in number and length, safe to print and to store."""

from __future__ import annotations

import reprlib

from manifests.errors import printable
from manifests.faults import Fault
from manifests.notes import Note

MAX_FAULTS = 10_000
"""Faults kept of one manifest; a last one says how many more there are."""

_LONGEST_TEXT = 500
_REPR = reprlib.Repr()
_REPR.maxlevel, _REPR.maxstring, _REPR.maxother, _REPR.maxlong = 2, 100, 100, 50


class DocumentRefused(Exception):
    """The document cannot be read any further; why is already in the list of faults."""


def shown(value: object) -> str:
    """Return a value as a fault shows it: short, and without any character that steers a terminal."""
    return _REPR.repr(value)


def glimpse(value: object, most: int = 12) -> str:
    """Return the first characters of what cannot be read, or the kind of what is no text.

    Enough to recognise a file by, and no more: it may be one that the reader of the message was never meant to see.
    """
    if isinstance(value, str):
        return repr(value[:most]) + ("..." if len(value) > most else "")
    return {dict: "a mapping", list: "a list", type(None): "nothing"}.get(type(value)) or repr(value)[:most]


def _short(text: str) -> str:
    return printable(text)[:_LONGEST_TEXT]


class FaultList:
    """The faults of one manifest, in the order in which they are found.

    Attributes:
        file: The manifest, as people know it.
        notes: What there is to know of rows that are taken all the same.
    """

    def __init__(self, file: str) -> None:
        """Start an empty list for a manifest."""
        self.file = printable(file)
        self.notes: list[Note] = []
        self._faults: list[Fault] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(
        self,
        what: str,
        received: str,
        accepted: str,
        hint: str,
        *,
        row: int | None = None,
        field: str = "",
        item: str = "",
        transient: bool = False,
    ) -> None:
        """Keep a fault; see `manifests.faults.Fault` for what the texts mean."""
        self._count += 1
        if self._count > MAX_FAULTS:
            return
        fault = Fault(
            "manifest",
            _short(what),
            _short(received),
            _short(accepted),
            _short(hint),
            file=self.file,
            row=row,
            field=_short(field),
            item=_short(item),
            transient=transient,
        )
        self._faults.append(fault)

    def skip(self, count: int) -> bool:
        """Count faults that would not be kept, so that nobody has to word them; False where there is room for them."""
        if self._count < MAX_FAULTS:
            return False
        self._count += count
        return True

    def refuse(self, what: str, received: str, accepted: str, hint: str, *, row: int | None = None) -> DocumentRefused:
        """Keep a fault that ends the reading, and return what to raise."""
        self.add(what, received, accepted, hint, row=row)
        return DocumentRefused(what)

    def all(self) -> tuple[Fault, ...]:
        """Return the faults by row, those of the whole file first."""
        faults = sorted(self._faults, key=lambda fault: fault.row or 0)
        if self._count > MAX_FAULTS:
            more = f"{self._count - MAX_FAULTS:,} more faults"
            hint = "correct those above first"
            faults.append(Fault("manifest", "too many faults to list", more, "", hint, file=self.file))
        return tuple(faults)
