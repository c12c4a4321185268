"""Rows of a scorer that came later: none or all of them to every reader, and still there whatever happens next."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import Dinov2Config, Dinov2Model

from blora.metrics import vision_transformers
from manifests import layout
from manifests.store.store import Store
from manifests.tables.parquet import from_parquet_bytes, to_parquet_bytes
from manifests.tables.run import SCORES
from tasks.closing import added_scores
from tasks.closing.added_scores import plan_rescoring, publish_added
from tasks.closing.collect import close_run
from tasks.errors import RunRefused, TaskError
from tasks.messages import RescoreShard
from tasks.review.score_filter import parse_conditions
from tasks.review.score_table import score_table
from tasks.run.inventory import take_inventory
from tasks.run.plan import Plan, RunInfo, published_scores_key, scores_key
from tasks.run.scores import RunScores, publish_scores, read_scores
from tasks.worker.rescore import rescore_shard
from tasks.worker.session import Session
from tests.made_run import SCORE_NAMES, finish, plan_run
from tests.processes import reading
from tests.tasks.conftest import compact

SMALL = {"dinov2-small": {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}}
NEW = {f"{name}_dinov2_small" for name in ("content", "style", "harmonic_mean", "transfer")}


@pytest.fixture
def lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """Two scorers of one kind: a small DINOv2 with random weights, and the same with others."""
    monkeypatch.setattr(vision_transformers, "DINOV2", SMALL)
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = Dinov2Model(Dinov2Config(image_size=518, patch_size=14, **SMALL["dinov2-small"]))
        save_file(model.state_dict(), tmp_path / f"dino{seed}.safetensors")
    return f"dinov2-small={tmp_path / 'dino0.safetensors'}", f"dinov2-small={tmp_path / 'dino1.safetensors'}"


@pytest.fixture
def run(tmp_path: Path) -> tuple[Store, Plan]:
    """A run of 6 pictures in two shards that has ended; one of them is missing."""
    store, plan = plan_run(tmp_path, ["c0", "c1"], ["s0", "s1", "s2"])
    finish(store, plan, missing=[5])
    return store, plan


def judge(store: Store, plan: Plan, line: str, *, shards: int | None = None) -> int:
    """Do in this process what slots do; how many pictures were judged."""
    session = Session("cpu", store, emit=lambda event: None)
    (asked,) = plan_rescoring(store, plan, [line])
    count = 0
    for shard_id, only in list(asked.missing.items())[:shards]:
        count += len(rescore_shard(session, RescoreShard(plan.run.run_id, shard_id, line, tuple(only))).scored)
    return count


def rows_of(store: Store, plan: Plan) -> list[dict[str, Any]]:
    """What the product's own reader finds."""
    return list(read_scores(store, plan.run).table.to_pylist())


def publish(store: Store, plan: Plan, line: str) -> None:
    publish_added(store, plan, plan_rescoring(store, plan, [line]))


def names(store: Store, plan: Plan) -> dict[str, int]:
    """How many rows of each score the product's reader, the data set and the run's table have; all must agree."""
    published = from_parquet_bytes(store.read(published_scores_key(plan.run)), SCORES).to_pylist()
    table = from_parquet_bytes(store.read(layout.run_key(plan.run.run_id, "scores.parquet")), SCORES).to_pylist()
    counts = []
    for rows in (rows_of(store, plan), published, table):
        keys = [(row["sample_id"], row["score"]) for row in rows]
        assert len(set(keys)) == len(keys), "a picture has a score twice"
        counts.append({name: sum(key[1] == name for key in keys) for name in {key[1] for key in keys}})
    assert counts[0] == counts[1] == counts[2]
    return counts[0]


def test_added_scores_reach_all_readers_at_once_and_the_pages(run: tuple[Store, Plan], lines: tuple[str, str]) -> None:
    store, plan = run
    before = names(store, plan)
    assert before == dict.fromkeys(SCORE_NAMES, 5)
    assert judge(store, plan, lines[0]) == 5
    assert names(store, plan) == before, "half of it was seen"
    publish(store, plan, lines[0])
    assert names(store, plan) == before | dict.fromkeys(NEW, 5)
    rows = score_table(store, plan.run)
    assert all(
        condition.meets(row) for condition in parse_conditions(["content_dinov2_small>-2"], rows) for row in rows
    )
    assert len(rows) == 5 and NEW <= rows[0].scores.keys()
    page = b"".join(store.read(key) for key in store.list(layout.report_prefix(plan.run.run_id)) if "data" in key)
    assert b"content_dinov2_small" in page
    assert all(row["scorer_version"].endswith("-1") for row in rows_of(store, plan) if row["score"] in NEW)


def test_the_picture_is_judged_against_its_own_content_and_style(
    run: tuple[Store, Plan], lines: tuple[str, str]
) -> None:
    store, plan = run
    sample = plan.samples[0]
    Path(store.root, sample.key).write_bytes(store.read(layout.image_key(plan.adapter(sample.content_id).image_ids[0])))
    judge(store, plan, lines[0])
    publish(store, plan, lines[0])
    scores = next(row.scores for row in score_table(store, plan.run) if row.sample_id == sample.sample_id)
    assert scores["content_dinov2_small"] == pytest.approx(1, abs=1e-5), "the picture is its content"
    assert scores["transfer_dinov2_small"] == pytest.approx(0, abs=1e-3), "a copy carries nothing over"


def test_nothing_is_judged_twice_and_a_torn_rescoring_goes_on(run: tuple[Store, Plan], lines: tuple[str, str]) -> None:
    store, plan = run
    assert len(plan_rescoring(store, plan, [lines[0]])[0].missing) == 2
    first = judge(store, plan, lines[0], shards=1)
    (asked,) = plan_rescoring(store, plan, [lines[0]])
    assert (len(asked.missing), asked.judged) == (1, first)
    assert first + judge(store, plan, lines[0]) == 5
    assert judge(store, plan, lines[0]) == 0
    publish(store, plan, lines[0])
    at = {row["scored_at"] for row in rows_of(store, plan) if row["scorer"] == "dinov2-small"}
    assert judge(store, plan, lines[0]) == 0
    publish(store, plan, lines[0])
    assert {row["scored_at"] for row in rows_of(store, plan) if row["scorer"] == "dinov2-small"} == at


def test_other_weights_take_the_place_of_the_rows_of_the_old_ones(
    run: tuple[Store, Plan], lines: tuple[str, str]
) -> None:
    store, plan = run
    for line in lines:
        assert judge(store, plan, line) == 5
        publish(store, plan, line)
    versions = {row["scorer_version"] for row in rows_of(store, plan) if row["scorer"] == "dinov2-small"}
    assert versions == {plan_rescoring(store, plan, [lines[1]])[0].version}
    assert names(store, plan) == dict.fromkeys([*SCORE_NAMES, *NEW], 5)


def test_a_rerun_keeps_the_rows_and_what_it_draws_can_be_judged_later(
    run: tuple[Store, Plan], lines: tuple[str, str]
) -> None:
    store, plan = run
    judge(store, plan, lines[0])
    publish(store, plan, lines[0])
    finish(store, plan)  # the picture that was missing is drawn and scored; all parts of shards are written anew
    assert names(store, plan) == dict.fromkeys(SCORE_NAMES, 6) | dict.fromkeys(NEW, 5)
    assert judge(store, plan, lines[0]) == 1
    publish(store, plan, lines[0])
    assert names(store, plan) == dict.fromkeys([*SCORE_NAMES, *NEW], 6)


def test_a_picture_without_the_runs_own_scores_is_left_to_a_rerun(
    run: tuple[Store, Plan], lines: tuple[str, str]
) -> None:
    """Else it would count as scored, and no rerun would ever score it."""
    store, plan = run
    shard = plan.shards[0]
    part = from_parquet_bytes(store.read(scores_key(plan.run, shard)), SCORES)
    lost = shard.samples[0].sample_id
    keep = [value != lost for value in part["sample_id"].to_pylist()]
    store.replace(scores_key(plan.run, shard), to_parquet_bytes(part.filter(keep)))
    scores = read_scores(store, plan.run)
    there = [value != lost for value in scores.table["sample_id"].to_pylist()]
    publish_scores(store, plan.run, RunScores(scores.table.filter(there), scores.parts))
    assert judge(store, plan, lines[0]) == 4
    publish(store, plan, lines[0])
    assert lost not in take_inventory(store, plan).scored


def test_housekeeping_drops_parts_when_the_object_has_their_rows(
    run: tuple[Store, Plan], lines: tuple[str, str], tomorrow: None
) -> None:
    store, plan = run
    run_id = plan.run.run_id
    judge(store, plan, lines[0])
    assert compact(store) == [], "rows that nobody published yet"
    publish(store, plan, lines[0])
    wanted = names(store, plan)
    assert compact(store) == [run_id] and not store.list(layout.shard_scores_prefix(run_id))
    assert names(store, plan) == wanted
    assert judge(store, plan, lines[0]) == 0
    publish(store, plan, lines[0])
    close_run(store, plan, take_inventory(store, plan))
    assert names(store, plan) == wanted
    globbed = duckdb.sql(f"select count(*) from '{store.root}/scores/**/*.parquet' where scorer = 'dinov2-small'")
    assert globbed.fetchall() == [(5 * len(NEW),)]


def test_an_object_that_names_no_scorers_keeps_their_rows(run: tuple[Store, Plan], lines: tuple[str, str]) -> None:
    """As versions before wrote it."""
    store, plan = run
    judge(store, plan, lines[0])
    publish(store, plan, lines[0])
    wanted, scores = names(store, plan), read_scores(store, plan.run)
    publish_scores(store, plan.run, RunScores(scores.table, scores.parts))
    close_run(store, plan, take_inventory(store, plan))
    assert names(store, plan) == wanted and not read_scores(store, plan.run).added
    assert judge(store, plan, lines[1]) == 5
    publish(store, plan, lines[1])
    assert names(store, plan) == wanted
    assert len({row["scorer_version"] for row in rows_of(store, plan) if row["scorer"] == "dinov2-small"}) == 1


READER = """
import json, select, sys, duckdb
from manifests.store.store import Store
from tasks.run.plan import load_plan
from tasks.run.scores import read_scores
root, run_id = sys.argv[1:]
store, seen = Store.open(root), []
plan = load_plan(store, run_id)
print("ready", flush=True)
sys.stdin.readline()
while not select.select([sys.stdin], [], [], 0)[0]:
    pattern = f"{root}/scores/**/*.parquet"
    globbed = duckdb.sql(f"select count(*) from '{pattern}' where scorer = 'dinov2-small'").fetchall()[0][0]
    product = sum(row["scorer"] == "dinov2-small" for row in read_scores(store, plan.run).table.to_pylist())
    seen.append((globbed, product))
print(json.dumps([len(seen), sorted({a for a, _ in seen}), sorted({b for _, b in seen})]), flush=True)
"""


def test_a_reader_in_another_process_never_sees_half(run: tuple[Store, Plan], lines: tuple[str, str]) -> None:
    store, plan = run
    with reading(READER, store.root, plan.run.run_id) as end:
        judge(store, plan, lines[0], shards=1)
        judge(store, plan, lines[0])
        publish(store, plan, lines[0])
        for _ in range(3):
            close_run(store, plan, take_inventory(store, plan))
        looks, globbed, product = end()
    assert looks >= 5
    assert set(globbed) <= {0, 5 * len(NEW)} and set(product) <= {0, 5 * len(NEW)}


def test_rows_that_somebody_elses_closing_put_away_are_put_back(
    run: tuple[Store, Plan], lines: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rerun that read before this put, and puts after it: its object has the run's rows and no others."""
    store, plan = run
    judge(store, plan, lines[0])
    stale, puts = read_scores(store, plan.run), []

    def crossed(store: Store, run: RunInfo, scores: RunScores) -> None:
        publish_scores(store, run, scores)
        puts.append(scores)
        if len(puts) == 1:
            publish_scores(store, run, stale)

    monkeypatch.setattr(added_scores, "publish_scores", crossed)
    publish(store, plan, lines[0])
    assert len(puts) == 2 and NEW <= names(store, plan).keys()
    monkeypatch.setattr(added_scores, "publish_scores", lambda store, run, scores: publish_scores(store, run, stale))
    publish_scores(store, plan.run, stale)
    with pytest.raises(TaskError, match="others keep closing the run"):
        publish(store, plan, lines[0])


def test_what_cannot_be_meant_is_refused_before_any_work(run: tuple[Store, Plan], lines: tuple[str, str]) -> None:
    store, plan = run
    with pytest.raises(RunRefused, match="received dinov2-small twice"):
        plan_rescoring(store, plan, lines)
    with pytest.raises(RunRefused, match="received none"):
        plan_rescoring(store, plan, [])
    lease = store.acquire_lease(layout.run_lease_key(plan.run.run_id), "somebody else", 3600)
    assert lease is not None
    with pytest.raises(RunRefused, match="being worked on by somebody else"):
        plan_rescoring(store, plan, [lines[0]])
    lease.release()
    store.delete(layout.run_key(plan.run.run_id, "scores.parquet"))
    with pytest.raises(RunRefused, match="has not ended: blora rerun"):
        plan_rescoring(store, plan, [lines[0]])


def test_a_scorer_of_the_runs_own_settings_is_refused(tmp_path: Path, lines: tuple[str, str]) -> None:
    store, plan = plan_run(tmp_path, ["c0"], ["s0"], settings={"score": {"scorers": [lines[0]]}})
    finish(store, plan)
    with pytest.raises(RunRefused, match="own settings score with it"):
        plan_rescoring(store, plan, [lines[0]])


def test_rows_are_signed_with_time_and_scorer(run: tuple[Store, Plan], lines: tuple[str, str]) -> None:
    store, plan = run
    began = datetime.now(UTC)
    judge(store, plan, lines[0])
    publish(store, plan, lines[0])
    rows = [row for row in rows_of(store, plan) if row["score"] in NEW]
    assert {row["scorer"] for row in rows} == {"dinov2-small"}
    assert all(row["scored_at"] >= began and np.isfinite(row["value"]) for row in rows)
