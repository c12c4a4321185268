"""CSV and Parquet to records: one mapping of cells for each row, with the row's number."""

from __future__ import annotations

import csv
import difflib
import functools
import io
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from manifests.errors import counted
from manifests.parsing.fault_list import DocumentRefused, FaultList, glimpse, shown
from manifests.parsing.nodes import decode_text

MAX_ROWS = 200_000
"""Rows of one table."""

MAX_UNPACKED_BYTES = 512 * 2**20
"""Bytes of Parquet pages once unpacked, as the footer declares them (512 MiB)."""

LONGEST_COLUMN = 40
"""Characters of an unknown column's name that a fault shows."""

_BATCH_ROWS = 8192
_MOST_VALUES = 50 * MAX_ROWS  # of one column in one row group
_LONGEST_LISTS = 1000  # values a row, averaged over a row group: as many seeds as a pair may have


@dataclass(frozen=True, slots=True)
class Record:
    """A row of a table.

    Attributes:
        row: 1-based line where the row starts (CSV) or number of the record (Parquet).
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
    before, known = len(faults), tuple(accepted)
    if names and not any(name in accepted or suggest(name, known, "") for name in names):
        received = f"{counted(len(names), 'column')}, the first {glimpse(names[0])}"
        raise faults.refuse("no column of a manifest", received, ", ".join(known), "name the columns so", row=row)
    for name in dict.fromkeys(names):
        if name not in accepted:
            hint = suggest(name, known, "remove the column or rename it")
            received = glimpse(name, LONGEST_COLUMN)
            faults.add("unknown column", received, ", ".join(known), hint, row=row, field=name[:LONGEST_COLUMN])
        elif names.count(name) > 1:
            received = f"{names.count(name)} times {name}"
            faults.add("column given twice", received, "each column once", "remove one", row=row, field=name)
    if len(faults) > before:
        raise DocumentRefused("columns")


def read_csv(data: bytes, columns: Collection[str], faults: FaultList) -> Iterator[Record]:
    """Read CSV text row by row; cells are stripped texts. Rows that cannot be read are faults.

    Raises:
        DocumentRefused: The header is not one, or there are too many rows.
    """
    text = decode_text(data, faults, errors="surrogateescape")
    rows = _csv_rows(text, _separator(text, columns), faults)
    header_row, cells = next(rows, (1, []))
    header = [name.strip() for name in cells]
    while header and not header[-1]:
        header.pop()
    if not _is_utf8(cells, faults, header_row):
        raise DocumentRefused("header")
    check_columns(header, columns, faults, header_row)
    for count, (row, cells) in enumerate(rows):
        if count == MAX_ROWS:
            raise _too_many_rows(f"more than {MAX_ROWS:,}", faults)
        if len(cells) < len(header) or any(cells[len(header) :]):
            received, accepted = f"{len(cells)} cells", f"{len(header)} cells, as in the header"
            faults.add("row of another length", received, accepted, 'put texts with separators in "quotes"', row=row)
        elif _is_utf8(cells, faults, row):
            yield Record(row, {name: cell for name, cell in zip(header, cells, strict=False) if cell})


def _separator(text: str, columns: Collection[str]) -> str:
    header = text.lstrip().partition("\n")[0]
    return max(",;\t", key=lambda mark: sum(cell.strip(' "\r') in columns for cell in header.split(mark)))


def _csv_rows(text: str, separator: str, faults: FaultList) -> Iterator[tuple[int, list[str]]]:
    """Yield the line where each row starts, and its stripped cells; skip rows without any text."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    while True:
        row = reader.line_num + 1
        try:
            cells = [cell.strip() for cell in next(reader)]
        except StopIteration:
            return
        except csv.Error as error:
            hint = 'close the quote; write a quote inside a text twice: ""'
            faults.add("not well-formed CSV", str(error), "CSV", hint, row=row)
            continue
        if any(cells):
            yield row, cells


def _is_utf8(cells: Sequence[str], faults: FaultList, row: int) -> bool:
    """Tell whether all cells came from UTF-8; what did not was kept as lone surrogates."""
    for cell in cells:
        if not cell.isascii() and any("\udc80" <= character <= "\udcff" for character in cell):
            bad = next(place for place, character in enumerate(cell) if "\udc80" <= character <= "\udcff")
            latin = cell[max(0, bad - 4) : bad + 8].encode("utf-8", "surrogateescape").decode("latin-1")
            hint = "save the file as UTF-8 (in Excel: CSV UTF-8)"
            faults.add("not UTF-8", f"{shown(latin)}, read as Latin-1", "UTF-8", hint, row=row)
            return False
    return True


def _too_many_rows(received: str, faults: FaultList) -> DocumentRefused:
    return faults.refuse("too many rows", received, f"at most {MAX_ROWS:,}", "split the manifest")


def read_parquet(data: bytes, columns: Mapping[str, str], faults: FaultList) -> Iterator[Record]:
    """Read Parquet record by record. Texts that the file stores once are kept once, however many rows share them.

    Args:
        data: The whole file.
        columns: Column name to the kind of its values: "text", "number" or "integers" (one, a list, or text).
        faults: Takes what is wrong.

    Raises:
        DocumentRefused: It is no Parquet, has other columns or types, or goes beyond a limit.
    """
    try:
        file = _open_parquet(data)
        _check_parquet(file, columns, faults)
        names = [field.name for field in file.schema_arrow]
        row = 1
        for batch in file.iter_batches(batch_size=_BATCH_ROWS, use_threads=False):
            cells = [_values(column) for column in batch.columns]
            for values in zip(*cells, strict=True):
                yield Record(row, {name: value for name, value in zip(names, values, strict=True) if value is not None})
                row += 1
    except DocumentRefused:
        raise
    except Exception as error:
        # As with pictures: damaged files end in nearly any exception of the reader, and the bytes are to blame.
        received = shown(str(error).partition("\n")[0])
        raise faults.refuse("not readable as Parquet", received, "a Parquet file", "write the file again") from error


def _open_parquet(data: bytes) -> pq.ParquetFile:
    limits = {"thrift_string_size_limit": 2**24, "thrift_container_size_limit": 2**20}
    schema = pq.ParquetFile(pa.BufferReader(data), **limits).schema_arrow
    texts = [field.name for field in schema if _is_text(field.type)]
    return pq.ParquetFile(pa.BufferReader(data), read_dictionary=texts, **limits)


def _check_parquet(file: pq.ParquetFile, columns: Mapping[str, str], faults: FaultList) -> None:
    schema, footer, before = file.schema_arrow, file.metadata, len(faults)
    check_columns(schema.names, columns, faults, None)
    for field in schema:
        kind = columns[field.name]
        if not _fits(field.type, kind):
            received, accepted = (
                str(_plain(field.type)),
                {"integers": "integers, lists of them, or text"}.get(kind, f"{kind}s"),
            )
            faults.add("column of a wrong type", received, accepted, "convert the column", field=field.name)
    if footer.num_rows > MAX_ROWS:
        raise _too_many_rows(f"{footer.num_rows:,}", faults)
    _check_sizes(footer, faults)
    if len(faults) > before:
        raise DocumentRefused("types")


def _check_sizes(footer: pq.FileMetaData, faults: FaultList) -> None:
    """Refuse what a small file unpacks to too much, by what its footer says."""
    unpacked = 0
    for group in map(footer.row_group, range(footer.num_row_groups)):
        chunks = [group.column(index) for index in range(group.num_columns)]
        unpacked += sum(chunk.total_uncompressed_size for chunk in chunks)
        values = max((chunk.num_values for chunk in chunks), default=0)
        if unpacked > MAX_UNPACKED_BYTES or values > min(_MOST_VALUES, _LONGEST_LISTS * group.num_rows):
            received = f"{unpacked:,} bytes, {values:,} values in {group.num_rows:,} rows"
            accepted = f"at most {MAX_UNPACKED_BYTES:,} bytes, {_LONGEST_LISTS:,} values a row"
            raise faults.refuse("Parquet unpacks to too much", received, accepted, "split the manifest")


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_text(kind: pa.DataType) -> bool:
    kind = _plain(kind)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _fits(kind: pa.DataType, accepted: str) -> bool:
    if pa.types.is_null(kind):
        return True
    if accepted == "text":
        return _is_text(kind)
    if accepted == "number":
        return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    return _is_text(kind) or bool(pa.types.is_integer(kind.value_type if is_list else kind))


def _values(column: pa.Array) -> list[Any]:
    if isinstance(column, pa.DictionaryArray):
        texts = [text.strip() or None for text in column.dictionary.to_pylist()]
        return [None if index is None else texts[index] for index in column.indices.to_pylist()]
    return [value or None if isinstance(value, str) else value for value in column.to_pylist()]
