"""CSV and Parquet: rows that cannot be read are faults of their own, and little unpacks to little."""

from __future__ import annotations

import gzip
import io
import struct
from decimal import Decimal

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.parsing import csv_text, parquet_file
from manifests.parsing.csv_text import read_csv
from manifests.parsing.fault_list import DocumentRefused, FaultList
from manifests.parsing.parquet_file import read_parquet
from tests.manifests.parsing.reads import COLUMNS, csv, parquet, parquet_bytes, refused

# CSV


def test_csv_rows_have_the_lines_where_they_start() -> None:
    rows, faults = csv(b'content,style\na.png,b.png\n\n , \n"c\nd",e\r\nf,g')
    assert faults == ()
    assert [(row.row, dict(row.cells)) for row in rows] == [
        (2, {"content": "a.png", "style": "b.png"}),
        (5, {"content": "c\nd", "style": "e"}),
        (7, {"content": "f", "style": "g"}),
    ]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_csv_separators_and_byte_order_mark(separator: str) -> None:
    rows, _ = csv("\ufeff content,style,seeds,,\nä.png,,0|1,,\n".replace(",", separator).encode())
    assert [dict(row.cells) for row in rows] == [{"content": "ä.png", "seeds": "0|1"}]


def test_csv_rows_of_another_length_are_faults_of_their_own() -> None:
    rows, faults = csv(b"content,style\na,b\nc\nd,e,f\ng,h,,\ni,j\n")
    assert [row.cells["content"] for row in rows] == ["a", "g", "i"]
    assert [(fault.row, fault.received) for fault in faults] == [(3, "1 cell"), (4, "3 cells")]


def test_csv_rows_in_latin_1_are_faults_of_their_own() -> None:
    rows, faults = csv(b"content,style\na,b\n" + "café,b\n".encode("latin-1") + "é,b\n".encode())
    assert [row.cells["content"] for row in rows] == ["a", "é"]
    assert [(fault.row, fault.what) for fault in faults] == [(3, "not UTF-8")] and "café" in faults[0].received


def test_a_csv_header_in_latin_1_is_refused() -> None:
    assert refused(lambda faults: list(read_csv(b"content,st\xffle\na,b\n", COLUMNS, faults))).row == 1


def test_csv_quotes_out_of_place_cost_their_row_alone() -> None:
    rows, faults = csv(b'content,style\na,b\n"c"d,e\nf,g\n"h ""i""",j\n')
    assert [row.cells["content"] for row in rows] == ["a", "f", 'h "i"']
    assert [fault.row for fault in faults] == [3]


def test_a_csv_quote_that_never_closes_is_found_where_it_opens() -> None:
    rows, faults = csv(b'content,style\na,b\nc,"d\ne,f\ng,h\n')
    assert [row.row for row in rows] == [2] and [fault.row for fault in faults] == [3]


def test_csv_cells_beyond_the_readers_limit_are_faults() -> None:
    rows, faults = csv(b"content,style\n" + b"x" * 200_000 + b",b\nc,d\n")
    assert [row.row for row in rows] == [3] and [fault.row for fault in faults] == [2]


def test_csv_columns_unknown_or_given_twice_are_refused_all_at_once() -> None:
    faults = FaultList("m.csv")
    with pytest.raises(DocumentRefused):
        list(read_csv(b"contnet,style,style,notes,\na,b,c,d,\n", COLUMNS, faults))
    assert [(fault.field, fault.row) for fault in faults.all()] == [("contnet", 1), ("style", 1), ("notes", 1)]
    assert "did you mean content?" in faults.all()[0].hint


def test_a_csv_header_alone_has_no_rows() -> None:
    assert csv(b"content,style\n") == ([], ())


def test_too_many_csv_rows_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_text, "MAX_ROWS", 2)
    assert len(csv(b"content\na\nb\n")[0]) == 2
    assert refused(lambda faults: list(read_csv(b"content\na\nb\nc\n", COLUMNS, faults))).what == "too many rows"


# Parquet


def test_parquet_records_count_from_one_and_nulls_are_left_out() -> None:
    frame = pd.DataFrame(
        {"content": ["a", None, " "], "content_strength": [0.5, None, 2], "seeds": [[1, 2], None, []], "style": None}
    )
    rows = parquet(parquet_bytes(pa.Table.from_pandas(frame)))
    assert [(row.row, dict(row.cells)) for row in rows] == [
        (1, {"content": "a", "content_strength": 0.5, "seeds": [1, 2]}),
        (2, {}),
        (3, {"content_strength": 2.0, "seeds": []}),
    ]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())])
def test_parquet_texts_of_all_kinds(kind: pa.DataType) -> None:
    table = pa.table({"content": pa.array(["a", None, "ä"], kind), "seeds": pa.array(["0|1", None, "2"], kind)})
    assert [dict(row.cells) for row in parquet(parquet_bytes(table))] == [
        {"content": "a", "seeds": "0|1"},
        {},
        {"content": "ä", "seeds": "2"},
    ]


def test_parquet_texts_that_many_rows_share_are_kept_once() -> None:
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 5000), pa.array(["x" * 100_000]))
    data = parquet_bytes({"content": column}, store_schema=False)
    assert len(data) < 200_000 and pq.read_schema(io.BytesIO(data)).field("content").type == pa.string()
    rows = parquet(data)
    assert len({id(row.cells["content"]) for row in rows}) == 1


def test_parquet_columns_of_wrong_types_are_refused_all_at_once() -> None:
    table = pa.table(
        {
            "content": pa.array([1]),
            "style": pa.array([["a"]]),
            "content_strength": pa.array(["1"]),
            "seeds": pa.array([True]),
        }
    )
    faults = FaultList("m.parquet")
    with pytest.raises(DocumentRefused):
        list(read_parquet(parquet_bytes(table), COLUMNS, faults))
    assert [(fault.field, fault.received) for fault in faults.all()] == [
        ("content", "int64"),
        ("style", "list<item: string>"),
        ("content_strength", "string"),
        ("seeds", "bool"),
    ]


def test_parquet_columns_that_are_unknown_are_refused() -> None:
    data = parquet_bytes({"content": ["a"], "styel": ["b"]})
    fault = refused(lambda faults: list(read_parquet(data, COLUMNS, faults)))
    assert (fault.field, fault.hint) == ("styel", "did you mean style?")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_truncated_parquet_is_refused(share: float) -> None:
    data = parquet_bytes({"content": [f"{index}" for index in range(1000)]})
    fault = refused(lambda faults: list(read_parquet(data[: int(len(data) * share)], COLUMNS, faults)))
    assert fault.what == "not readable as Parquet"


def test_damaged_parquet_pages_and_invalid_texts_are_refused() -> None:
    data = bytearray(parquet_bytes({"content": ["a"] * 100}, compression="zstd"))
    data[10:60] = b"\xff" * 50
    invalid = pa.table({"content": pa.Array.from_buffers(pa.string(), 1, [None, _ints(0, 1), pa.py_buffer(b"\xff")])})
    for broken in (bytes(data), parquet_bytes(invalid)):
        assert (
            refused(lambda faults, b=broken: list(read_parquet(b, COLUMNS, faults))).what == "not readable as Parquet"
        )


def _ints(*values: int) -> pa.Buffer:
    return pa.py_buffer(struct.pack(f"<{len(values)}i", *values))


def test_parquet_beyond_the_limits_is_refused_from_its_footer(monkeypatch: pytest.MonkeyPatch) -> None:
    many = parquet_bytes({"content": pa.nulls(300_000, pa.string())})
    assert len(many) < 10_000
    assert refused(lambda faults: list(read_parquet(many, COLUMNS, faults))).what == "too many rows"
    lists = parquet_bytes({"seeds": [[0] * 1000] * 12_000})
    assert refused(lambda faults: list(read_parquet(lists, COLUMNS, faults))).what == "Parquet unpacks to too much"
    longest = parquet_bytes({"seeds": [list(range(1000))]})
    assert len(list(read_parquet(longest, COLUMNS, FaultList("m")))) == 1, "as many as one pair may have"
    monkeypatch.setattr(parquet_file, "MAX_UNPACKED_BYTES", 10)
    small = parquet_bytes({"content": ["a", "b"]})
    assert refused(lambda faults: list(read_parquet(small, COLUMNS, faults))).what == "Parquet unpacks to too much"


LONG = "x" * 3_000_000


@pytest.mark.parametrize(
    "column",
    [
        pa.array([LONG]),
        pa.DictionaryArray.from_arrays(pa.array([0] * 5000), pa.array([LONG])),
        pa.ListArray.from_arrays(range(5001), pa.DictionaryArray.from_arrays(pa.array([0] * 5000), pa.array([LONG]))),
    ],
    ids=["one", "shared by rows", "shared by lists"],
)
@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_cells_of_megabytes_are_refused_by_their_page(column: pa.Array, version: str) -> None:
    name = "prompts" if pa.types.is_list(column.type) else "content"
    options = {"store_schema": False, "compression": "zstd", "data_page_version": version}
    data = parquet_bytes({name: column}, **options)
    columns = COLUMNS | {"prompts": "texts"}
    assert len(data) < 30_000
    assert refused(lambda faults: list(read_parquet(data, columns, faults))).what == "cells too long"


def test_a_long_cell_among_short_ones_is_a_fault_of_its_row() -> None:
    faults = FaultList("m")
    texts = ["a"] * 50 + ["x" * 200_000, "b"]
    rows = list(read_parquet(parquet_bytes({"content": texts}), COLUMNS, faults))
    assert [fault.row for fault in faults.all()] == [51] and len(rows) == 51


def test_a_footer_that_lies_about_sizes_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_file, "MAX_UNPACKED_BYTES", 100_000)
    column = {"content": [f"{number:0100}" for number in range(2000)]}
    data = parquet_bytes(column, compression="zstd", use_dictionary=False)
    size = pq.read_metadata(io.BytesIO(data)).row_group(0).column(0).total_uncompressed_size
    lying = data.replace(_varint(size), b"\x82\x80\x00")  # one, in as many bytes
    assert pq.read_metadata(io.BytesIO(lying)).row_group(0).column(0).total_uncompressed_size == 1
    assert refused(lambda faults: list(read_parquet(lying, COLUMNS, faults))).what == "Parquet unpacks to too much"


def _varint(number: int) -> bytes:
    number *= 2
    return bytes([number & 127 | 128, number >> 7 & 127 | 128, number >> 14])


def test_numbers_and_lists_as_pandas_and_duckdb_write_them() -> None:
    table = pa.table(
        {
            "content": pa.array(["a", "b"]),
            "content_strength": pa.array([Decimal("0.50"), None], pa.decimal128(4, 2)),
            "seeds": pa.array([[1.0, 2.0], None], pa.list_(pa.float64())),
            "__index_level_0__": pa.array([0, 1]),
        }
    )
    assert [dict(row.cells) for row in parquet(parquet_bytes(table))] == [
        {"content": "a", "content_strength": 0.5, "seeds": [1, 2]},
        {"content": "b"},
    ]
    doubles = parquet(parquet_bytes({"seeds": pa.array([256.0, None])}))
    assert [dict(row.cells) for row in doubles] == [{"seeds": 256}, {}]


@pytest.mark.parametrize("before", [0, 3])
def test_one_row_of_millions_of_values_is_refused_from_the_footer(before: int) -> None:
    seeds = [[number] for number in range(before)] + [[0] * 2_000_000]
    data = parquet_bytes({"seeds": seeds}, row_group_size=max(before, 1))
    assert len(data) < 10_000
    assert refused(lambda faults: list(read_parquet(data, COLUMNS, faults))).what == "Parquet unpacks to too much"


def test_other_files_are_no_parquet() -> None:
    for data in (b"", b"PAR1", gzip.compress(b"x"), b"content,style\na,b\n"):
        refused(lambda faults, data=data: list(read_parquet(data, COLUMNS, faults)))
