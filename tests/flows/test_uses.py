"""The uses beyond one picture in another's style, end to end on a tiny base."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from blora.adapters.load import load_adapter
from blora.metrics.feature_scorer import FeatureScorer, ScoreItem
from blora.metrics.lite0 import load_lite0
from blora.metrics.steadiness import steadiness
from blora.settings.score_meanings import overall
from flows.stylize import rerun, stylize
from manifests.tables.run import ADAPTERS, BEST, CLIPS, FAULTS, SAMPLES, SCORES
from tasks.closing.export import human_names
from tasks.run.plan import load_plan
from tests.flows.conftest import Project
from tests.flows.test_stylize import Work
from tests.tiny import picture

pytestmark = pytest.mark.usefixtures("prefect_api", "warm_slots")


@pytest.fixture
def work(tmp_path: Path, tiny_base: Path) -> Work:
    return Work(str(tmp_path / "store"), (str(tiny_base),))


def pixels(work: Work, key: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(work.store.read(key))))


def test_pairs_with_one_side_are_drawn_and_scored_by_what_applies(work: Work, project: Project) -> None:
    pairs = [
        {"content": "c0", "prompts": ["A [c] of gold", "A [c] of ice"]},
        {"style": "s0", "prompts": ["A horse in [s] style", "A house in [s] style", "A hat in [s] style"]},
    ]
    project.write(pairs=pairs, grid=None)
    assert work(stylize, str(project.path)).is_completed()
    assert work.json("run.json")["sentence"] == "5 of 5 pictures, 2 of 2 adapters"
    assert work.rows("faults", FAULTS) == [] and len(work.rows("adapters", ADAPTERS)) == 2
    rows = {row["style_name"] if row["content_name"] == "c0" else row["content_name"]: row
            for row in work.rows("samples", SAMPLES)}  # fmt: skip
    assert rows.keys() == {prompt for pair in pairs for prompt in pair["prompts"]}
    assert {row["key"].split("/")[1 if row["style_name"] == "s0" else 2][:5] for row in rows.values()} == {"text-"}
    ice, gold = (pixels(work, rows[f"A [c] of {name}"]["key"]) for name in ("ice", "gold"))
    assert not np.array_equal(ice, gold)
    scores: dict[str, set[str]] = {}
    for row in work.rows("scores", SCORES):
        scores.setdefault(row["sample_id"], set()).add(row["score"])
    for row in rows.values():
        kinds = {name.split("_")[0] for name in scores[row["sample_id"]]}
        sided = {"content"} if row["content_name"] == "c0" else {"style", "leakage", "colour"}
        assert kinds == sided | {"text", "structure"}
    plan = load_plan(work.store, work.run_id)
    assert sorted(name for _, name in human_names(plan))[-2:] == [
        "c0__a-c-of-gold__0.png",
        "c0__a-c-of-ice__0.png",
    ]
    assert [len(shard.samples) for shard in plan.shards] == [2, 3], "prompts for one style share shards and batches"
    sheet = Image.open(io.BytesIO(work.store.read(f"runs/{work.run_id}/report/contact_sheet.png")))
    assert sheet.size == (6 + 4 * 166, 6 + 5 * 184)  # 4 contents (one picture, 3 prompts) x 3 styles (2 prompts)
    before = work.written()
    assert work(rerun, work.run_id).is_completed()
    assert work.written() == before


def test_mixes_and_sweeps_leave_strips_and_weighted_scores(work: Work, project: Project) -> None:
    mix = {"content": {"c0": 0.6, "c1": 0.6}, "style": "s0"}
    sweep = {"content": "c0", "style": ["s0", "s1"], "sweep": {"mix": 3}}
    plain = [{"content": "c0", "style": "s0", "seeds": [1]}, {"content": "c1", "style": "s0", "seeds": [0]}]
    project.write(pairs=[mix, sweep, *plain], grid=None)
    assert work(stylize, str(project.path)).is_completed()
    assert work.json("run.json")["sentence"] == "6 of 6 pictures, 4 of 4 adapters"
    rows = work.rows("samples", SAMPLES)
    (half,) = (row for row in rows if row["style_mix"])
    assert half["style_name"] == "s0 0.5 + s1 0.5" and [part["weight"] for part in half["style_mix"]] == [0.5, 0.5]
    assert {part["name"] for part in half["style_mix"]} == {"s0", "s1"}
    strip = Image.open(io.BytesIO(work.store.read(f"runs/{work.run_id}/report/strips.png")))
    assert strip.width == 6 + 3 * 166
    cells = [np.asarray(strip.crop((6 + 166 * i, 24, 166 + 166 * i, 184)), np.int16) for i in range(3)]
    assert all(np.abs(cells[i] - cells[i + 1]).max() > 0 for i in range(2))
    facts = json.loads(Image.open(io.BytesIO(work.store.read(half["key"]))).text["blora"])
    assert facts["style_mix"] == half["style_mix"] and "content_mix" not in facts
    scores = {(row["sample_id"], row["score"]): row["value"] for row in work.rows("scores", SCORES)}
    (mixed,) = (row["sample_id"] for row in rows if row["content_mix"])
    assert 0 < abs(scores[mixed, "content_lite0"]) <= 1 and (mixed, "style_clip") in scores
    before = work.objects("samples/")
    work.store.delete(half["key"])
    assert work(rerun, work.run_id).is_completed()
    assert work.objects("samples/") == before


def test_several_photos_of_one_object_are_one_adapter_of_its_class(work: Work, project: Project) -> None:
    photos = {"images": ["c0.png", "c1.png"], "name": "pet", "class_word": "dog"}
    project.write(contents=[photos], styles=[{"image": "s0.png", "name": "s0"}])
    assert work(stylize, str(project.path)).is_completed()
    assert work.json("run.json")["sentence"] == "1 of 1 picture, 2 of 2 adapters"
    pet, style = sorted(work.rows("adapters", ADAPTERS), key=lambda row: str(row["name"]))
    assert (len(pet["image_ids"]), len(style["image_ids"])) == (2, 1)
    told = [
        load_adapter(work.store.read(f"adapters/{row['adapter_id']}/content.safetensors")).metadata
        for row in (pet, style)
    ]
    assert [one["prompt"] for one in told] == ["A [v] dog", "A [v]"]
    assert told[0]["image_ids"] == ",".join(pet["image_ids"])
    (row,) = work.rows("samples", SAMPLES)
    assert row["prompt"] == "A [v] dog"
    scores = {score["score"]: score["value"] for score in work.rows("scores", SCORES)}
    picture, references = pixels(work, row["key"]), [pixels(work, f"images/{i}.png") for i in pet["image_ids"]]
    judge = FeatureScorer(load_lite0())
    alone = [judge.score([ScoreItem(picture, one)])[0]["content_lite0"] for one in references]
    assert scores["content_lite0"] == pytest.approx(sum(alone) / 2, abs=1e-5) and abs(alone[0] - alone[1]) > 1e-4


def test_frames_of_a_clip_are_trained_one_by_one_and_drawn_from_one_noise(work: Work, project: Project) -> None:
    (project.folder / "walk").mkdir()
    for number in range(3):
        Image.fromarray(picture(40 + number, 40, 40)).save(project.folder / "walk" / f"{number}.png")
    project.write(contents=[{"frames": "walk/*.png"}], styles=[{"image": "s0.png", "name": "s0"}])
    assert work(stylize, str(project.path)).is_completed()
    assert work.json("run.json")["sentence"] == "3 of 3 pictures, 4 of 4 adapters"
    rows = sorted(work.rows("samples", SAMPLES), key=lambda row: str(row["content_name"]))
    assert [row["content_name"] for row in rows] == ["walk 1", "walk 2", "walk 3"]
    assert len({row["content_id"] for row in rows}) == 3 and {row["seed"] for row in rows} == {0}
    drawn = [pixels(work, row["key"]) for row in rows]
    sources = [np.asarray(Image.open(project.folder / "walk" / f"{number}.png")) for number in range(3)]
    (clip,) = work.rows("clips", CLIPS)
    assert clip["flicker_ratio"] == pytest.approx(steadiness(drawn, sources).flicker_ratio)
    with Image.open(io.BytesIO(work.store.read(f"runs/{work.run_id}/report/clips.gif"))) as film:
        assert film.n_frames == 3
    before = work.written()
    assert work(rerun, work.run_id).is_completed()
    assert work.written() == before


def test_candidates_change_nothing_of_what_is_asked_for_and_more_of_them_draw_only_more(
    work: Work, project: Project, tmp_path: Path
) -> None:
    assert work(stylize, str(project.path)).is_completed()
    plain = work.objects()
    other = Work(str(tmp_path / "other"), work.allowed_roots)
    project.write(candidates=3)
    assert other(stylize, str(project.path)).is_completed()
    many = other.objects()
    assert len(plain) == 12 and len(many) == 20
    assert {key: many[key] for key in plain} == plain, "ids and bytes are those without the field"
    best = {row["asked_id"]: row for row in other.rows("best", BEST)}
    scores: dict[str, dict[str, float]] = {}
    for row in other.rows("scores", SCORES):
        scores.setdefault(row["sample_id"], {})[row["score"]] = row["value"]
    values = {sample_id: overall(of_one) for sample_id, of_one in scores.items()}
    groups: dict[str, list[str]] = {}
    for sample in load_plan(other.store, other.run_id).samples:
        groups.setdefault(sample.asked_id, []).append(sample.sample_id)
    assert len(best) == len(groups) == 4 and {len(group) for group in groups.values()} == {3}
    for asked, group in groups.items():
        assert values[best[asked]["sample_id"]] == max(values[one] for one in group) == best[asked]["value"]
    before = other.written()
    project.write(candidates=5)
    assert other(stylize, str(project.path)).is_completed()
    after = other.written()
    assert {key: after[key] for key in before} == before and len(after) == len(before) + 2 * 4
    assert {row["candidates"] for row in other.rows("best", BEST)} == {5}
