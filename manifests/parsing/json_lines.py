"""JSON Lines to records: an object a line, of the columns that the other tables have; each line stands for itself."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Collection, Iterator
from typing import Any

from manifests.parsing.fault_list import DocumentRefused, FaultList, glimpse
from manifests.parsing.json_text import bounded_int
from manifests.parsing.nodes import decode_text
from manifests.parsing.records import (
    LONGEST_COLUMN,
    MAX_CELL_CHARS,
    MAX_ROWS,
    Record,
    check_columns,
    is_index,
    refuse_cell,
    too_many_rows,
)


def read_json_lines(data: bytes, columns: Collection[str], faults: FaultList) -> Iterator[Record]:
    """Read JSON Lines row by row. Lines that cannot be read are faults; an empty text or list is as if not given.

    Args:
        data: The whole file.
        columns: Column names.
        faults: Takes what is wrong.

    Raises:
        DocumentRefused: The first line is no object with a column of a manifest, or there are too many rows.
    """
    lines = ((row, line) for row, line in enumerate(decode_text(data, faults).split("\n"), 1) if line.strip())
    first_row, first = next(lines)
    if (cells := _object(first, first_row, faults)) is None:  # it may be no manifest at all: no further line is quoted
        raise DocumentRefused("first line")
    if not cells.keys() & set(columns):
        check_columns(list(cells), columns, faults, first_row)
    for count, (row, line) in enumerate(itertools.chain([(first_row, first)], lines)):
        if count == MAX_ROWS:
            raise too_many_rows(f"more than {MAX_ROWS:,}", faults)
        if (cells := _object(line, row, faults)) is None:
            continue
        told = {name: _cell(value) for name, value in cells.items() if not _is_row_number(name, value)}
        if long := [name for name, value in told.items() if _is_long(value)]:
            refuse_cell(long[0][:LONGEST_COLUMN], row, faults)
        else:
            yield Record(row, {name: value for name, value in told.items() if value not in (None, "", [])})


def _object(line: str, row: int, faults: FaultList) -> dict[str, Any] | None:
    """The object in a line, or None after adding why there is none."""
    repeated: list[str] = []

    def fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            repeated.extend(name for name, times in Counter(name for name, _ in pairs).items() if times > 1)
        return found

    hint = "write each row as one object in one line"
    try:
        value = json.loads(line, parse_int=bounded_int, object_pairs_hook=fields)
    except RecursionError:
        faults.add("nested too deeply", "hundreds of levels", "one JSON object a line", hint, row=row)
        return None
    except json.JSONDecodeError as error:
        received = glimpse(line[error.pos : error.pos + 13]) if error.pos < len(line) else "the end of the line"
        faults.add("not well-formed JSON", received, "one JSON object a line", hint, row=row)
        return None
    if not isinstance(value, dict):
        faults.add("no row", glimpse(value), "one JSON object a line", hint, row=row)
        return None
    if not repeated:
        return value
    received, field = glimpse(repeated[0], LONGEST_COLUMN), repeated[0][:LONGEST_COLUMN]
    faults.add("key given twice", received, "each key once", "remove one", row=row, field=field)
    return None


def _cell(value: Any) -> Any:
    """A cell as the other tables have it: texts stripped, lists without what is empty."""
    if isinstance(value, list):
        return [cell for cell in map(_cell, value) if cell not in (None, "")]
    return value.strip() if isinstance(value, str) else value


def _is_long(value: Any) -> bool:
    cells = value if isinstance(value, list) else [value]
    return any(isinstance(cell, str) and len(cell) > MAX_CELL_CHARS for cell in cells)


def _is_row_number(name: str, value: Any) -> bool:
    return is_index(name) and (value is None or isinstance(value, int | float))
