"""Candidates: which pictures a manifest asks for, which of them is chosen, and who shows and delivers that."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from manifests import ids, layout
from manifests.store.store import Store
from manifests.tables.parquet import from_parquet_bytes, to_parquet_bytes
from manifests.tables.run import BEST, PLAN
from tasks.closing.collect import write_choice
from tasks.closing.export import export_run
from tasks.review.best import Choice, choose
from tasks.review.decisions import Mark, record_marks
from tasks.review.redo import record_review
from tasks.review.score_table import render, score_table
from tasks.run.inventory import take_inventory
from tasks.run.plan import Plan, PlannedSample, load_plan
from tasks.worker.generate import encode_png
from tests.made_run import finish, plan_run
from tests.tasks.report.test_run_page import page_data
from tests.tasks.test_uses import samples

PAIR = {"content": "owl", "style": "night", "seeds": [0, 7]}


def by_seed(sample: PlannedSample, number: int) -> dict[str, float]:
    """The asked-for seed 0 is poor; further candidates differ."""
    return {"transfer": 0.2 if sample.candidate_of is None else 0.3 + (sample.seed % 97) / 200, "harmonic_mean": 0.9}


def night(root: Path, **changes: Any) -> tuple[Store, Plan]:
    """A closed run of 2 x 2 pairs with three candidates each."""
    store, plan = plan_run(root, ["apple", "owl"], ["wave", "ink"], **({"candidates": 3} | changes))
    finish(store, plan, scorer=by_seed)
    return store, plan


def best_of(store: Store, plan: Plan) -> dict[str, dict[str, Any]]:
    """The table of the best by the picture asked for."""
    data = store.read(layout.run_key(plan.run.run_id, "best.parquet"))
    return {row["asked_id"]: row for row in from_parquet_bytes(data, BEST).to_pylist()}


def test_the_first_candidates_are_the_pictures_that_are_drawn_without_the_field(tmp_path: Path) -> None:
    plain = samples(tmp_path, [PAIR])
    assert samples(tmp_path, [PAIR | {"candidates": 1}]) == plain
    three = samples(tmp_path, [PAIR | {"candidates": 3}])
    five = samples(tmp_path, [PAIR], candidates=5)
    assert three[:2] == five[:2] == plain and set(three) < set(five)
    assert len(three) == 6 and len(five) == 10 == len({sample.sample_id for sample in five})
    first, second = ([sample.seed for sample in five if sample.candidate_of == asked.sample_id] for asked in plain)
    assert first == [ids.candidate_seed(0, number) for number in (2, 3, 4, 5)]
    assert second == [ids.candidate_seed(7, number) for number in (2, 3, 4, 5)]


def test_csd_decides_where_its_scores_are_and_its_own_harmonic_mean_breaks_ties(tmp_path: Path) -> None:
    store, plan = plan_run(tmp_path, ["apple"], ["wave"], candidates=3)
    first, second, third = (sample.sample_id for sample in plan.samples)
    values = {
        first: {"transfer": 0.9, "harmonic_mean": 0.9, "transfer_csd": 0.0, "harmonic_mean_csd": 0.9},
        second: {"transfer": 0.5, "harmonic_mean": 0.9, "transfer_csd": 0.4, "harmonic_mean_csd": 0.2},
        third: {"transfer": 0.1, "harmonic_mean": 0.1, "transfer_csd": 0.4, "harmonic_mean_csd": 0.3},
    }
    finish(store, plan, scorer=lambda sample, number: values[sample.sample_id])
    (row,) = best_of(store, plan).values()
    assert (row["sample_id"], row["score"], row["value"], row["asked_value"]) == (third, "transfer_csd", 0.4, 0.0)


def test_a_pair_says_for_itself_how_many_it_has(tmp_path: Path) -> None:
    pairs = [{"content": "owl", "style": "night", "candidates": 1}, {"content": "owl", "style": "coral"}]
    found = samples(tmp_path, pairs, candidates=2)
    assert [(one.style_name, one.candidate_of is None) for one in found] == [
        ("night", True),
        ("coral", True),
        ("coral", False),
    ]


def test_a_seed_that_is_asked_for_is_nobodys_further_candidate(tmp_path: Path) -> None:
    made = ids.candidate_seed(0, 2)
    found = samples(tmp_path, [{"content": "owl", "style": "night", "seeds": [0, made], "candidates": 2}])
    assert [(one.seed, one.candidate_of is None) for one in found[:2]] == [(0, True), (made, True)]
    assert len(found) == 3 and found[2].candidate_of == found[1].sample_id


def test_batches_and_bytes_of_what_is_asked_for_do_not_depend_on_candidates(tmp_path: Path) -> None:
    changes = {"settings": {"shard_size": 4, "sample": {"batch_size": 2}}}
    _, plain = plan_run(tmp_path / "a", ["apple", "owl"], ["wave", "ink", "dots"], **changes)
    _, many = plan_run(tmp_path / "b", ["apple", "owl"], ["wave", "ink", "dots"], candidates=4, **changes)
    batches = [batch for shard in many.shards for batch in shard.batches]
    assert all(len({sample.candidate_of is None for sample in batch}) == 1 for batch in batches)
    asked = [batch for batch in batches if batch[0].candidate_of is None]
    assert asked == [batch for shard in plain.shards for batch in shard.batches]
    assert len(many.samples) == 24
    pixels = np.zeros((8, 8, 3), np.uint8)
    (further,) = (s for s in many.samples if s.seed == ids.candidate_seed(0, 2) and s.key.startswith(
        f"samples/{asked[0][0].content_id}/{asked[0][0].style_id}/"))  # fmt: skip
    alone = replace(further, candidate_of=None)
    assert encode_png(pixels, further, many.run, "ddim") == encode_png(pixels, alone, plain.run, "ddim")


def test_the_best_by_transfer_is_written_shown_and_delivered(tmp_path: Path) -> None:
    store, plan = night(tmp_path)
    best = best_of(store, plan)
    assert len(best) == 4
    groups = {asked: [s for s in plan.samples if s.asked_id == asked] for asked in best}
    for asked, row in best.items():
        highest = max(groups[asked], key=lambda sample: by_seed(sample, 0)["transfer"])
        assert (row["sample_id"], row["seed"], row["key"]) == (highest.sample_id, highest.seed, highest.key)
        assert (row["chosen_by"], row["score"], row["candidates"], row["judged"]) == ("score", "transfer", 3, 3)
        assert row["value"] == by_seed(highest, 0)["transfer"] > row["asked_value"] == 0.2
        assert (row["scorer"], row["scorer_version"]) == ("made", "1")
    chosen = {row["sample_id"] for row in best.values()}
    assert export_run(store, plan.run.run_id, str(tmp_path / "out"), best=True) == (4, 0)
    seeds = {path.stem.split("__")[2] for path in (tmp_path / "out").glob("*__*.png")}
    assert seeds == {str(row["seed"]) for row in best.values()} and "0" not in seeds
    assert (tmp_path / "out" / "best.parquet").is_file()
    assert {row.sample_id for row in score_table(store, plan.run) if row.named["chosen"] == "yes"} == chosen
    told = render(score_table(store, plan.run), "csv").splitlines()
    assert told[0].split(",")[-2] == "chosen" and sum(",yes," in line for line in told) == 4
    data = page_data(Path(store.root) / layout.report_prefix(plan.run.run_id))["samples"]
    assert {one for one, is_best in zip(data["id"], data["best"], strict=True) if is_best} == chosen


def test_the_sheet_shows_the_chosen_pictures(tmp_path: Path) -> None:
    store, plan = night(tmp_path)
    best = best_of(store, plan)
    sheet = Image.open(io.BytesIO(store.read(layout.run_key(plan.run.run_id, "report/contact_sheet.png"))))
    first = plan.samples[0]

    def looks_like(sample_id: str) -> bool:
        key = next(sample.key for sample in plan.samples if sample.sample_id == sample_id)
        picture = Image.open(io.BytesIO(store.read(key))).convert("RGB").resize((160, 160), Image.Resampling.LANCZOS)
        cell = sheet.crop((172, 190, 332, 350)).convert("RGB")
        return bool(np.abs(np.asarray(cell, int) - np.asarray(picture, int)).mean() < 1)

    assert looks_like(str(best[first.sample_id]["sample_id"])) and not looks_like(first.sample_id)


def test_a_run_without_candidates_has_its_pictures_for_the_best(tmp_path: Path) -> None:
    store, plan = night(tmp_path, candidates=1)
    assert {(row["sample_id"], row["chosen_by"]) for row in best_of(store, plan).values()} == {
        (sample.sample_id, "only") for sample in plan.samples
    }
    assert "chosen" not in render(score_table(store, plan.run), "table")
    data = page_data(Path(store.root) / layout.report_prefix(plan.run.run_id))["samples"]
    assert not any(data["best"]), "nothing was chosen, so nothing is marked"


def test_what_a_reviewer_says_goes_before_the_score(tmp_path: Path) -> None:
    store, plan = night(tmp_path)
    before = best_of(store, plan)
    winner = str(before[plan.samples[0].sample_id]["sample_id"])
    mark = Mark(winner, "redo", "Ada", datetime(2026, 11, 22, tzinfo=UTC))
    (added,) = record_review(store, plan, [mark])
    assert added.candidate_of == plan.samples[0].sample_id
    record_marks(store, plan.run.run_id, [Mark(plan.samples[1].sample_id, "keep", "Ada", mark.decided_at)])
    plan = load_plan(store, plan.run.run_id)
    write_choice(store, plan, take_inventory(store, plan))
    after = best_of(store, plan)
    moved, kept = after[plan.samples[0].sample_id], after[plan.samples[1].sample_id]
    assert moved["sample_id"] not in (winner, added.sample_id) and moved["chosen_by"] == "score"
    assert (moved["candidates"], moved["judged"]) == (4, 2), "the one to be redone is not there yet"
    assert (kept["sample_id"], kept["chosen_by"]) == (plan.samples[1].sample_id, "review")
    finish(store, plan, scorer=lambda sample, _: {"transfer": float(sample.sample_id == added.sample_id)})
    assert best_of(store, plan)[plan.samples[0].sample_id]["sample_id"] == added.sample_id, "a rerun chooses again"


def test_rejecting_all_candidates_leaves_nothing_to_deliver_and_nothing_to_draw(tmp_path: Path) -> None:
    store, plan = night(tmp_path)
    group = [sample for sample in plan.samples if sample.asked_id == plan.samples[0].sample_id]
    when = datetime(2026, 11, 22, tzinfo=UTC)
    record_marks(store, plan.run.run_id, [Mark(sample.sample_id, "reject", "", when) for sample in group])
    assert export_run(store, plan.run.run_id, str(tmp_path / "out"), best=True) == (3, 0)


def test_what_cannot_be_chosen_yet_is_missing_from_a_delivery(tmp_path: Path) -> None:
    store, plan = plan_run(tmp_path, ["apple"], ["wave"], candidates=3)
    finish(store, plan, scorer=lambda *_: {})
    assert export_run(store, plan.run.run_id, str(tmp_path / "out"), best=True) == (0, 1)


def scored(sample: PlannedSample, name: str, value: float, version: str = "1") -> dict[str, Any]:
    """A row of the score table, as far as choosing looks at it."""
    return {"sample_id": sample.sample_id, "score": name, "value": value, "scorer": "s", "scorer_version": version}


def chosen(group: tuple[PlannedSample, ...], rows: list[dict[str, Any]]) -> Choice:
    """The choice in one group of pictures that are all there."""
    (choice,) = choose(group, {sample.sample_id for sample in group}, rows, {})
    return choice


@pytest.fixture
def group(tmp_path: Path) -> tuple[PlannedSample, ...]:
    """Four candidates of one picture."""
    return samples(tmp_path, [{"content": "owl", "style": "night", "candidates": 4}])


def test_the_plain_harmonic_mean_only_breaks_ties(group: tuple[PlannedSample, ...]) -> None:
    rows = [scored(one, "transfer", value) for one, value in zip(group, (0.1, 0.4, 0.4, 0.2), strict=True)]
    rows += [scored(one, "harmonic_mean", value) for one, value in zip(group, (0.9, 0.5, 0.6, 0.8), strict=True)]
    assert chosen(group, rows).chosen == group[2]
    even = [scored(one, "transfer", 0.0) for one in group]
    assert chosen(group, even).chosen == group[0], "of equals the picture that was asked for"


def test_words_decide_where_there_is_no_second_picture(group: tuple[PlannedSample, ...]) -> None:
    rows = [scored(one, "text_clip", value) for one, value in zip(group, (0.1, 0.2, 0.3, 0.2), strict=True)]
    rows += [scored(one, "content_lite0", value) for one, value in zip(group, (0.9, 0.2, 0.1, 0.2), strict=True)]
    choice = chosen(group, rows)
    assert choice.chosen == group[2] and choice.deciding is not None and choice.deciding["score"] == "text_clip"


def test_scores_of_two_versions_are_not_compared(group: tuple[PlannedSample, ...]) -> None:
    rows = [scored(one, "transfer", 0.1 * number) for number, one in enumerate(group[:3])]
    choice = chosen(group, [*rows, scored(group[3], "transfer", 0.9, version="2")])
    assert choice.chosen == group[2] and choice.judged == 3


def test_a_plan_of_the_version_before_candidates_is_still_read(tmp_path: Path) -> None:
    store, plan = plan_run(tmp_path, ["apple"], ["wave"])
    key = layout.run_key(plan.run.run_id, "plan.parquet")
    table = from_parquet_bytes(store.read(key), PLAN).drop_columns(["candidate_of"])
    store.replace(key, to_parquet_bytes(table.replace_schema_metadata({"table": "plan", "schema_version": "2"})))
    assert load_plan(store, plan.run.run_id).samples == plan.samples
