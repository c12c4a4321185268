"""Pairs with one side: the prompt stands for the other, in every format, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.manifests.loading.written import SMALL, good, load, parquet, places

Told = list[tuple[str | None, str | None, str | None]]


def told(loaded: Any) -> Told:
    assert loaded.manifest is not None
    return [(pair.content, pair.style, pair.prompt) for pair in loaded.manifest.pairs]


WANTED: Told = [
    ("a", None, "A [c] of gold"),
    ("a", None, "A [c] of ice"),
    (None, "s", "A horse in [s] style"),
    ("b", "t", None),
]


def test_documents_and_tables_say_the_same(tmp_path: Path) -> None:
    pairs = [
        {"content": "a", "prompts": ["A [c] of gold", "A [c] of ice"]},
        {"style": "s", "prompt": "A horse in [s] style", "style_strength": 1.1},
        {"content": "b", "style": "t"},
    ]
    text = (
        "content,style,prompt,prompts,style_strength\n"
        "a.png,,,A [c] of gold | A [c] of ice,\n,s.png,A horse in [s] style,,1.1\nb.png,t.png,,,\n"
    )
    columns = {
        "content": ["a.png", None, "b.png"],
        "style": [None, "s.png", "t.png"],
        "prompts": ["A [c] of gold|A [c] of ice", "A horse in [s] style", None],
        "style_strength": [None, 1.1, None],
    }
    for loaded in (
        load(tmp_path, SMALL | {"pairs": pairs}, "m.json"),
        load(tmp_path, text, "m.csv"),
        load(tmp_path, parquet(columns), "m.parquet"),
    ):
        assert told(loaded) == WANTED and loaded.faults == ()
        assert [pair.style_strength for pair in good(loaded).pairs] == [None, None, 1.1, None]


@pytest.mark.parametrize(("side", "name"), [("contents", "a"), ("styles", "a")])
def test_one_list_and_prompts_are_a_grid(tmp_path: Path, side: str, name: str) -> None:
    loaded = load(tmp_path, {side: ["a.png", "b.png"], "prompts": ["ice", "gold"]}, "m.json")
    pairs = [(pair.content if side == "contents" else pair.style, pair.prompt) for pair in good(loaded).pairs]
    assert sorted(map(str, pairs)) == sorted(str((n, p)) for n in (name, "b") for p in ("ice", "gold"))


def test_prompts_of_all_pairs_give_way_to_a_pairs_own(tmp_path: Path) -> None:
    pairs = [{"content": "a", "style": "s"}, {"content": "a", "style": "t", "prompt": "own"}]
    loaded = load(tmp_path, SMALL | {"pairs": pairs, "prompts": ["one", "two"]}, "m.json")
    assert told(loaded) == [("a", "s", "one"), ("a", "s", "two"), ("a", "t", "own")]


@pytest.mark.parametrize(
    ("pair", "field", "word"),
    [
        ({"content": "a"}, "pairs.prompt", "without a style"),
        ({"content": "a", "prompt": ""}, "pairs.prompt", "without a style"),
        ({"style": "s", "prompt": "A [c] in [s] style"}, "pairs.prompt", "without a content"),
        ({"content": "a", "prompt": "x", "style_strength": 1}, "pairs", "style_strength without style"),
        ({"style": "s", "prompt": "x", "content_strength": 1}, "pairs", "content_strength without content"),
        ({"style": "s", "prompt": "x", "content_prompt": "y"}, "pairs", "content_prompt without content"),
        ({"prompt": "x"}, "pairs", "needs a content, a style or both"),
        ({"content": "a", "prompt": "x", "prompts": ["y"]}, "pairs", "keep one of them"),
        ({"content": "a", "prompts": ["y", "y"]}, "pairs.prompts", "given twice"),
        ({"content": "a", "prompts": []}, "pairs.prompts", ""),
    ],
)
def test_half_pairs_that_say_too_little_or_too_much(
    tmp_path: Path, pair: dict[str, Any], field: str, word: str
) -> None:
    loaded = load(tmp_path, SMALL | {"pairs": [pair, {"content": "b", "style": "t"}]}, "m.json")
    assert places(loaded) == [(1, field)] or places(loaded) == [(1, "pairs")]
    assert word in loaded.faults[0].what
    assert told(loaded) == [("b", "t", None)]


def test_a_forgotten_list_is_still_a_fault(tmp_path: Path) -> None:
    for more in ({}, {"prompt": "A [c] in [s] style"}):
        loaded = load(tmp_path, {"contents": ["a.png"], **more}, "m.json")
        assert loaded.manifest is None and [fault.what for fault in loaded.faults] == ["no styles"]


def test_a_row_with_a_faulty_prompt_draws_none_of_its_prompts(tmp_path: Path) -> None:
    refused = {"content": "a", "prompts": ["ice", "ice in [s] style"]}
    again = {"content": "a", "prompt": "ice"}
    loaded = load(tmp_path, SMALL | {"pairs": [refused, again]}, "m.json")
    assert [fault.what for fault in loaded.faults] == ["pair without a style"]
    assert told(loaded) == [("a", None, "ice")], "what a refused row would have drawn is free for another row"


def test_a_row_that_repeats_a_sample_draws_none_of_its_prompts(tmp_path: Path) -> None:
    first = {"content": "a", "style": "s", "prompt": "ice", "seeds": [0, 1]}
    refused = {"content": "a", "style": "s", "prompts": ["fire", "ice"], "seeds": [1, 2]}
    later = {"content": "a", "style": "s", "prompts": ["fire"], "seeds": [1, 2]}
    loaded = load(tmp_path, SMALL | {"pairs": [first, refused, later]}, "m.json")
    assert [fault.what for fault in loaded.faults] == ["sample drawn twice"]
    assert told(loaded) == [("a", "s", "ice"), ("a", "s", "fire")]


def test_a_refused_row_of_a_table_says_nothing_of_its_pictures(tmp_path: Path) -> None:
    text = "content,style,prompt,content_word\na.png,,ice,\na.png,,ice,dog\nb.png,,ice in [s] style,\n"
    loaded = load(tmp_path, text, "m.csv")
    assert [fault.what for fault in loaded.faults] == ["sample drawn twice", "pair without a style"]
    assert loaded.manifest is not None
    assert [(entry.name, entry.word) for entry in loaded.manifest.contents] == [("a", None)]


def test_the_same_words_twice_are_one_sample_too_many(tmp_path: Path) -> None:
    text = "content,style,prompt\na.png,,ice\na.png,,ice\n,a.png,ice\n"
    loaded = load(tmp_path, text, "m.csv")
    assert [(fault.row, fault.what) for fault in loaded.faults] == [(3, "sample drawn twice")]
    assert told(loaded) == [("a", None, "ice"), (None, "a", "ice")]


@pytest.mark.parametrize(
    ("pair", "field", "word"),
    [
        ({"content": "a", "prompt": "x", "colour_of": "style"}, "pairs.colour_of", "colours of nothing"),
        ({"style": "s", "prompt": "x", "colour_by": "guidance"}, "pairs.colour_of", "colours of nothing"),
        ({"style": "s", "prompt": "x", "own_style": 0.4}, "pairs", "own_style without content"),
        ({"content": "a", "style": "s", "colour_of": "blue"}, "pairs.colour_of", "'content' or 'style'"),
        ({"content": "a", "style": "s", "colour_amount": 1.5}, "pairs.colour_amount", "less than or equal to 1"),
    ],
)
def test_colours_that_cannot_be_had(tmp_path: Path, pair: dict[str, Any], field: str, word: str) -> None:
    loaded = load(tmp_path, SMALL | {"pairs": [pair, {"content": "b", "style": "t"}]}, "m.json")
    assert places(loaded) == [(1, field)] and word in loaded.faults[0].what
    assert told(loaded) == [("b", "t", None)]


def test_a_table_says_colours_in_columns(tmp_path: Path) -> None:
    text = "content,style,own_style,colour_of,colour_by,colour_amount\na.png,s.png,0.45,content,subject,0.8\n"
    (pair,) = good(load(tmp_path, text, "m.csv")).pairs
    assert (pair.own_style, pair.colour_of, pair.colour_by, pair.colour_amount) == (0.45, "content", "subject", 0.8)
