"""Text, trees and inline mappings: what holds for all kinds of text, and where the faults point."""

from __future__ import annotations

from typing import Any

import pytest

from manifests.parsing import json_text, nodes, yaml_text
from manifests.parsing.fault_list import FaultList
from manifests.parsing.json_text import parse_json
from manifests.parsing.nodes import decode_text, from_mapping
from manifests.parsing.yaml_text import parse_yaml
from tests.manifests.parsing.reads import Parser, parsed, refused

BOM = "\ufeff"

# Text


def test_a_byte_order_mark_is_no_text() -> None:
    assert decode_text("\ufeffä: 1".encode(), FaultList("m")) == "ä: 1"


def test_latin_1_is_refused_with_its_line_and_letter() -> None:
    fault = refused(lambda faults: decode_text("a: 1\nname: café\n".encode("latin-1"), faults))
    assert (fault.row, fault.what) == (2, "not UTF-8")
    assert "0xe9" in fault.received and "é" in fault.received


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf_16_is_read_by_its_mark(encoding: str) -> None:
    data = f"{'' if encoding == 'utf-16' else BOM}name: é🎨".encode(encoding)
    assert decode_text(data, FaultList("m")) == "name: é🎨"
    assert "UTF-16" in refused(lambda faults: decode_text(data[:-1], faults)).received


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32"])
def test_wide_text_without_such_a_mark_is_refused_by_name(encoding: str) -> None:
    assert "zero bytes" in refused(lambda faults: decode_text("name: a".encode(encoding), faults)).received


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


def test_depth_is_the_same_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    nested: Any = 1
    for _ in range(nodes.MAX_DEPTH):
        nested = [nested]
    assert from_mapping(nested, FaultList("m")).plain() == nested
    assert parsed(parse_yaml, str(nested)).plain() == parsed(parse_json, str(nested)).plain() == nested
    for read in (parse_yaml, parse_json):
        refused(lambda faults, read=read: read(str([nested]), faults))
    refused(lambda faults: from_mapping([nested], faults))


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
