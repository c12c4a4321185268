"""Who is waited for, and how a person who knows better ends the waiting."""

from __future__ import annotations

import json
import time
from pathlib import Path

from manifests import layout
from manifests.store.store import Store
from tasks.closing.status import full_status
from tasks.run.heartbeat import at_work, take_over, waiting_for
from tasks.run.plan import Plan
from tests.made_run import plan_run

YEARS = 10 * 365 * 86400


def leased(store: Store, plan: Plan, holder: str = "other-run: gpu\n7, process 2, since one") -> list[str]:
    """Have every adapter of a plan leased by somebody whose clock stands ten years ahead."""
    keys = [layout.lease_key(adapter.adapter_id) for adapter in plan.adapters]
    for key in keys:
        assert store.acquire_lease(key, holder, 60)
        store.replace(key, json.dumps(json.loads(store.read(key)) | {"expires_at": time.time() + YEARS}).encode())
    return keys


def test_waiting_says_for_what_for_whom_and_until_when(tmp_path: Path) -> None:
    store, plan = plan_run(tmp_path, ["apple"], ["wave"])
    leased(store, plan)
    doing, until = waiting_for(store, plan.adapters)
    held = "held by other-run: gpu\\n7, process 2, since one"
    assert doing == f"waits for 2 adapters that another run trains: apple, wave: {held}"
    in_a_minute = {time.strftime("%H:%M", time.gmtime(time.time() + seconds)) for seconds in (55, 60)}
    assert until.startswith("until ") and until[6:11] in in_a_minute
    shown = full_status(store, plan.run.run_id).at_work
    assert [(one.what, one.who) for one in shown] == [
        (f"training {name} (for run other-run)", "gpu\\n7, process 2, since one") for name in ("apple", "wave")
    ]
    assert all(one.until[6:11] in in_a_minute for one in shown)


def test_taking_over_frees_what_the_run_needs_and_nothing_else(tmp_path: Path) -> None:
    store, plan = plan_run(tmp_path, ["apple"], ["wave"])
    keys = leased(store, plan)
    other = store.acquire_lease(layout.lease_key("not-of-this-run"), "somebody", 600)
    assert other is not None
    run_key = layout.run_lease_key(plan.run.run_id)
    with at_work(store, run_key, plan.run.run_id):
        taken = take_over(store, plan)
        assert len(taken) == 3 and all(line.isprintable() for line in taken)
        assert sorted(line.split(" from ")[0] for line in taken) == [
            f"took over run {plan.run.run_id}", "took over the training of apple", "took over the training of wave"
        ]  # fmt: skip
        assert take_over(store, plan) == []
        for key in (*keys, run_key):
            assert store.acquire_lease(key, "me", 60)
    assert other.renew()
    held = store.look_at_lease(run_key)
    assert held is not None and held.holder == "me", "who was taken over from has freed what is another's now"
