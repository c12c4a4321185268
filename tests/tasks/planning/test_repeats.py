"""No two pictures that are asked for become one without a word: what validate, a plan and its tables count."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from blora.settings.resolve import resolve
from manifests.loading.load import load_manifest, parse_manifest
from manifests.notes import told
from manifests.store.store import Store
from tasks.planning.make import PlanDraft, make_plan
from tests.made_run import png

LONG = "A [c] in [s] style " + "red " * 80


def plan(folder: Path, **said: Any) -> PlanDraft:
    """The plan of the contents a, b and its double c, and the styles s and t; `said` comes on top."""
    for number, name in enumerate(("a", "b", "s", "t")):
        (folder / f"{name}.png").write_bytes(png(number))
    (folder / "c.png").write_bytes(png(1))
    sides = {"contents": ["a.png", "b.png", "c.png"], "styles": ["s.png", "t.png"]}
    loaded = parse_manifest(sides | said, "json", "m.json", (str(folder),))
    assert loaded.faults == ()
    return make_plan(Store.open(str(folder / "store")), loaded, devices="cpu")


def faults(draft: PlanDraft) -> list[tuple[str, str, int | None]]:
    return [(fault.what, fault.item, fault.row) for fault in draft.plan.run.faults]


DEMO = resolve("demo").sample.style_strength
"""What a pair that says nothing has."""

TWICE, TWO_NAMES = "sample drawn twice", "one picture under two names"


@pytest.mark.parametrize(
    ("said", "expected", "pictures"),
    [
        ({}, [(TWO_NAMES, "c")], 4),
        ({"contents": ["c.png"], "styles": ["s.png", {"image": "s.png", "name": "again"}]}, [(TWO_NAMES, "again")], 1),
        ({"seeds": [0, 1], "sweep": {"style_strength": [0.5, 1]}}, [(TWO_NAMES, "c")], 16),
        ({"contents": ["a.png"], "prompts": ["A [c] x", "A [v] x"]}, [(TWICE, "a")], 2),
        ({"pairs": [{"content": "b", "style": "s"}, {"content": "c", "style": "s", "seeds": [0, 1]}]},
         [(TWO_NAMES, "c")], 2),
        ({"pairs": [{"content": "a", "style": "s"}, {"content": "a", "style": "s", "style_strength": DEMO}]},
         [(TWICE, "a")], 1),
        ({"pairs": [{"content": "b", "style": "s"}, {"content": {"b": 0.5, "c": 0.5}, "style": "s"}]},
         [(TWO_NAMES, "b 0.5 + c 0.5")], 1),
        ({"pairs": [{"content": "b", "style": "s"}, {"content": "c", "style": "s", "prompt": "A [c] at night"}]},
         [], 2),
        ({"contents": ["b.png", {"image": "c.png", "class_word": "owl"}]}, [], 4),
        ({"pairs": [{"content": "a", "style": "s", "sweep": {"style_strength": [0.5, DEMO]}},
                    {"content": "a", "style": "s"}]}, [], 2),
    ],
)  # fmt: skip
def test_what_is_asked_for_again_is_a_fault_and_never_silent(
    tmp_path: Path, said: dict[str, Any], expected: list[tuple[str, str]], pictures: int
) -> None:
    draft = plan(tmp_path, **said)
    assert [found[:2] for found in faults(draft)] == expected
    assert len(draft.plan.samples) == pictures


def test_the_fault_names_the_row_of_the_second_name(tmp_path: Path) -> None:
    plan(tmp_path)
    path = tmp_path / "m.yaml"
    path.write_text("contents: [b.png,\n  {image: a.png, name: owl},\n  c.png]\nstyles: [s.png]\n")
    draft = make_plan(Store.open(str(tmp_path / "store")), load_manifest(str(path)), devices="cpu")
    assert faults(draft) == [(TWO_NAMES, "c", 3)]
    assert "'b' with 's'" in draft.plan.run.faults[0].received


@pytest.mark.parametrize("field", ["prompts", "content_prompt", "negative_prompt"])
def test_prompts_that_differ_only_where_nobody_reads_on_are_one_picture_and_say_so(tmp_path: Path, field: str) -> None:
    ends = [f"{LONG} boat at night", f"{LONG} moon"]
    if field == "prompts":
        said: dict[str, Any] = {"prompts": ends}
    else:
        said = {"pairs": [{"content": "a", "style": "s", field: end} for end in ends]}
    draft = plan(tmp_path, **{"contents": ["a.png"], "styles": ["s.png"], **said})
    assert faults(draft) == [] and len(draft.plan.samples) == 1
    lines = told(draft.notes)
    assert sum("boat at night" in line and "tokens, and not" in line for line in lines) == 1
    assert sum("moon" in line and "boat at night" in line and "one picture" in line for line in lines) == 1


def test_prompts_of_a_missing_side_are_cut_like_others(tmp_path: Path) -> None:
    ends = [LONG.replace("[s]", "gold") + end for end in ("boat", "moon", "")]
    draft = plan(tmp_path, contents=["a.png"], pairs=[{"content": "a", "prompts": ends}], styles=["s.png"])
    assert len(draft.plan.samples) == 1 and len([note for note in draft.notes if "one picture" in note.text]) == 2


@pytest.mark.parametrize(
    ("said", "tokens"),
    [
        ({"prompt": "A boat in [s] style"}, ["[c]"]),
        ({"prompt": "A boat"}, ["[c]", "[s]"]),
        ({"prompt": "A boat in [s] style", "content_prompt": "A [c]"}, []),
        ({"prompt": LONG}, []),
        ({}, []),
    ],
)
def test_a_prompt_that_does_not_mention_a_picture_says_so(
    tmp_path: Path, said: dict[str, Any], tokens: list[str]
) -> None:
    draft = plan(tmp_path, contents=["a.png"], styles=["s.png"], preset="draft", **said)
    assert [note.text.split("without ")[1][:3] for note in draft.notes if "without [" in note.text] == tokens


def test_a_mark_in_a_class_word_is_text(tmp_path: Path) -> None:
    contents = [{"image": "a.png", "class_word": "box [s] [c]", "word": "box [s]"}]
    styles = [{"image": "s.png", "class_word": "ink [c]"}]
    draft = plan(tmp_path, contents=contents, styles=styles, prompt="A [c] in [s] style")
    assert draft.plan.samples[0].prompt == "A [v] box [s] [c] in [v] ink [c] style"
    alone = plan(tmp_path, contents=contents, styles=styles, pairs=[{"content": "a", "prompt": "A [c] of ink"}])
    assert alone.plan.samples[0].text == "A box [s] of ink"
