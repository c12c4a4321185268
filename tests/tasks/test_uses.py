"""What the forms of a manifest are named: ids that stay, ids that are new, and words for people."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from blora.settings.resolve import resolve
from manifests import ids
from manifests.loading.load import load_manifest
from manifests.loading.pictures import check_images
from manifests.tables.parquet import from_parquet_bytes, to_parquet_bytes, to_table
from manifests.tables.run import PLAN
from tasks.planning.identify import Identified, identify
from tasks.run.plan import PlannedSample

EXAMPLES = Path(__file__).parents[2] / "manifests" / "examples"
DEMO = resolve("demo").sample
PICTURES = EXAMPLES / "pictures"


def identified(path: Path, preset: str = "demo") -> Identified:
    """What a manifest without faults asks for."""
    loaded = load_manifest(str(path), allowed_roots=[str(EXAMPLES)])
    assert loaded.manifest is not None and loaded.faults == ()
    pictures, _ = check_images(loaded.manifest)
    return identify(loaded.manifest, pictures, resolve(preset), "revision")


def samples(folder: Path, pairs: list[dict[str, Any]], **more: Any) -> tuple[PlannedSample, ...]:
    """The samples of two contents and two styles of the demo."""
    sides = {"contents": ("owl", "apple"), "styles": ("night", "coral")}
    rows = {
        side: [{"image": str(PICTURES / f"{name}.png"), "name": name, "word": f"{name}ish"} for name in names]
        for side, names in sides.items()
    }
    path = folder / "m.json"
    path.write_text(json.dumps(rows | {"pairs": pairs} | more))
    return identified(path).samples


@pytest.mark.parametrize(
    ("name", "preset", "digest"),
    [
        ("demo.yaml", "demo", "850e1e7503e66ccc80ebaa78"),
        ("demo.yaml", "paper", "2c853f907e4ffa8e20c411da"),
        ("unseen.yaml", "demo", "155a4169a961cb502f450d6e"),
        ("pairs.csv", "demo", "d96f38a7cfb953d19cdfae50"),
    ],
)
def test_ids_of_plain_pairs_are_what_they_always_were(name: str, preset: str, digest: str) -> None:
    """They change with the values of a preset, and with nothing else; a change here makes users pay again."""
    assert ids.digest([sample.sample_id for sample in identified(EXAMPLES / name, preset).samples]) == digest


def test_the_run_of_the_demo_is_what_it_always_was() -> None:
    assert identified(EXAMPLES / "demo.yaml").run_id == "demo-f9b3be1ea236"


def test_a_prompt_that_stands_for_a_side_is_that_side(tmp_path: Path) -> None:
    ice, horse, whole = samples(
        tmp_path,
        [
            {"content": "owl", "prompt": "A [c] of ice"},
            {"style": "night", "prompt": "A horse in [s] style"},
            {"content": "owl", "style": "night"},
        ],
    )
    assert (ice.content_id, horse.style_id) == (whole.content_id, whole.style_id)
    assert ice.style_id == ids.text_id("A [v] of ice") and horse.content_id == ids.text_id("A horse in [v] style")
    assert (ice.content_strength, ice.style_strength) == (DEMO.content_strength, None)
    assert (horse.content_strength, horse.style_strength) == (None, DEMO.style_strength)
    assert ice.adapter_ids == {whole.content_id} and horse.adapter_ids == {whole.style_id}
    assert (ice.content_name, ice.style_name) == ("owl", "A [c] of ice")
    assert (horse.content_name, horse.style_name) == ("A horse in [s] style", "night")
    assert (ice.text, horse.text) == ("A owlish of ice", "A horse in nightish style")
    assert len({ice.sample_id, horse.sample_id, whole.sample_id}) == 3


def test_only_what_is_drawn_is_trained(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    samples(tmp_path, [{"content": "owl", "prompt": "ice"}])
    assert [adapter.name for adapter in identified(path).adapters] == ["owl"]


def test_a_strength_of_the_head_says_nothing_of_a_side_that_is_missing(tmp_path: Path) -> None:
    pairs = [{"content": "owl", "prompt": "ice"}]
    (one,), (other,) = samples(tmp_path, pairs), samples(tmp_path, pairs, style_strength=0.5)
    assert one == other


def test_a_mix_is_named_by_its_parts_and_weights_in_any_order(tmp_path: Path) -> None:
    one, other, heavier, plain, alone = samples(
        tmp_path,
        [
            {"content": {"owl": 0.7, "apple": 0.3}, "style": "night"},
            {"content": {"apple": 0.3, "owl": 0.7}, "style": "coral"},
            {"content": {"owl": 0.8, "apple": 0.3}, "style": "night"},
            {"content": "owl", "style": "night", "content_strength": 0.4},
            {"content": {"owl": 0.5}, "style": "coral"},
        ],
    )
    assert one.content_id == other.content_id != heavier.content_id
    assert one.content_id.startswith("mix-") and one.key.startswith(f"samples/{one.content_id}/")
    assert {(part.name, part.weight) for part in one.content_mix} == {("owl", 0.7), ("apple", 0.3)}
    assert one.adapter_ids == {part.adapter_id for part in one.content_mix} | {plain.style_id}
    assert (one.content_strength, one.text) == (DEMO.content_strength, "")
    assert (alone.content_id, alone.content_mix) == (plain.content_id, ())
    assert alone.content_strength == 0.5 * DEMO.content_strength
    assert one.row == other.row == heavier.row, "mixes of the same adapters share shards"


def test_the_ends_of_a_sweep_are_the_pictures_that_plain_pairs_ask_for(tmp_path: Path) -> None:
    swept = samples(tmp_path, [{"content": "owl", "style": ["night", "coral"], "sweep": {"mix": 5}}])
    plain = samples(tmp_path, [{"content": "owl", "style": "night"}, {"content": "owl", "style": "coral"}])
    assert [swept[0], swept[-1]] == list(plain)
    strips = identified(tmp_path / "m.json").strips
    assert strips == ()
    samples(tmp_path, [{"content": "owl", "style": ["night", "coral"], "sweep": {"mix": 5}, "seeds": [3, 4]}])
    three, four = identified(tmp_path / "m.json").strips
    assert (three.label, four.label) == ("owl x night to coral, seed 3", "owl x night to coral, seed 4")
    assert [step.label for step in three.steps] == ["mix 0", "mix 0.25", "mix 0.5", "mix 0.75", "mix 1"]


def test_two_sweeps_of_one_pair_are_two_strips(tmp_path: Path) -> None:
    pair = {"content": "owl", "style": "night", "sweep": {"colour_amount": [0.5, 1]}}
    samples(tmp_path, [pair | {"colour_by": "subject"}, pair | {"colour_by": "guidance", "colour_of": "style"}])
    strips = identified(tmp_path / "m.json").strips
    assert [(strip.label, len(strip.steps)) for strip in strips] == [
        ("owl x night, colours of content by subject", 2),
        ("owl x night, colours of style by guidance", 2),
    ]


def test_a_plan_of_the_version_before_mixes_is_still_read(tmp_path: Path) -> None:
    (sample,) = samples(tmp_path, [{"content": "owl", "style": "night"}])
    row = dict.fromkeys(PLAN.names) | sample.columns()
    row |= {"run_id": "r", "kind": "sample", "group_id": "g", "group_index": 0, "batch_index": 0, "position": 0}
    table = to_table([row], PLAN).drop_columns(["content_mix", "style_mix"])
    old = to_parquet_bytes(table.replace_schema_metadata({"table": "plan", "schema_version": "1"}))
    (read,) = from_parquet_bytes(old, PLAN).to_pylist()
    assert PlannedSample.of(read) == sample


def test_the_contents_own_style_is_mixed_in_beside_the_styles(tmp_path: Path) -> None:
    own, mixed, alone = samples(
        tmp_path,
        [
            {"content": "owl", "style": "night", "own_style": 0.45},
            {"content": {"owl": 0.5, "apple": 0.5}, "style": "coral", "own_style": 0.4},
            {"content": "owl", "prompt": "Watercolour of [c]", "own_style": 0.5},
        ],
    )
    assert {part.name: part.weight for part in own.style_mix} == {"night": 1.0, "owl": 0.45}
    assert (own.style_name, own.content_mix, own.text) == ("night + own 0.45", (), "a owlish in nightish style")
    assert {part.name: part.weight for part in mixed.style_mix} == {"coral": 1.0, "owl": 0.2, "apple": 0.2}
    assert (alone.style_id, alone.style_strength, alone.style_mix) == (own.content_id, 0.5 * DEMO.style_strength, ())


def test_colours_are_part_of_an_id_only_where_they_are_used(tmp_path: Path) -> None:
    pair = {"content": "owl", "style": "night"}
    plain, by_style, half, guided, off = (
        samples(tmp_path, [pair | more])[0]
        for more in (
            {},
            {"colour_of": "style"},
            {"colour_amount": 0.5},
            {"colour_by": "guidance", "colour_amount": 0.3},
            {"colour_of": "content", "colour_by": "subject", "colour_amount": 0},
        )
    )
    assert off == plain and plain.colour_of is None
    assert (by_style.colour_of, by_style.colour_by, by_style.colour_amount) == ("style", "transfer", 1.0)
    assert (half.colour_of, half.colour_by, half.colour_amount) == ("content", "transfer", 0.5)
    assert len({one.sample_id for one in (plain, by_style, half, guided)}) == 4
