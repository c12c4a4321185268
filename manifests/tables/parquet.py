"""Tables to Parquet and back, checked against their schemas on the way in and on the way out.

Files are plain Parquet (zstd): pandas, polars and DuckDB read them as they lie.
"""

from __future__ import annotations

import datetime
import itertools
import numbers
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from manifests.errors import TableError

_ROWS_AT_ONCE = 10_000

_SCALARS = (str, bool, int, float, type(None))  # whether they fit a column, their type says


def _with_nulls(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return a table of an older version with null in the columns that have been added since."""
    for field in schema:
        if field.nullable and field.name not in table.schema.names:
            table = table.append_column(field, pa.nulls(len(table), field.type))
    return table


def _label(schema: pa.Schema) -> tuple[str, int]:
    """Return (table, schema_version) of a schema's metadata; ("", 0) where it says nothing."""
    metadata = schema.metadata or {}
    version = metadata.get(b"schema_version", b"0").decode("ascii", "replace")
    return metadata.get(b"table", b"").decode("utf-8", "replace"), int(version) if version.isdigit() else 0


def _check_columns(table: str, received: Iterable[str], schema: pa.Schema, where: str) -> None:
    names = list(received)
    unknown = [name for name in names if name not in schema.names]
    missing = [name for name in schema.names if name not in names]
    if unknown or missing:
        faults = [f"unknown: {', '.join(unknown)}"] if unknown else []
        faults += [f"missing: {', '.join(missing)}"] if missing else []
        raise TableError(f"columns of {table}{where}", "; ".join(faults), ", ".join(schema.names))


def _fits(value: object, kind: pa.DataType) -> bool:
    """Return whether a value is of that type as it is; pyarrow alone would cut 0.5 to 0 and split a text in letters."""
    if pa.types.is_string(kind):
        return isinstance(value, str)
    if pa.types.is_boolean(kind):
        return isinstance(value, bool)
    if pa.types.is_integer(kind):
        return isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if pa.types.is_floating(kind):
        return isinstance(value, numbers.Real) and not isinstance(value, bool)
    if pa.types.is_timestamp(kind):
        return isinstance(value, datetime.datetime) and value.tzinfo is not None
    if pa.types.is_struct(kind):
        return isinstance(value, Mapping) and all(_fits(value.get(field.name), field.type) for field in kind)
    return isinstance(value, list | tuple) and all(_fits(item, kind.value_type) for item in value)


def _first_misfit(field: pa.Field, values: list[object]) -> int | None:
    """The number of the first value that is none of the field's. Of scalars one of each type is looked at."""
    fitting: set[type] = set()
    for number, value in enumerate(values):
        if type(value) in fitting:
            continue
        if not (_fits(value, field.type) or (value is None and field.nullable)):
            return number
        if isinstance(value, _SCALARS):
            fitting.add(type(value))
    return None


def _column(table: str, field: pa.Field, values: list[object], before: int) -> pa.Array:
    if (number := _first_misfit(field, values)) is not None:
        received = repr(values[number])[:200]
        raise TableError(f"{table}, row {before + number + 1}, {field.name}", received, f"a value of type {field.type}")
    try:
        return pa.array(values, type=field.type)
    except (pa.ArrowException, OverflowError, UnicodeError) as error:
        raise TableError(f"{table}, column {field.name}", str(error), f"values of type {field.type}") from error


def to_table(rows: Iterable[Mapping[str, object]], schema: pa.Schema) -> pa.Table:
    """Turn rows into a table of exactly this schema; no row is an empty table with all columns.

    Of rows that are made one by one only some are held at a time.

    Raises:
        TableError: A row has an unknown column or lacks one (null is a value: give None), or a value does not fit.
    """
    coming, done = iter(rows), 0
    batches: list[pa.RecordBatch] = []
    while some := list(itertools.islice(coming, _ROWS_AT_ONCE)):
        batches.append(_batch(some, schema, done))
        done += len(some)
    return pa.Table.from_batches(batches, schema=schema).combine_chunks()


def _batch(rows: Sequence[Mapping[str, object]], schema: pa.Schema, before: int) -> pa.RecordBatch:
    """Turn some rows into columns; `before` them came so many others."""
    table, _ = _label(schema)
    names = set(schema.names)
    for number, row in enumerate(rows, start=before + 1):
        if row.keys() != names:
            _check_columns(table, row, schema, f", row {number}")
    columns = [_column(table, field, [row[field.name] for row in rows], before) for field in schema]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def to_parquet_bytes(table: pa.Table, notes: Mapping[str, str] | None = None) -> bytes:
    """Return the table as a Parquet file, `notes` in its metadata; the same table gives the same bytes."""
    if notes:
        table = table.replace_schema_metadata({**table.schema.metadata, **notes})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue())


def read_note(data: bytes, name: str) -> str | None:
    """Return what `to_parquet_bytes` noted under a name in a file; None where it noted nothing."""
    note = (pq.read_schema(pa.BufferReader(data)).metadata or {}).get(name.encode())
    return None if note is None else note.decode()


def from_parquet_bytes(data: bytes, schema: pa.Schema) -> pa.Table:
    """Read a Parquet file that `to_parquet_bytes` wrote, checking that it is this table in this version.

    Raises:
        TableError: It is no Parquet file, another table, a newer version, or its columns differ (older ones may lack
            columns that may be null).
    """
    table, version = _label(schema)
    try:
        # read_table would import pandas, where there is one. A thread of Arrow may hold `data` for longer than Python
        # lasts, and aborts the process as it lets go of it (apache/arrow issue 34314).
        read = pq.ParquetFile(pa.BufferReader(data)).read(use_threads=False)
    except (pa.ArrowException, OSError) as error:
        received = f"{len(data)} bytes that are no Parquet file ({error})"
        raise TableError(f"table {table}", received, "a Parquet file") from error
    other, other_version = _label(read.schema)
    if other != table:
        raise TableError("wrong table", other or "a file of another program", table, "give the file of that table")
    if 1 <= other_version < version:
        read = _with_nulls(read, schema)
    elif other_version != version:
        hint = "upgrade this package" if other_version > version else "write it again with this version"
        raise TableError(f"schema version of {table}", str(other_version), str(version), hint)
    _check_columns(table, read.schema.names, schema, "")
    return read.select(schema.names).cast(schema)


def read_rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    """Yield the rows of a table; only some are held at a time, because as Python objects they take far more room."""
    for batch in table.to_batches(max_chunksize=_ROWS_AT_ONCE):
        yield from batch.to_pylist()
