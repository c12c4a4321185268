"""The tables: strict on the way in, checked on the way out, and plain Parquet for every other reader."""

from __future__ import annotations

import datetime
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests import layout
from manifests.errors import TableError
from manifests.tables import measuring, review, run
from manifests.tables.parquet import from_parquet_bytes, to_parquet_bytes, to_table

SCHEMAS = {
    name.lower(): schema
    for module in (run, review, measuring)
    for name, schema in vars(module).items()
    if isinstance(schema, pa.Schema)
}
NOON = datetime.datetime(2026, 11, 22, 12, 0, 0, 123456, tzinfo=datetime.UTC)
EXAMPLES: dict[pa.DataType, Any] = {
    pa.string(): "text",
    pa.int32(): 2**31 - 1,
    pa.int64(): 2**63 - 1,
    pa.float64(): 0.1,
    pa.bool_(): True,
    run.SCORES.field("scored_at").type: NOON,
    run.PLAN.field("image_ids").type: ["a", "b"],
    run.PLAN.field("style_mix").type: [{"adapter_id": "a", "name": "wave", "weight": 0.5}],
}


def row_of(schema: pa.Schema, *, bare: bool = False) -> dict[str, Any]:
    """One valid row; `bare` leaves out all that may be left out."""
    return {field.name: None if bare and field.nullable else EXAMPLES[field.type] for field in schema}


@pytest.mark.parametrize("name", SCHEMAS)
def test_rows_come_back_as_they_went_in(name: str) -> None:
    schema = SCHEMAS[name]
    rows = [row_of(schema), row_of(schema, bare=True)]
    data = to_parquet_bytes(to_table(rows, schema))
    read = from_parquet_bytes(data, schema)
    assert read.to_pylist() == rows
    assert read.schema.equals(schema, check_metadata=True)
    assert to_parquet_bytes(to_table(rows, schema)) == data


@pytest.mark.parametrize("name", SCHEMAS)
def test_no_rows_are_a_table_with_all_columns(name: str) -> None:
    read = from_parquet_bytes(to_parquet_bytes(to_table([], SCHEMAS[name])), SCHEMAS[name])
    assert read.num_rows == 0
    assert read.schema.names == SCHEMAS[name].names


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_column_is_explained(name: str) -> None:
    schema = SCHEMAS[name]
    assert schema.metadata == {
        b"table": name.encode(),
        b"schema_version": {"plan": b"4", "samples": b"3", "adapters": b"3", "bench": b"2"}.get(name, b"1"),
    }
    assert all(len((field.metadata or {}).get(b"doc", b"")) > 10 for field in schema)
    assert all(field.type.tz == "UTC" for field in schema if pa.types.is_timestamp(field.type))


@given(st.lists(st.tuples(st.text(), st.floats(allow_nan=False), st.integers(-(2**63), 2**63 - 1)), max_size=8))
def test_any_text_and_number_survives(values: list[tuple[str, float, int]]) -> None:
    rows = [row_of(run.SCORES) | {"score": s, "value": v, "seed": n} for s, v, n in values]
    data = to_parquet_bytes(to_table(rows, run.SCORES))
    assert from_parquet_bytes(data, run.SCORES).to_pylist() == rows


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": 1}, r"columns of scores, row 2: received unknown: colour"),
        ({"value": None}, r"scores, row 2, value: received None"),
        ({"value": "high"}, r"scores, row 2, value: received 'high'; accepted a value of type double"),
        ({"value": True}, r"scores, row 2, value: received True"),
        ({"seed": 0.5}, r"scores, row 2, seed: received 0.5; accepted a value of type int64"),
        ({"seed": 2**63}, r"scores, column seed"),
        ({"score": b"bytes"}, r"scores, row 2, score"),
        ({"score": "\ud800"}, r"scores, column score"),
        ({"scored_at": NOON.replace(tzinfo=None)}, r"scores, row 2, scored_at"),
        ({"scored_at": 1_700_000_000}, r"scores, row 2, scored_at"),
    ],
)
def test_a_row_that_does_not_fit_is_refused_by_name(change: dict[str, Any], message: str) -> None:
    with pytest.raises(TableError, match=message):
        to_table([row_of(run.SCORES), row_of(run.SCORES) | change], run.SCORES)


@pytest.mark.parametrize("image_ids", ["abc", ["a", None], [1], {"a": 1}])
def test_a_list_must_be_a_list_of_texts(image_ids: Any) -> None:
    with pytest.raises(TableError, match="plan, row 1, image_ids"):
        to_table([row_of(run.PLAN) | {"image_ids": image_ids}], run.PLAN)


def test_numpy_numbers_are_numbers() -> None:
    row = row_of(run.SCORES) | {"value": np.float32(0.5), "seed": np.int64(7)}
    assert to_table([row], run.SCORES).select(["value", "seed"]).to_pylist() == [{"value": 0.5, "seed": 7}]


def test_a_column_left_out_is_refused_even_where_it_may_be_null() -> None:
    row = row_of(run.SCORES)
    del row["content_name"]
    with pytest.raises(TableError, match="missing: content_name"):
        to_table([row], run.SCORES)


def _relabelled(**metadata: str) -> bytes:
    table = to_table([row_of(run.SCORES)], run.SCORES)
    return to_parquet_bytes(table.replace_schema_metadata(metadata))


def test_a_newer_version_says_upgrade() -> None:
    with pytest.raises(TableError, match=r"schema version of scores: received 2; accepted 1; upgrade"):
        from_parquet_bytes(_relabelled(table="scores", schema_version="2"), run.SCORES)


def test_an_older_version_says_write_again() -> None:
    with pytest.raises(TableError, match="received 0; accepted 1; write it again"):
        from_parquet_bytes(_relabelled(table="scores", schema_version="x"), run.SCORES)


def test_another_table_is_refused() -> None:
    with pytest.raises(TableError, match="wrong table: received samples; accepted scores"):
        from_parquet_bytes(to_parquet_bytes(to_table([], run.SAMPLES)), run.SCORES)
    with pytest.raises(TableError, match="another program"):
        from_parquet_bytes(_relabelled(), run.SCORES)


def test_a_column_less_is_refused() -> None:
    table = to_table([row_of(run.SCORES)], run.SCORES)
    with pytest.raises(TableError, match="missing: scorer_version"):
        from_parquet_bytes(to_parquet_bytes(table.drop_columns(["scorer_version"])), run.SCORES)


@pytest.mark.parametrize("data", [b"", b"PAR1", b"not parquet at all", b"PAR1" + bytes(64) + b"PAR1"])
def test_what_is_no_parquet_is_refused(data: bytes) -> None:
    with pytest.raises(TableError, match="no Parquet file"):
        from_parquet_bytes(data, run.SCORES)


def test_a_truncated_file_is_refused() -> None:
    data = to_parquet_bytes(to_table([row_of(run.SCORES)], run.SCORES))
    with pytest.raises(TableError, match="no Parquet file"):
        from_parquet_bytes(data[:-9], run.SCORES)


READ_IN_A_PROCESS = """
import os, pathlib, sys
from manifests.parsing.fault_list import FaultList
from manifests.parsing.parquet_file import read_parquet
from manifests.tables import run
from manifests.tables.parquet import from_parquet_bytes

data = pathlib.Path(sys.argv[1]).read_bytes()
before = len(os.listdir("/proc/self/task"))
rows = from_parquet_bytes(data, run.NOTES).num_rows
kinds = dict.fromkeys(run.NOTES.names, "text") | {"row": "number"}
records = list(read_parquet(data, kinds, FaultList("t.parquet")))
print(rows, len(records), len(os.listdir("/proc/self/task")) - before)
"""


def test_reading_leaves_no_thread_behind(tmp_path: Path) -> None:
    """One that still held the bytes while Python ended aborted the command, now and then, after all was printed."""
    (tmp_path / "t.parquet").write_bytes(to_parquet_bytes(to_table([row_of(run.NOTES)] * 9, run.NOTES)))
    command = [sys.executable, "-c", READ_IN_A_PROCESS, str(tmp_path / "t.parquet")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "9 9 0\n"


def test_files_are_zstd_compressed() -> None:
    data = to_parquet_bytes(to_table([row_of(run.SCORES)], run.SCORES))
    columns = pq.read_metadata(pa.BufferReader(data)).row_group(0)
    assert {columns.column(i).compression for i in range(columns.num_columns)} == {"ZSTD"}


@pytest.fixture
def score_data_set(tmp_path: Path) -> Path:
    """Three nights of scores, laid out as in a store."""
    for day in (20, 21, 22):
        for part in ("0", "1"):
            value = day + int(part) / 10
            rows = [row_of(run.SCORES) | {"run_id": f"night-{day}", "value": value, "score": "style_clip"}]
            path = tmp_path / layout.scores_part_key(datetime.date(2026, 11, day), f"night-{day}", part)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(to_parquet_bytes(to_table(rows, run.SCORES)))
    return tmp_path / "scores"


def test_pandas_reads_the_data_set_as_it_lies(score_data_set: Path) -> None:
    frame = pd.read_parquet(score_data_set)
    assert len(frame) == 6
    assert set(run.SCORES.names) | {"date", "run"} == set(frame.columns)
    assert frame["value"].max() == 22.1
    assert frame["scored_at"].iloc[0] == pd.Timestamp(NOON)
    assert len(pd.read_parquet(score_data_set, filters=[("run", "==", "night-21")])) == 2


def test_duckdb_reads_the_data_set_as_it_lies(score_data_set: Path) -> None:
    with duckdb.connect() as connection:
        connection.execute("set TimeZone = 'UTC'")
        found = connection.execute(
            "select date, run, avg(value), min(epoch_us(scored_at)) "
            f"from read_parquet('{score_data_set}/**/*.parquet') "
            "where date >= DATE '2026-11-21' group by all order by all"
        ).fetchall()
    micros = int(NOON.timestamp()) * 1_000_000 + 123456
    assert [(str(day), run) for day, run, _, _ in found] == [("2026-11-21", "night-21"), ("2026-11-22", "night-22")]
    assert [mean for _, _, mean, _ in found] == pytest.approx([21.05, 22.05])
    assert {instant for _, _, _, instant in found} == {micros}


@pytest.mark.parametrize("name", SCHEMAS)
def test_pandas_and_duckdb_agree_on_every_table(name: str, tmp_path: Path) -> None:
    rows = [row_of(SCHEMAS[name]), row_of(SCHEMAS[name], bare=True)]
    path = tmp_path / f"{name}.parquet"
    path.write_bytes(to_parquet_bytes(to_table(rows, SCHEMAS[name])))
    frame = pd.read_parquet(path)
    assert list(frame.columns) == SCHEMAS[name].names
    nulls = ", ".join(f'count(*) - count("{column}")' for column in frame.columns)
    with duckdb.connect() as connection:
        found = connection.execute(f"select {nulls} from read_parquet('{path}')").fetchall()
    assert found == [tuple(int(count) for count in frame.isna().sum())]
