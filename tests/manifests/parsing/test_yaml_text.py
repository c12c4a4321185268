"""YAML: scalars, tags, aliases and merges, from strangers."""

from __future__ import annotations

import math

import pytest

from manifests.parsing import yaml_text
from manifests.parsing.yaml_text import parse_yaml
from tests.manifests.parsing.reads import parsed, refused


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
