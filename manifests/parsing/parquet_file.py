"""Parquet to records, bounded before it is read: by its footer, by the headers of its pages, then by each cell."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from manifests.parsing.fault_list import DocumentRefused, FaultList, shown
from manifests.parsing.parquet_pages import pages_between
from manifests.parsing.records import (
    MAX_CELL_CHARS,
    MAX_ROWS,
    Record,
    check_columns,
    is_index,
    refuse_cell,
    too_many_rows,
)

MAX_UNPACKED_BYTES = 128 * 2**20
"""Bytes of all Parquet pages once unpacked (128 MiB): 670 bytes a row, were there as many rows as may be."""

_MAX_FOOTER_BYTES = 2**20  # 26 columns in dozens of row groups are a tenth of it
_MAX_PAGES = 20_000  # rows by ten, were each page as small as that
_BATCH_ROWS = 8192
_MOST_VALUES = 50 * MAX_ROWS  # of one column in one row group
_LONGEST_LISTS = 1000  # values a row, averaged over a row group: as many seeds as a pair may have
_ACCEPTED = {"integers": "integers, lists of them, or text", "texts": "text, or lists of it"}
_TOO_LONG = object()


def read_parquet(data: bytes, columns: Mapping[str, str], faults: FaultList) -> Iterator[Record]:
    """Read Parquet record by record. Texts that the file stores once are kept once, however many rows share them.

    Args:
        data: The whole file.
        columns: Column name to the kind of its values: "text", "texts" (one or a list), "number" or "integers"
            (one, a list, or text; doubles and decimals that are whole numbers count as such).
        faults: Takes what is wrong.

    Raises:
        DocumentRefused: It is no Parquet, has other columns or types, or goes beyond a limit.
    """
    try:
        file = _open_parquet(data)
        _check_parquet(file, columns, faults)
        _check_sizes(data, file.metadata, faults)
        names = [name for name in file.schema_arrow.names if not is_index(name)]
        row = 1
        for batch in file.iter_batches(batch_size=_BATCH_ROWS, use_threads=False):
            cells = [_values(batch.column(name)) for name in names]
            for values in zip(*cells, strict=True) if cells else ():
                record = {name: value for name, value in zip(names, values, strict=True) if value is not None}
                if long := [name for name, value in record.items() if value is _TOO_LONG]:
                    refuse_cell(long[0], row, faults)
                else:
                    yield Record(row, record)
                row += 1
    except DocumentRefused:
        raise
    except Exception as error:
        # As with pictures: damaged files end in nearly any exception of the reader, and the bytes are to blame.
        received = shown(str(error).partition("\n")[0])
        raise faults.refuse("not readable as Parquet", received, "a Parquet file", "write the file again") from error


def _open_parquet(data: bytes) -> pq.ParquetFile:
    if (footer := int.from_bytes(data[-8:-4], "little")) > _MAX_FOOTER_BYTES:
        raise ValueError(f"a footer of {footer:,} bytes, at most {_MAX_FOOTER_BYTES:,} are read")
    limits = {"thrift_string_size_limit": 2**20, "thrift_container_size_limit": 2**16}
    schema = pq.ParquetFile(pa.BufferReader(data), **limits).schema
    leaves = [schema.column(index) for index in range(len(schema))]
    texts = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY" and leaf.logical_type.type == "STRING"]
    return pq.ParquetFile(pa.BufferReader(data), read_dictionary=texts, **limits)


def _check_parquet(file: pq.ParquetFile, columns: Mapping[str, str], faults: FaultList) -> None:
    """Refuse a table whose footer tells of other columns, of other types or of too many rows."""
    fields, before = [field for field in file.schema_arrow if not is_index(field.name)], len(faults)
    check_columns([field.name for field in fields], columns, faults, None)
    for field in fields:
        kind = columns[field.name]
        if not _fits(field.type, kind):
            received, accepted = str(_plain(field.type)), _ACCEPTED.get(kind, f"{kind}s")
            faults.add("column of a wrong type", received, accepted, "convert the column", field=field.name)
    if file.metadata.num_rows > MAX_ROWS:
        raise too_many_rows(f"{file.metadata.num_rows:,}", faults)
    if len(faults) > before:
        raise DocumentRefused("types")


def _check_sizes(data: bytes, footer: pq.FileMetaData, faults: FaultList) -> None:
    """Refuse what a small file unpacks to too much, by what the headers of its pages say."""
    unpacked = pages = 0
    for group in map(footer.row_group, range(footer.num_row_groups)):
        for chunk in map(group.column, range(group.num_columns)):
            values = chunk.num_values
            start = chunk.dictionary_page_offset or chunk.data_page_offset
            start = min(start, chunk.data_page_offset)
            in_pages = 0
            for page in pages_between(data, start, start + chunk.total_compressed_size):
                unpacked, pages, in_pages = unpacked + page.unpacked, pages + 1, in_pages + page.values
                values = max(values, in_pages)
                if page.unpacked > MAX_CELL_CHARS * (page.values + page.distinct + 1):
                    received = f"{page.unpacked:,} bytes in {page.values + page.distinct:,} cells"
                    accepted, hint = f"at most {MAX_CELL_CHARS:,} bytes a cell", "shorten them"
                    raise faults.refuse("cells too long", received, accepted, hint)
                is_much = unpacked > MAX_UNPACKED_BYTES or values > _most_values(group.num_rows)
                if is_much or pages > _MAX_PAGES:
                    received = f"{unpacked:,} bytes, {values:,} values in {group.num_rows:,} rows, {pages:,} pages"
                    accepted = (
                        f"at most {MAX_UNPACKED_BYTES:,} bytes, {_LONGEST_LISTS:,} values a row, {_MAX_PAGES:,} pages"
                    )
                    raise faults.refuse("Parquet unpacks to too much", received, accepted, "split the manifest")


def _most_values(rows: int) -> int:
    return min(_MOST_VALUES, _LONGEST_LISTS * max(rows, 1))


def _plain(kind: pa.DataType) -> pa.DataType:
    """Return the type without dictionaries."""
    if _is_list(kind):
        return pa.list_(_plain(kind.value_type))
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _is_text(kind: pa.DataType) -> bool:
    kind = _plain(kind)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _fits(kind: pa.DataType, accepted: str) -> bool:
    if pa.types.is_null(kind):
        return True
    if accepted == "number":
        return _is_number(kind)
    if accepted == "text":
        return _is_text(kind)
    inner = kind.value_type if _is_list(kind) else kind
    if pa.types.is_null(inner):
        return True
    return _is_text(inner) if accepted == "texts" else _is_text(kind) or _is_number(inner)


def _values(column: pa.Array) -> list[Any]:
    """Return the cells; None for what is empty, `_TOO_LONG` for what is not even turned into a text."""
    if isinstance(column, pa.DictionaryArray):
        texts = _texts(column.dictionary)
        return [None if index is None else texts[index] for index in column.indices.to_pylist()]
    if _is_list(column.type) and isinstance(column.values, pa.DictionaryArray):
        texts = _texts(column.values.dictionary)
        rows, indices = pc.list_parent_indices(column).to_pylist(), column.flatten().indices.to_pylist()
        members = ((row, None if index is None else texts[index]) for row, index in zip(rows, indices, strict=True))
        return _lists(column, members)
    if _is_text(column.type):
        return _texts(column)
    return [_number(value) for value in column.to_pylist()]


def _texts(column: pa.Array) -> list[Any]:
    if len(column) == column.null_count:
        return [None] * len(column)
    lengths = pc.binary_length(column)
    if (pc.max(lengths).as_py() or 0) <= MAX_CELL_CHARS:
        return [(text or "").strip() or None for text in column.to_pylist()]
    return [
        _TOO_LONG if (length or 0) > MAX_CELL_CHARS else _texts(column.slice(index, 1))[0]
        for index, length in enumerate(lengths.to_pylist())
    ]


def _lists(column: pa.Array, members: Iterable[tuple[int, Any]]) -> list[Any]:
    cells: list[Any] = [None if is_null else [] for is_null in column.is_null().to_pylist()]
    for row, text in members:
        if text is _TOO_LONG or cells[row] is _TOO_LONG:
            cells[row] = _TOO_LONG
        elif text is not None:
            cells[row].append(text)
    return cells


def _number(value: Any) -> Any:
    """Return a cell of numbers; decimals become integers where they are such, else doubles, as everywhere else."""
    if isinstance(value, list):
        return [_number(item) for item in value]
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return value
