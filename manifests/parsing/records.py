"""A row of a table, whatever file it came from, and what holds for the columns of all of them."""

from __future__ import annotations

import difflib
import functools
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from manifests.errors import counted
from manifests.parsing.fault_list import DocumentRefused, FaultList, glimpse

MAX_ROWS = 200_000
"""Rows of one table."""

MAX_COLUMNS = 200
"""Columns of one table; looking for what each unknown one may have meant takes time."""

MAX_CELL_CHARS = 2**17
"""Characters of one cell; the longest that a manifest can use, 1000 seeds or 32 paths, is a fraction of it."""

LONGEST_COLUMN = 40
"""Characters of an unknown column's name that a fault shows."""

_INDEX = re.compile(r"__index_level_\d{1,3}__|Unnamed: \d{1,3}")


@dataclass(frozen=True, slots=True)
class Record:
    """A row of a table.

    Attributes:
        row: 1-based line where the row starts (CSV, JSON Lines) or number of the record (Parquet).
        cells: Column name to value; empty cells are left out.
    """

    row: int
    cells: Mapping[str, Any]


@functools.lru_cache(maxsize=4096)
def suggest(name: str, accepted: tuple[str, ...], otherwise: str) -> str:
    """Return "did you mean ...?" where a name is close to an accepted one, else `otherwise`."""
    folded = {candidate.casefold(): candidate for candidate in accepted}
    close = difflib.get_close_matches(name[:100].casefold(), folded, n=1)
    return f"did you mean {folded[close[0]]}?" if close else otherwise


def check_columns(names: Sequence[str], accepted: Collection[str], faults: FaultList, row: int | None) -> None:
    """Refuse a table with columns that are unknown or given twice; every one is named, unless none is known.

    Raises:
        DocumentRefused: There is such a column.
    """
    before, known, counts = len(faults), tuple(accepted), Counter(names)
    if len(names) > MAX_COLUMNS:
        received, hint = f"{counted(len(names), 'column')}, the first {glimpse(names[0])}", "remove the other columns"
        raise faults.refuse("too many columns", received, ", ".join(known), hint, row=row)
    if names and not any(name in accepted or suggest(name, known, "") for name in names):
        received = f"{counted(len(names), 'column')}, the first {glimpse(names[0])}"
        raise faults.refuse("no column of a manifest", received, ", ".join(known), "name the columns so", row=row)
    for name in counts:
        if name not in accepted:
            hint = suggest(name, known, "remove the column or rename it")
            received = glimpse(name, LONGEST_COLUMN)
            faults.add("unknown column", received, ", ".join(known), hint, row=row, field=name[:LONGEST_COLUMN])
        elif counts[name] > 1:
            received = f"{counts[name]} times {name}"
            faults.add("column given twice", received, "each column once", "remove one", row=row, field=name)
    if len(faults) > before:
        raise DocumentRefused("columns")


def is_index(name: str) -> bool:
    """Tell whether a column is one in which pandas wrote the numbers of the rows, unasked."""
    return not name or bool(_INDEX.fullmatch(name))


def refuse_cell(name: str, row: int, faults: FaultList) -> None:
    """Add the fault of a cell that is longer than `MAX_CELL_CHARS`."""
    received, accepted = f"more than {MAX_CELL_CHARS:,} bytes", f"at most {MAX_CELL_CHARS:,}"
    faults.add("cell too long", received, accepted, "shorten it", row=row, field=name)


def too_many_rows(received: str, faults: FaultList) -> DocumentRefused:
    """Refuse a table of more than `MAX_ROWS` rows; return what to raise."""
    return faults.refuse("too many rows", received, f"at most {MAX_ROWS:,}", "split the manifest")
