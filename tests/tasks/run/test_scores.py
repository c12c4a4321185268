"""Scores as a reader of the data set sees them: a run's rows once, before, during and after its parts are compacted."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pytest

from blora.settings.resolve import resolve
from manifests import layout
from manifests.store.store import Store
from manifests.tables.parquet import to_parquet_bytes, to_table
from manifests.tables.run import PLAN, SCORES
from tasks.closing.collect import close_run
from tasks.planning.group import plan_rows
from tasks.run.inventory import take_inventory
from tasks.run.plan import Pack, Plan, PlannedAdapter, PlannedSample, RunInfo, Shard, published_scores_key, scores_key
from tasks.run.scores import publish_scores, read_scores
from tests.made_run import record_reads
from tests.processes import reading
from tests.tasks.conftest import compact

SHARDS = 6


@pytest.fixture
def store(root: str) -> Store:
    return Store.open(root)


def planned_run(store: Store) -> Plan:
    """A run of one adapter in its own style with `SHARDS` seeds, a shard each."""
    run = RunInfo("run-a", "n", "m.json", "embedded", "r", resolve("demo"), "linear", "record", datetime.now(UTC))
    adapter = PlannedAdapter("adapter", "a", "a", ("image",))
    samples = [
        PlannedSample(f"sample-{n}", "adapter", "adapter", "a", "a", "", "p", None, "", 1.0, 1.0, n)
        for n in range(SHARDS)
    ]
    shards = tuple(Shard(f"shard-{n}", n, ((sample,),)) for n, sample in enumerate(samples))
    plan = Plan(run, (Pack("pack", 0, (adapter,)),), shards)
    store.replace(layout.run_key("run-a", "run.json"), run.to_json(state="finished"))
    store.replace(layout.run_key("run-a", "plan.parquet"), to_parquet_bytes(to_table(plan_rows(plan), PLAN)))
    return plan


def score(store: Store, plan: Plan, shard: Shard, value: float = 0.5) -> None:
    """Write the part of a shard."""
    rows = [
        {"run_id": plan.run.run_id, "sample_id": s.sample_id, "content_id": s.content_id, "style_id": s.style_id,
         "content_name": "a", "style_name": "a", "seed": s.seed, "score": "transfer", "value": value,
         "scorer": "stub", "scorer_version": "1", "scored_at": plan.run.created_at}
        for s in shard.samples
    ]  # fmt: skip
    store.replace(scores_key(plan.run, shard), to_parquet_bytes(to_table(rows, SCORES)))


def close(store: Store, plan: Plan) -> None:
    publish_scores(store, plan.run, read_scores(store, plan.run))


def parts(store: Store) -> int:
    return len(store.list(layout.shard_scores_prefix("run-a")))


def test_many_parts_become_one_object_and_no_row_is_lost(store: Store, tomorrow: None) -> None:
    plan = planned_run(store)
    for shard in plan.shards:
        score(store, plan, shard)
    assert store.list(layout.SCORES_PREFIX) == {}, "a run that was not closed is not in the data set"
    before = read_scores(store, plan.run).table
    assert compact(store) == [], "nothing is compacted that was not published"
    close(store, plan)
    assert compact(store) == ["run-a"]
    assert parts(store) == 0 and len(store.list(layout.SCORES_PREFIX)) == 1
    after = read_scores(store, plan.run).table
    assert after.num_rows == SHARDS
    assert after.equals(before)


def test_rows_that_came_after_the_last_closing_keep_their_parts(store: Store, tomorrow: None) -> None:
    plan = planned_run(store)
    for shard in plan.shards[:-1]:
        score(store, plan, shard)
    close(store, plan)
    score(store, plan, plan.shards[-1])
    assert compact(store) == []
    assert parts(store) == SHARDS
    close(store, plan)
    assert compact(store) == ["run-a"]


def test_a_part_that_is_written_anew_counts_before_the_published_object(store: Store, tomorrow: None) -> None:
    plan = planned_run(store)
    for shard in plan.shards:
        score(store, plan, shard)
    close(store, plan)
    compact(store)
    score(store, plan, plan.shards[0], value=0.25)  # as a rerun does that draws a deleted picture again
    rows = read_scores(store, plan.run).table.to_pylist()
    values = {row["sample_id"]: row["value"] for row in rows}
    assert len(values) == len(rows) == SHARDS
    assert values["sample-0"] == 0.25 and values["sample-1"] == 0.5


def test_of_a_closed_run_one_object_is_read_and_the_parts_that_came_since(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned_run(store)
    for shard in plan.shards:
        score(store, plan, shard)
    close(store, plan)
    asked = record_reads(monkeypatch, store)
    assert read_scores(store, plan.run).table.num_rows == SHARDS
    assert asked == [published_scores_key(plan.run)]
    score(store, plan, plan.shards[3], value=0.125)
    asked.clear()
    rows = read_scores(store, plan.run).table.to_pylist()
    assert asked == [published_scores_key(plan.run), scores_key(plan.run, plan.shards[3])]
    assert [row["sample_id"] for row in rows if row["value"] == 0.125] == ["sample-3"] and len(rows) == SHARDS


def test_a_young_run_and_one_that_somebody_works_on_are_left_alone(
    store: Store, request: pytest.FixtureRequest
) -> None:
    plan = planned_run(store)
    score(store, plan, plan.shards[0])
    close(store, plan)
    assert compact(store) == []
    request.getfixturevalue("tomorrow")
    lease = store.acquire_lease(layout.run_lease_key("run-a"), "somebody", 3600)
    assert lease is not None
    assert compact(store) == []
    lease.release()
    assert compact(store) == ["run-a"]


def test_closing_a_run_publishes_its_scores(store: Store) -> None:
    plan = planned_run(store)
    score(store, plan, plan.shards[0])
    close_run(store, plan, take_inventory(store, plan))
    (key,) = store.list(layout.SCORES_PREFIX)
    assert key == layout.scores_part_key(plan.run.created_at.date(), "run-a", "0")


READER = """
import json, select, sys, duckdb
from manifests.store.store import Store
from tasks.run.plan import load_plan
from tasks.run.scores import read_scores
pattern, root, run_id = sys.argv[1:]
store, seen = Store.open(root), []
plan = load_plan(store, run_id)
print("ready", flush=True)
sys.stdin.readline()
while not select.select([sys.stdin], [], [], 0)[0]:
    try:
        rows = duckdb.sql(f"select count(*) from '{pattern}'").fetchall()[0][0]
    except duckdb.IOException as error:
        assert "No files found" in str(error), error
        rows = 0
    seen.append((rows, read_scores(store, plan.run).table.num_rows))
counts = {"looks": len(seen), "globbed": sorted({a for a, _ in seen}), "product": sorted({b for _, b in seen})}
print(json.dumps(counts), flush=True)
"""


def test_a_reader_that_globs_sees_all_rows_or_none_while_parts_come_and_go(tmp_path: Path, tomorrow: None) -> None:
    """A second process reads with DuckDB and with the product's reader while this one closes, compacts and rescores."""
    store = Store.open(str(tmp_path / "store"))
    plan = planned_run(store)
    for shard in plan.shards:
        score(store, plan, shard)
    with reading(READER, f"{store.root}/scores/**/*.parquet", store.root, "run-a") as end:
        deadline, rounds = time.monotonic() + 4, 0
        while time.monotonic() < deadline:
            close(store, plan)
            assert compact(store) == ["run-a"]
            for shard in plan.shards:
                score(store, plan, shard)
            rounds += 1
        said = end()
    assert rounds >= 3 and said["looks"] >= 10, said
    assert set(said["globbed"]) <= {0, SHARDS} and SHARDS in said["globbed"], "0: before the first closing"
    assert said["product"] == [SHARDS]


def test_the_glob_of_the_readme_reads_the_data_set(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"))
    plan = planned_run(store)
    for shard in plan.shards:
        score(store, plan, shard)
    close(store, plan)
    found = duckdb.sql(f"select count(*), avg(value) from '{store.root}/scores/**/*.parquet'").fetchall()
    assert found == [(SHARDS, 0.5)]
