"""Housekeeping on both kinds of store: what goes, what stays, and what a live lease protects."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from blora.settings.resolve import resolve
from manifests import layout
from manifests.store.store import Store
from manifests.tables.parquet import to_parquet_bytes, to_table
from manifests.tables.run import PLAN
from tasks.operations import gc
from tasks.planning.group import plan_rows
from tasks.run.plan import Pack, Plan, PlannedAdapter, PlannedSample, RunInfo, Shard

DAY = timedelta(days=1)


def plan_of(run_id: str, name: str) -> Plan:
    """A plan of one adapter, on one image, and one picture of it in its own style; all named after `name`."""
    run = RunInfo(run_id, name, "m.json", "embedded", "r", resolve("demo"), "linear", "record", datetime.now(UTC))
    adapter = PlannedAdapter(f"{name}-adapter", name, name, (f"{name}-image",))
    sample = PlannedSample(
        f"{name}-sample", adapter.adapter_id, adapter.adapter_id, name, name, "", "p", None, "", 1.0, 1.0, 0
    )
    return Plan(run, (Pack("pack", 0, (adapter,)),), (Shard("shard", 0, ((sample,),)),))


def publish(store: Store, plan: Plan) -> None:
    run_id = plan.run.run_id
    store.replace(layout.run_key(run_id, "run.json"), plan.run.to_json(state="finished"))
    store.replace(layout.run_key(run_id, "plan.parquet"), to_parquet_bytes(to_table(plan_rows(plan), PLAN)))
    store.replace(layout.scores_part_key(datetime.now(UTC).date(), run_id, "0"), b"scores")


def make(store: Store, plan: Plan) -> list[str]:
    """Everything that the plan's work leaves, and the keys of that."""
    adapter, sample = plan.adapters[0], plan.samples[0]
    keys = [*layout.adapter_keys(adapter.adapter_id), sample.key, layout.image_key(adapter.image_ids[0])]
    for key in keys:
        store.replace(key, key.encode())
    return keys


@pytest.fixture
def store(root: str) -> Store:
    return Store.open(root)


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Move this process's clock, and so the age of all that is there, by some days."""

    def move(days: float) -> None:
        class Clock(datetime):
            @classmethod
            def now(cls, tz: Any = None) -> datetime:
                return datetime.now(tz) + timedelta(days=days)

        monkeypatch.setattr(gc, "datetime", Clock)

    return move


def kinds(found: gc.Removable) -> dict[str, tuple[str, ...]]:
    return {waste.kind: waste.names for waste in found.waste}


def delete(store: Store, found: gc.Removable) -> int:
    return sum(number for _, number in gc.delete_waste(store, found))


def test_only_what_no_run_refers_to_goes_and_only_when_it_is_old(store: Store, later: Any) -> None:
    used, unused = plan_of("run-a", "used"), plan_of("run-b", "unused")
    publish(store, used)
    kept, dropped = make(store, used), make(store, unused)
    assert gc.find_waste(store, 30 * DAY).waste == ()
    later(31)
    found = gc.find_waste(store, 30 * DAY)
    assert kinds(found) == {
        "adapters": ("unused-adapter",), "pictures": ("unused-sample",), "inputs": ("unused-image",)
    }  # fmt: skip
    assert sum(waste.bytes for waste in found.waste) == sum(len(key) for key in dropped)
    assert set(dropped) <= store.list("").keys(), "finding deletes nothing"
    assert delete(store, found) == 5
    assert not set(dropped) & store.list("").keys()
    assert set(kept) <= store.list("").keys()
    assert gc.find_waste(store, 30 * DAY).waste == ()


def test_a_live_lease_protects_its_adapter(store: Store, later: Any) -> None:
    keys = make(store, plan_of("run-b", "unused"))
    lease = store.acquire_lease(layout.lease_key("unused-adapter"), "somebody", 3600)
    assert lease is not None
    later(31)
    found = gc.find_waste(store, 30 * DAY)
    assert "adapters" not in kinds(found) and "leases" not in kinds(found)
    lease.release()
    found = gc.find_waste(store, 30 * DAY)
    assert kinds(found)["adapters"] == ("unused-adapter",)
    assert kinds(found)["leases"] == ("unused-adapter",)
    again = store.acquire_lease(layout.lease_key("unused-adapter"), "somebody else", 3600)
    assert again is not None
    delete(store, found)  # taken between the look and the deletion
    assert set(keys[:3]) <= store.list("").keys()
    assert again.renew(), "its lease is untouched"


def test_what_a_run_planned_in_the_meantime_needs_stays(store: Store, later: Any) -> None:
    plan = plan_of("run-b", "late")
    keys = make(store, plan)
    later(31)
    found = gc.find_waste(store, 30 * DAY)
    publish(store, plan)
    assert delete(store, found) == 0
    assert set(keys) <= store.list("").keys()


def test_what_a_run_needs_whose_planning_ended_in_the_meantime_stays(store: Store, later: Any) -> None:
    """It was half planned when waste was looked for: its run.json was there, its plan was not."""
    plan = plan_of("run-b", "late")
    keys = make(store, plan)
    store.replace(layout.run_key("run-b", "run.json"), plan.run.to_json(state="planned"))
    later(31)
    found = gc.find_waste(store, 30 * DAY)
    publish(store, plan)
    assert delete(store, found) == 0
    assert set(keys) <= store.list("").keys()


def test_what_a_review_asks_for_in_the_meantime_stays(store: Store, later: Any) -> None:
    plan, further = plan_of("run-a", "used"), plan_of("run-a", "further")
    publish(store, plan)
    make(store, plan)
    sample = make(store, further)[3]
    later(31)
    found = gc.find_waste(store, 30 * DAY)
    redo = to_parquet_bytes(to_table(plan_rows(Plan(plan.run, (), further.shards)), PLAN))
    store.write_once(layout.redo_prefix("run-a") + "asked.parquet", redo)
    delete(store, found)
    assert sample in store.list("").keys()


def test_an_old_run_that_was_taken_up_in_the_meantime_stays_with_what_it_needs(store: Store, later: Any) -> None:
    """The lease is released again: that something was written shows it."""
    plan = plan_of("run-a", "old")
    publish(store, plan)
    keys = make(store, plan)
    later(100)
    found = gc.find_waste(store, 30 * DAY, 90 * DAY)
    assert kinds(found)["runs"] == ("run-a",)
    store.replace(layout.run_key("run-a", "run.json"), plan.run.to_json(state="faults"))
    there = store.list("")
    assert delete(store, found) == 0
    assert store.list("") == there and set(keys) <= there.keys()


def test_an_old_run_that_is_at_work_again_keeps_what_it_needs(store: Store, later: Any) -> None:
    plan = plan_of("run-a", "old")
    publish(store, plan)
    make(store, plan)
    later(100)
    found = gc.find_waste(store, 30 * DAY, 90 * DAY)
    assert store.acquire_lease(layout.run_lease_key("run-a"), "somebody", 3600) is not None
    there = store.list(layout.ADAPTERS_PREFIX)
    delete(store, found)
    assert store.list(layout.ADAPTERS_PREFIX) == there


def test_old_runs_go_with_what_only_they_needed(store: Store, later: Any) -> None:
    plan = plan_of("run-a", "old")
    publish(store, plan)
    make(store, plan)
    later(100)
    assert gc.find_waste(store, 30 * DAY).waste == ()
    found = gc.find_waste(store, 30 * DAY, 90 * DAY)
    assert kinds(found)["runs"] == ("run-a",)
    assert next(iter(found.waste[0].keys)).endswith("plan.parquet"), "the marker of a run goes first"
    delete(store, found)
    assert store.list("") == {}


def test_a_run_that_somebody_works_on_stays(store: Store, later: Any) -> None:
    plan = plan_of("run-a", "old")
    publish(store, plan)
    assert store.acquire_lease(layout.run_lease_key("run-a"), "somebody", 3600) is not None
    later(100)
    assert "runs" not in kinds(gc.find_waste(store, 30 * DAY, 90 * DAY))


def test_an_age_in_which_a_run_may_be_being_planned_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="accepted: a day or more"):
        gc.find_waste(store, timedelta(hours=3))
