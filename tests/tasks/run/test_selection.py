"""Parts of a plan, and what a status says of it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from blora.settings.resolve import resolve
from manifests import layout
from manifests.faults import Fault
from manifests.store.store import Store
from manifests.tables.parquet import to_parquet_bytes, to_table
from manifests.tables.run import FAULTS, PLAN
from tasks.closing.status import full_status, list_runs
from tasks.errors import fault_row
from tasks.planning.group import plan_rows
from tasks.run.plan import Pack, Plan, PlannedAdapter, PlannedSample, RunInfo, Shard
from tasks.run.selection import given_up, select


def sample(content: str, style: str, seed: int) -> PlannedSample:
    return PlannedSample(f"{content}-{style}-{seed}", content, style, content, style, "", "p", None, "", 1.0, 1.0, seed)


@pytest.fixture
def plan() -> Plan:
    """Contents a and b, styles x and y, seeds 0 and 1."""
    run = RunInfo("night-1", "night", "m", "embedded", "r", resolve("demo"), "linear", "record", datetime.now(UTC))
    adapters = tuple(PlannedAdapter(name, name, name, (f"{name}-image",)) for name in "abxy")
    rows = [tuple(sample(c, s, n) for s in "xy" for n in (0, 1)) for c in "ab"]
    shards = tuple(Shard(f"shard-{number}", number, (row,)) for number, row in enumerate(rows))
    return Plan(run, (Pack("pack", 0, adapters),), shards)


def failed(item: str, transient: bool = False) -> Fault:
    return Fault("train", "diverged", "nan", "a number", "lower it", item=item, transient=transient)


def test_no_condition_selects_everything(plan: Plan) -> None:
    chosen = select(plan, (), ())
    assert chosen.samples == {one.sample_id for one in plan.samples} and chosen.adapters == set("abxy")


def test_conditions_on_one_field_are_alternatives_and_on_two_must_both_hold(plan: Plan) -> None:
    assert select(plan, ("style=x",), ()).samples == {"a-x-0", "a-x-1", "b-x-0", "b-x-1"}
    assert select(plan, ("style=x", "style=y"), ()).samples == select(plan, (), ()).samples
    chosen = select(plan, ("style=x", "content=b", "seed=1"), ())
    assert chosen.samples == {"b-x-1"} and chosen.adapters == {"b", "x"}


def test_faults_selects_what_failed_and_what_needs_it(plan: Plan) -> None:
    chosen = select(plan, ("faults",), [failed("y"), failed("a-x-0")])
    assert chosen.samples == {"a-y-0", "a-y-1", "b-y-0", "b-y-1", "a-x-0"}
    assert select(plan, ("faults",), ()).samples == frozenset()


@pytest.mark.parametrize(
    ("condition", "message"),
    [("style", "accepted: faults, content=NAME"), ("colour=red", "received 'colour=red'"), ("style=", "received")],
)
def test_an_unknown_condition_is_refused(plan: Plan, condition: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        select(plan, (condition,), ())


def test_a_name_that_the_run_has_not_is_refused_with_those_it_has(plan: Plan) -> None:
    with pytest.raises(ValueError, match="received z; the run has: x, y"):
        select(plan, ("style=z",), ())


def test_only_permanent_faults_are_given_up(plan: Plan) -> None:
    assert given_up([failed("x"), failed("y", transient=True), failed("")]) == {"x"}


def test_status_says_who_is_at_work_what_is_left_and_where_the_log_is(plan: Plan, tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    store.replace(layout.run_key("night-1", "run.json"), plan.run.to_json(state="faults"))
    store.replace(layout.run_key("night-1", "plan.parquet"), to_parquet_bytes(to_table(plan_rows(plan), PLAN)))
    faults = to_table([fault_row(failed("y"), "night-1")], FAULTS)
    store.replace(layout.run_key("night-1", "faults.parquet"), to_parquet_bytes(faults))
    store.replace(layout.training_log_key("night-1", "pack"), b"{}")
    for adapter_id in "abx":
        for key in layout.adapter_keys(adapter_id):
            store.replace(key, b"there")
    store.replace(plan.samples[0].key, b"there")
    quiet = full_status(store, "night-1")
    assert (quiet.state, quiet.at_work) == ("incomplete", ())
    assert [state for _, state, *_ in list_runs(store)] == ["incomplete"]
    assert str(quiet.left) == "1 adapter to train (y), 7 pictures to draw, 1 to score"
    assert quiet.logs == {"y": f"{tmp_path}/runs/night-1/logs/pack.jsonl"}
    at_work = {
        layout.run_lease_key("night-1"): "night-1: box, process 1, since noon",
        layout.lease_key("y"): "other-run: gpu-7, process 2, since one",
        layout.shard_lease_key("f1"): "night-1: gpu-8, process 3, since two",
        layout.shard_lease_key("f2"): "other-run: gpu-9, process 4, since two",
    }
    for key, holder in at_work.items():
        assert store.acquire_lease(key, holder, 60)
    lapsed = store.acquire_lease(layout.lease_key("a"), "night-1: gone", 60)
    assert lapsed is not None
    lapsed.release()
    busy = full_status(store, "night-1")
    assert busy.state == "at work"
    assert [state for _, state, *_ in list_runs(store)] == ["at work"]
    assert {(one.what, one.who) for one in busy.at_work} == {
        ("the run", "box, process 1, since noon"),
        ("training y (for run other-run)", "gpu-7, process 2, since one"),
        ("a shard", "gpu-8, process 3, since two"),
    }
