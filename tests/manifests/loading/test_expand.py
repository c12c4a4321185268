"""Mixes by weight and sweeps: what pairs they stand for, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.manifests.loading.written import SMALL, good, load, places


def pairs_of(folder: Path, *pairs: dict[str, Any], **head: Any) -> list[Any]:
    return list(good(load(folder, SMALL | {"pairs": list(pairs)} | head, "m.json")).pairs)


def mixed(parts: Any) -> list[tuple[str, float]]:
    return [(part.name, part.weight) for part in parts]


def test_weights_by_name_and_a_list_in_equal_parts(tmp_path: Path) -> None:
    one, two, alone = pairs_of(
        tmp_path,
        {"content": {"a": 0.7, "b": 0.3}, "style": "s"},
        {"content": "a", "style": ["s", "t"]},
        {"content": {"a": 1, "b": 0}, "style": "t"},
    )
    assert (one.content, one.style) == ("a 0.7 + b 0.3", "s") and mixed(one.content_mix) == [("a", 0.7), ("b", 0.3)]
    assert mixed(two.style_mix) == [("s", 0.5), ("t", 0.5)] and two.content_mix == ()
    assert (alone.content, alone.content_mix) == ("a", ()), "what weighs nothing is no part of a mix"


def test_a_sweep_over_a_mix_goes_from_the_first_to_the_second(tmp_path: Path) -> None:
    pairs = pairs_of(tmp_path, {"content": "a", "style": {"s": 1.2, "t": 0.8}, "sweep": {"mix": 3}})
    assert [mixed(pair.style_mix) for pair in pairs] == [[("s", 2.0)], [("s", 1.0), ("t", 1.0)], [("t", 2.0)]]
    pairs = pairs_of(tmp_path, {"content": "a", "style": ["s", "t"], "sweep": {"mix": 3}})
    assert [(pair.style, pair.step) for pair in pairs] == [
        ("s", "mix 0"),
        ("s 0.5 + t 0.5", "mix 0.5"),
        ("t", "mix 1"),
    ]
    assert {pair.sweep for pair in pairs} == {"a x s to t"}


def test_axes_are_drawn_each_with_each_and_the_last_runs_along_the_strip(tmp_path: Path) -> None:
    pairs = pairs_of(
        tmp_path,
        {"content": "a", "style": "s", "sweep": {"content_strength": [0.5, 1], "style_strength": [0, 0.8, 1.1]}},
    )
    assert [(pair.content_strength, pair.style_strength) for pair in pairs] == [
        (c, s) for c in (0.5, 1) for s in (0, 0.8, 1.1)
    ]
    assert [pair.sweep for pair in pairs[2:4]] == ["a x s, content_strength 0.5", "a x s, content_strength 1"]
    assert pairs[1].step == "style_strength 0.8"


def test_own_style_and_colours_can_be_swept_too(tmp_path: Path) -> None:
    colours = {"colour_of": "content", "sweep": {"own_style": [0, 0.45], "colour_amount": [0, 1]}}
    pairs = pairs_of(tmp_path, {"content": "a", "style": "s"} | colours)
    assert [(pair.own_style, pair.colour_amount, pair.step) for pair in pairs] == [
        (own, amount, f"colour_amount {amount}") for own in (0, 0.45) for amount in (0, 1)
    ]


def test_a_sweep_of_the_head_is_a_sweep_of_the_grid(tmp_path: Path) -> None:
    loaded = load(tmp_path, SMALL | {"sweep": {"style_strength": [0.5, 1]}, "prompts": ["x", "y"]}, "m.json")
    assert len(good(loaded).pairs) == 2 * 2 * 2 * 2
    assert len({(p.content, p.style, p.prompt, p.style_strength) for p in good(loaded).pairs}) == 16


@pytest.mark.parametrize(
    ("pair", "word"),
    [
        ({"content": {"a": 0.5, "x": 0.5}, "style": "s"}, "unknown content"),
        ({"content": {"a": -0.5}, "style": "s"}, "greater than or equal to 0"),
        ({"content": {"a": True}, "style": "s"}, "true or false instead of a number"),
        ({"content": {"a": 0}, "style": "s"}, "without any weight above 0"),
        ({"content": {}, "style": "s"}, "at least 1 item"),
        ({"content": ["a", "a"], "style": "s"}, "given twice"),
        ({"content": ["a"], "style": "s"}, "at least 2 items"),
        ({"content": 5, "style": "s"}, "valid string"),
        ({"content": "a", "style": "s", "sweep": {"mix": 3}}, "impossible sweep"),
        ({"content": "a", "style": "s", "sweep": {"style_strength": [1]}, "style_strength": 1}, "impossible sweep"),
        ({"content": "a", "prompt": "x", "sweep": {"style_strength": [1]}}, "impossible sweep"),
        ({"style": "s", "prompt": "x", "sweep": {"own_style": [1]}}, "impossible sweep"),
        ({"content": "a", "style": "s", "sweep": {"colour_amount": [1.1]}}, "less than or equal to 1"),
        ({"content": "a", "style": "s", "sweep": {}}, "sweep over nothing"),
        ({"content": "a", "style": "s", "sweep": {"style": [1]}}, "unknown key 'style'"),
        ({"content": "a", "style": "s", "sweep": {"style_strength": [1, 11]}}, "less than or equal to 10"),
        ({"content": "a", "style": "s", "sweep": {"style_strength": [1, 1]}}, "drawn twice"),
        (
            {
                "content": "a",
                "style": ["s", "t"],
                "sweep": {"mix": 11, "content_strength": [i / 99 for i in range(99)]},
            },
            "a sweep of more than 1000 pairs",
        ),
    ],
)
def test_what_is_no_mix_or_no_sweep(tmp_path: Path, pair: dict[str, Any], word: str) -> None:
    loaded = load(tmp_path, SMALL | {"pairs": [pair, {"content": "b", "style": "t"}]}, "m.json")
    assert loaded.manifest is not None and ("b", "t") in [(p.content, p.style) for p in loaded.manifest.pairs]
    assert word in " ".join(f"{fault.what} {fault.received}" for fault in loaded.faults)
    assert {fault.row for fault in loaded.faults} <= {1, None}


def test_a_name_given_twice_in_weights_is_a_fault(tmp_path: Path) -> None:
    text = "contents: [a.png, b.png]\nstyles: [s.png]\npairs:\n- {content: {a: 1, a: 2}, style: s}\n"
    text += "- {content: b, style: s, sweep: {mix: 2, mix: 3}}\n- {content: a, style: s}\n"
    loaded = load(tmp_path, text)
    assert [(fault.row, fault.what) for fault in loaded.faults] == [(4, "key given twice"), (5, "key given twice")]


def test_a_table_says_that_it_cannot_mix(tmp_path: Path) -> None:
    loaded = load(tmp_path, 'content,style\n"{""a.png"": 0.5, ""b.png"": 0.5}",s.png\nb.png,s.png\n', "m.csv")
    assert places(loaded)[0][0] == 2 and "YAML and JSON only" in loaded.faults[0].what
