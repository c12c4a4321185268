"""Who is waited for, and how a person who knows better ends the waiting."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from manifests import layout
from manifests.store.store import Store
from tasks.closing.status import full_status, list_runs
from tasks.run.heartbeat import at_work, here, process_mark, take_lease, take_over, waiting_for
from tasks.run.plan import Plan
from tests.made_run import finish, plan_run

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


def test_who_is_at_work_is_told_in_the_order_of_the_plan_and_not_of_ids(tmp_path: Path) -> None:
    store, plan = plan_run(tmp_path, ["apple", "bird", "cat"], ["wave", "sand", "ink"])
    leased(store, plan)
    names = [adapter.name for adapter in plan.adapters]
    assert len(names) == 6 and sorted(plan.adapters, key=lambda one: one.adapter_id) != list(plan.adapters)
    with at_work(store, layout.run_lease_key(plan.run.run_id), plan.run.run_id):
        shown = [one.what.partition(" (")[0] for one in full_status(store, plan.run.run_id).at_work]
        assert shown == ["the run", *(f"training {name}" for name in names)]
        taken = [line.split(" from ")[0] for line in take_over(store, plan)]
    assert taken == [*(f"took over the training of {name}" for name in names), f"took over run {plan.run.run_id}"]


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


def test_a_run_whose_process_is_gone_is_interrupted_and_a_live_one_says_how_far_it_is(tmp_path: Path) -> None:
    store, plan = plan_run(tmp_path, ["apple"], ["wave"])
    run_id = plan.run.run_id
    key = layout.run_lease_key(run_id)

    def seen() -> tuple[str, str]:
        ((_, state, _, outcome),) = list_runs(store)
        status = full_status(store, run_id)
        assert status.state == state and (status.doing in outcome or not status.doing)
        return state, status.doing

    assert seen() == ("interrupted", ""), "planned, and nobody is there"
    with at_work(store, key, run_id, lambda: "3 of 9 steps; about 4 min left"):
        assert seen() == ("at work", "")
        lease = json.loads(store.read(key))
        store.replace(key, json.dumps(lease | {"doing": "3 of 9 steps; about 4 min left"}).encode())
        assert seen() == ("at work", "3 of 9 steps; about 4 min left")
    assert store.acquire_lease(key, f"{run_id}: {here()}", 600, mark_of_the_dead())
    assert seen() == ("interrupted", ""), "its lease has minutes left, and its process is gone"
    finish(store, plan)
    assert seen() == ("interrupted", ""), "it was killed while it was taken up again"
    assert store.break_lease(key)
    assert seen() == ("finished", "")
    (tmp_path / "store" / plan.samples[0].key).unlink()
    assert full_status(store, run_id).state == "incomplete"


def test_whoever_takes_up_a_run_leaves_no_lease_of_who_was_killed_at_it(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    for run, mark, seconds in (("here", mark_of_the_dead(), 600.0), ("elsewhere", "", 0.5)):
        key = layout.run_lease_key(run)
        assert store.acquire_lease(key, f"{run}: far-away, process 1, since long ago", seconds, mark)
        with at_work(store, key, run):
            held = store.look_at_lease(key)
            assert held is not None and (str(os.getpid()) in held.holder) == (run == "here")
            time.sleep(0.7)
        held = store.look_at_lease(key)
        assert held is not None and held.expires_at == 0, "released"


@contextmanager
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """Another process of this machine, which goes on until it is killed."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def mark_of_the_dead() -> str:
    """The mark of a process that was killed, and collected by whoever started it."""
    with sleeper() as process:
        mark = process_mark(process.pid)
    assert mark
    return mark


def test_a_lease_of_a_process_that_was_killed_here_is_taken_at_once(root: str) -> None:
    store, key = Store.open(root), layout.lease_key("adapter")
    with sleeper() as process:
        assert store.acquire_lease(key, "run: gpu-1, process 7", 600, process_mark(process.pid))
        assert take_lease(store, key, "me") is None, "it is alive"
        process.kill()
        deadline = time.monotonic() + 30
        while (lease := take_lease(store, key, "me")) is None:  # killed, and nobody has collected it yet
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert lease.renew()
    held = store.look_at_lease(key)
    assert held is not None and held.holder == "me" and held.process == process_mark()
    assert take_lease(store, key, "another") is None


def test_a_process_id_that_was_given_again_is_not_taken_for_its_old_owner(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    boot, space, pid, started = process_mark().split(" ")
    for name, mark, is_free in (
        ("given-again", f"{boot} {space} {pid} {int(started) - 1}", True),
        ("this-one", process_mark(), False),
        ("another-boot", f"{boot[::-1]} {space} 99999999 1", False),
        ("a-container", f"{boot} pid:[1] 99999999 1", False),
        ("unknown", "", False),
        ("damaged", f"{boot} {space} x 1", False),
    ):
        assert store.acquire_lease(layout.lease_key(name), "somebody", 600, mark)
        assert (take_lease(store, layout.lease_key(name), "me") is not None) is is_free, name


def test_who_comes_second_does_not_break_the_lease_of_who_came_first(tmp_path: Path) -> None:
    store, key = Store.open(str(tmp_path)), layout.lease_key("adapter")
    assert store.acquire_lease(key, "dead", 600, mark_of_the_dead())
    seen = store.look_at_lease(key)
    first = take_lease(store, key, "first")
    assert first is not None and seen is not None
    assert store.break_lease(key, seen) is None, "it was of another holding"
    assert first.renew() and take_lease(store, key, "second") is None


def test_what_a_holder_is_at_is_written_with_each_renewal(tmp_path: Path) -> None:
    store, said = Store.open(str(tmp_path)), iter(["a", "b"])
    lease = store.acquire_lease(layout.run_lease_key("r"), "me", 60)
    assert lease is not None
    lease.doing = lambda: next(said)
    for expected in ("a", "b"):
        assert lease.renew()
        held = store.look_at_lease(lease.key)
        assert held is not None and (held.holder, held.doing) == ("me", expected)
