"""Every row of the table in `manifests.parsing`: hostile and broken bytes, and where the faults point."""

from __future__ import annotations

import gzip
import io
import math
import struct
from collections.abc import Callable
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.faults import Fault
from manifests.parsing import fault_list, json_text, nodes, records, yaml_text
from manifests.parsing.fault_list import DocumentRefused, FaultList
from manifests.parsing.json_text import parse_json
from manifests.parsing.nodes import Node, decode_text, from_mapping
from manifests.parsing.records import Record, read_csv, read_parquet
from manifests.parsing.yaml_text import parse_yaml

Parser = Callable[[str, FaultList], Node]
COLUMNS = {"content": "text", "style": "text", "content_strength": "number", "seeds": "integers"}


def refused(read: Callable[[FaultList], Any]) -> Fault:
    """The one fault with which a document is refused."""
    faults = FaultList("m")
    with pytest.raises(DocumentRefused):
        read(faults)
    (fault,) = faults.all()
    assert fault.kind == "manifest" and fault.received and fault.accepted and fault.hint
    return fault


def parsed(parse: Parser, text: str) -> Node:
    faults = FaultList("m")
    node = parse(text, faults)
    assert faults.all() == ()
    return node


def csv(data: bytes) -> tuple[list[Record], tuple[Fault, ...]]:
    faults = FaultList("m.csv")
    return list(read_csv(data, COLUMNS, faults)), faults.all()


def parquet(data: bytes) -> list[Record]:
    faults = FaultList("m.parquet")
    rows = list(read_parquet(data, COLUMNS, faults))
    assert faults.all() == ()
    return rows


def parquet_bytes(table: pa.Table | dict[str, Any], **options: Any) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table(table) if isinstance(table, dict) else table, out, **options)
    return out.getvalue()


# Text


def test_a_byte_order_mark_is_no_text() -> None:
    assert decode_text("\ufeffä: 1".encode(), FaultList("m")) == "ä: 1"


def test_latin_1_is_refused_with_its_line_and_letter() -> None:
    fault = refused(lambda faults: decode_text("a: 1\nname: café\n".encode("latin-1"), faults))
    assert (fault.row, fault.what) == (2, "not UTF-8")
    assert "0xe9" in fault.received and "é" in fault.received


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf_16_is_refused_by_name(encoding: str) -> None:
    data = ("" if encoding == "utf-16" else "\ufeff").encode(encoding) + "name: a".encode(encoding)
    assert refused(lambda faults: decode_text(data, faults)).received == "UTF-16 text"


@pytest.mark.parametrize("data", [b"", b"\n \t\r\n", b"\xef\xbb\xbf"])
def test_nothing_is_refused(data: bytes) -> None:
    assert refused(lambda faults: decode_text(data, faults)).what == "empty manifest"


# YAML and JSON alike


@pytest.mark.parametrize("parse", [parse_yaml, parse_json])
def test_lines_of_keys_and_items(parse: Parser) -> None:
    text = '{"pairs":\n [\n  {"content": "a",\n   "seeds": [1,\n    2]},\n\n  "b"]\n}'
    root = parsed(parse, text)
    assert root.plain() == {"pairs": [{"content": "a", "seeds": [1, 2]}, "b"]}
    lines = {(): 1, ("pairs",): 1, ("pairs", 0): 3, ("pairs", 0, "seeds"): 4, ("pairs", 0, "seeds", 1): 5}
    assert {path: root.find(path).row for path in lines} == lines
    assert root.find(("pairs", 1)).row == 7
    assert root.find(("pairs", 0, "nothing", 3)).row == 3, "what does not exist is looked for where it should be"


@pytest.mark.parametrize("parse", [parse_yaml, parse_json])
def test_repeated_keys_are_kept_with_their_lines(parse: Parser) -> None:
    root = parsed(parse, '{"a": 1,\n"b": {"c": 1,\n"c": 2},\n"a": 3}')
    assert root.plain() == {"a": 1, "b": {"c": 1}}
    assert (root.repeated, root.find(("b",)).repeated) == ((("a", 4),), (("c", 3),))


@pytest.mark.parametrize("parse", [parse_yaml, parse_json])
@pytest.mark.parametrize("text", ["[" * 3_000_000, "[" * 50 + "]" * 50, '{"a":' * 30 + "1" + "}" * 30])
def test_deep_nesting_is_refused(parse: Parser, text: str) -> None:
    assert "nested too deeply" in refused(lambda faults: parse(text, faults)).what


@pytest.mark.parametrize("parse", [parse_yaml, parse_json])
def test_too_many_values_are_refused(parse: Parser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml_text, "MAX_VALUES", 11)
    monkeypatch.setattr(json_text, "MAX_VALUES", 11)
    assert len(parsed(parse, f"[{', '.join(['0'] * 10)}]").plain()) == 10
    assert "too" in refused(lambda faults: parse(f"[{', '.join(['0'] * 11)}]", faults)).what


@pytest.mark.parametrize("parse", [parse_yaml, parse_json])
def test_numbers_of_thousands_of_digits_stay_text(parse: Parser) -> None:
    assert parsed(parse, f"[{'9' * 5000}]").plain() == ["9" * 5000]
    assert parsed(parse, "[-12, 1e-1, 2.5]").plain() == [-12, 0.1, 2.5]


@pytest.mark.parametrize(
    ("parse", "text", "row"),
    [
        (parse_yaml, "a: 1\nb: [1,\nc: }", 3),
        (parse_yaml, "a: 1\n\tb: 2", 2),
        (parse_yaml, "a: 1\nb: \x07", 2),
        (parse_yaml, "a: 1\nb: 'open", 2),
        (parse_yaml, "a: *nothing", 1),
        (parse_yaml, "a: 1\n? [b]\n: 2", 2),
        (parse_yaml, "a: 1\n---\nb: 2", 2),
        (parse_yaml, "a: 1\n<<: 5", 2),
        (parse_json, '{"a": 1,\n"b": }', 2),
        (parse_json, '{"a": 1,\n}', 2),
        (parse_json, '{"a": 1\n"b": 2}', 2),
        (parse_json, '{"a"\n1}', 2),
        (parse_json, '{"a": [1\n}', 2),
        (parse_json, '{"a": "\n"}', 1),
        (parse_json, '{"a": 1}\nmore', 2),
        (parse_json, "{'a': 1}", 1),
        (parse_json, '{"a": 1', 1),
        (parse_json, "\n\n", 3),
        (parse_json, '["\\uZZZZ"]', 1),
    ],
)
def test_what_is_not_well_formed_is_refused_with_its_line(parse: Parser, text: str, row: int) -> None:
    assert refused(lambda faults: parse(text, faults)).row == row


# YAML


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("12:30:00", "12:30:00"),
        ("2024-01-01", "2024-01-01"),
        ("010", 10),
        ("0x1f", "0x1f"),
        ("1_000", "1_000"),
        ("1e-1", 0.1),
        (".5", 0.5),
        ("-.inf", -math.inf),
        ("true", True),
        ("False", False),
        ("~", None),
        ("", None),
        ("'1'", "1"),
        ('"true"', "true"),
        ("!!str 1", "1"),
        ("! 1", "1"),
        ("!!int 1", 1),
    ],
)
def test_yaml_scalars_are_those_of_yaml_1_2(text: str, value: object) -> None:
    result = parsed(parse_yaml, f"a: {text}").plain()["a"]
    assert result == value and type(result) is type(value)
    assert math.isnan(parsed(parse_yaml, "a: .NaN").plain()["a"])


@pytest.mark.parametrize(
    "text",
    ["!!python/object/apply:os.system ['true']", "!!python/name:os.system", "!include /etc/passwd", "!!binary AA=="],
)
def test_yaml_tags_construct_nothing(text: str) -> None:
    fault = refused(lambda faults: parse_yaml(f"a: 1\nb: {text}", faults))
    assert (fault.what, fault.row) == ("YAML tag not accepted", 2)


def test_yaml_aliases_and_merge_keys_are_followed() -> None:
    text = """
    defaults: &d {seeds: [0], style: wave}
    more: &m {style: dots, prompt: p}
    pairs:
    - {<<: *d, content: a}
    - <<: [*d, *m]
      style: own
    - *d
    - {"<<": 1}
    """
    root = parsed(parse_yaml, text)
    assert root.plain()["pairs"] == [
        {"content": "a", "seeds": [0], "style": "wave"},
        {"style": "own", "seeds": [0], "prompt": "p"},
        {"seeds": [0], "style": "wave"},
        {"<<": 1},
    ]
    assert [item.row for item in root.find(("pairs",)).value] == [5, 6, 8, 9]  # type: ignore[union-attr]


def test_yaml_aliases_that_explode_are_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    fault = refused(lambda faults: parse_yaml("\n".join(lines), faults))
    assert fault.what == "YAML aliases explode" and fault.row in (6, 7)


def test_yaml_merges_that_explode_are_refused() -> None:
    wide = "w: &w {" + ", ".join(f"k{i}: 1" for i in range(1000)) + "}\n"
    fault = refused(lambda faults: parse_yaml(wide + "".join(f"m{i}: {{<<: *w}}\n" for i in range(2000)), faults))
    assert fault.what == "YAML aliases explode"


@pytest.mark.parametrize("text", ["a: &a [*a]", "a: &a {b: *a}", "&a [*a]"])
def test_yaml_aliases_inside_themselves_are_refused(text: str) -> None:
    assert refused(lambda faults: parse_yaml(text, faults)).what == "YAML alias of nothing before it"


def test_yaml_of_comments_alone_is_empty() -> None:
    assert refused(lambda faults: parse_yaml("# nothing\n", faults)).what == "empty manifest"


def test_the_parser_without_libyaml_says_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    import yaml

    text = "a: &a [1, no, '2', .nan]\nb: {<<: {c: 1}, d: *a}\n"
    expected = parsed(parse_yaml, text)
    monkeypatch.setattr(yaml_text, "_LOADER", yaml.SafeLoader)
    assert repr(parsed(parse_yaml, text)) == repr(expected)


# JSON


def test_json_knows_not_a_number_for_the_fields_to_refuse() -> None:
    values = parsed(parse_json, "[NaN, Infinity, -Infinity, 1e999]").plain()
    assert math.isnan(values[0]) and values[1:] == [math.inf, -math.inf, math.inf]


def test_json_texts_with_escapes() -> None:
    assert parsed(parse_json, '["\\ud83c\\udf36", "\\/", "\\n", "ä"]').plain() == ["🌶", "/", "\n", "ä"]


# Inline mappings


def test_inline_mappings_have_no_lines() -> None:
    node = from_mapping({"a": [1, {"b": None}], "c": (True, 0.5)}, FaultList("form"))
    assert node.plain() == {"a": [1, {"b": None}], "c": [True, 0.5]}
    assert node.find(("a", 1, "b")).row is None


def test_inline_values_of_other_kinds_are_refused() -> None:
    deep: list[Any] = []
    deep.append(deep)
    for value in ({"a": b"bytes"}, {"a": object()}, {1: "a"}, {"a": 10**5000}, {"a": deep}):
        refused(lambda faults, value=value: from_mapping(value, faults))


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
    assert [(fault.row, fault.received) for fault in faults] == [(3, "1 cells"), (4, "3 cells")]


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
    monkeypatch.setattr(records, "MAX_ROWS", 2)
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
            "seeds": pa.array([0.5]),
        }
    )
    faults = FaultList("m.parquet")
    with pytest.raises(DocumentRefused):
        list(read_parquet(parquet_bytes(table), COLUMNS, faults))
    assert [(fault.field, fault.received) for fault in faults.all()] == [
        ("content", "int64"),
        ("style", "list<element: string>"),
        ("content_strength", "string"),
        ("seeds", "double"),
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
    monkeypatch.setattr(records, "MAX_UNPACKED_BYTES", 10)
    small = parquet_bytes({"content": ["a", "b"]})
    assert refused(lambda faults: list(read_parquet(small, COLUMNS, faults))).what == "Parquet unpacks to too much"


@pytest.mark.parametrize("before", [0, 3])
def test_one_row_of_millions_of_values_is_refused_from_the_footer(before: int) -> None:
    seeds = [[number] for number in range(before)] + [[0] * 2_000_000]
    data = parquet_bytes({"seeds": seeds}, row_group_size=max(before, 1))
    assert len(data) < 10_000
    assert refused(lambda faults: list(read_parquet(data, COLUMNS, faults))).what == "Parquet unpacks to too much"


def test_other_files_are_no_parquet() -> None:
    for data in (b"", b"PAR1", gzip.compress(b"x"), b"content,style\na,b\n"):
        refused(lambda faults, data=data: list(read_parquet(data, COLUMNS, faults)))


# The list of faults


def test_faults_are_bounded_in_number_and_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fault_list, "MAX_FAULTS", 3)
    faults = FaultList("m\x1b[2J")
    for row in (5, None, 4, 1, 2):
        faults.add("x" * 10_000, "\x1b[31m", "", "", row=row)
    assert [fault.row for fault in faults.all()] == [None, 4, 5, None] and len(faults) == 5
    assert "2 more faults" in str(faults.all()[-1])
    assert all("\x1b" not in str(fault) and len(str(fault)) < 700 for fault in faults.all())


def test_depth_is_the_same_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    nested: Any = 1
    for _ in range(nodes.MAX_DEPTH):
        nested = [nested]
    assert from_mapping(nested, FaultList("m")).plain() == nested
    assert parsed(parse_yaml, str(nested)).plain() == parsed(parse_json, str(nested)).plain() == nested
    for read in (parse_yaml, parse_json):
        refused(lambda faults, read=read: read(str([nested]), faults))
    refused(lambda faults: from_mapping([nested], faults))
