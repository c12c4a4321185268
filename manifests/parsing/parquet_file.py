"""Parquet to records, bounded by what its footer declares, by what its pages declare, and by what a cell holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from manifests.parsing.fault_list import DocumentRefused, FaultList, shown
from manifests.parsing.records import MAX_ROWS, Record, check_columns, too_many_rows

MAX_UNPACKED_BYTES = 512 * 2**20
"""Bytes of Parquet pages once unpacked, as the footer declares them (512 MiB)."""

_BATCH_ROWS = 8192
_MOST_VALUES = 50 * MAX_ROWS  # of one column in one row group
_LONGEST_LISTS = 1000  # values a row, averaged over a row group: as many seeds as a pair may have


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
        raise too_many_rows(f"{footer.num_rows:,}", faults)
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
