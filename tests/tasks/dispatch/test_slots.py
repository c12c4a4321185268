"""Slots: real child processes, really killed."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.dispatch.slot import Slot
from tasks.dispatch.slots import SlotPool, slot_figures
from tasks.errors import JobFailed, SlotDied, SlotStalled, is_transient, may_pass
from tasks.messages import ScoreShard, TrainAnswer, TrainPack
from tasks.progress import Event

REFUSED = ScoreShard("none", "s")
"""A job that fails at once: there is no such run."""


def wait_for_exit(pid: int, timeout_seconds: float) -> bool:
    """Whether the process is gone within the time."""
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


@pytest.fixture(scope="module")
def slot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slot]:
    """A slot on the CPU with an empty store; a child lives until a test kills it, because each start is dear."""
    one = Slot("cpu", str(tmp_path_factory.mktemp("store")), stall_timeout_seconds=600)
    yield one
    one.stop()


def test_an_error_in_the_child_comes_back_with_its_name_and_verdict(slot: Slot) -> None:
    """A run that is not there is permanent, and the child lives on."""
    with pytest.raises(JobFailed, match="no run yet") as caught:
        slot.call(TrainPack("none", "p"))
    assert caught.value.error_class == "RunNotFound" and not is_transient(caught.value)
    pid = slot.pid
    with pytest.raises(JobFailed):
        slot.call(REFUSED)
    assert slot.pid == pid


def test_a_killed_child_is_a_transient_failure_and_the_next_job_has_a_new_one(slot: Slot) -> None:
    with pytest.raises(JobFailed):
        slot.call(REFUSED)
    first = slot.pid
    assert first is not None
    os.kill(first, signal.SIGSTOP)  # so that the next job is surely in flight when the child dies
    threading.Timer(0.5, os.kill, (first, signal.SIGKILL)).start()
    with pytest.raises(SlotDied, match="SIGKILL") as caught:
        slot.call(REFUSED)
    assert is_transient(caught.value)
    with pytest.raises(JobFailed):
        slot.call(REFUSED)
    assert slot.pid not in (None, first)


def test_a_silent_child_is_ended(slot: Slot, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(JobFailed):
        slot.call(REFUSED)
    pid = slot.pid
    assert pid is not None
    monkeypatch.setattr(slot, "stall_timeout_seconds", 0.5)
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(SlotStalled, match=r"silent for 0\.5 s"):
        slot.call(REFUSED)
    assert wait_for_exit(pid, 5)


def test_an_answer_whose_caller_went_away_is_not_given_to_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BLORA_SLOT_MODULE", "tests.chatty_slot")
    slot = Slot("cpu", str(tmp_path), stall_timeout_seconds=600)

    def broken(event: Event) -> None:
        raise BrokenPipeError("whoever listened")

    with pytest.raises(BrokenPipeError, match="whoever listened"):
        slot.call(TrainPack("r", "a"), broken)
    pid, heard = slot.pid, list[Event]()
    assert slot.call(TrainPack("r", "b"), heard.append) == TrainAnswer(trained=("b",))
    assert [(event["id"], event["done"]) for event in heard] == [("b", 1), ("b", 2)] and slot.pid == pid
    slot.stop()


def test_a_pool_never_hands_one_slot_to_two(tmp_path: Path) -> None:
    in_use: list[int] = []
    most: list[int] = []

    def work(pool: SlotPool) -> None:
        with pool.borrow() as slot:
            in_use.append(id(slot))
            most.append(len(in_use))
            assert in_use.count(id(slot)) == 1
            time.sleep(0.02)
            in_use.remove(id(slot))

    with SlotPool(["cpu", "cpu"], str(tmp_path)) as pool:
        threads = [threading.Thread(target=work, args=(pool,)) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert max(most) == 2


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (ConnectionResetError(), True),
        (TimeoutError(), True),
        (ValueError("bug"), False),
        (JobFailed("OutOfMemoryError", "", False), False),
        (JobFailed("TransientStoreError", "", True), True),
    ],
)
def test_which_errors_are_worth_another_try(error: Exception, transient: bool) -> None:
    assert is_transient(error) is transient


def test_where_there_are_gpus_scoring_has_a_slot_of_its_own(tmp_path: Path) -> None:
    """No child starts before its first job, so that a machine without GPUs can look at the layout."""
    with SlotPool(["cuda:0", "cuda:1"], str(tmp_path)) as pool:
        assert pool.beside == 1
        with pool.borrow() as first, pool.borrow() as second, pool.borrow(beside=True) as scoring:
            assert (first.name, second.name) == ("0 cuda:0", "1 cuda:1")
            assert (scoring.name, scoring.device) == ("scoring cpu", "cpu")
    with SlotPool(["cpu"], str(tmp_path)) as pool:
        assert pool.beside == 0
        with pool.borrow(beside=True) as only:
            assert only.name == "0 cpu"


def test_what_a_slot_did_is_reckoned_from_its_answers() -> None:
    spent = {"train_seconds": 30.0, "trained": 2, "busy_seconds": 45.0}
    figures = slot_figures("0 cpu", spent, 60.0)
    assert (figures["busy_share"], figures["adapters"], figures["adapters_per_hour"]) == (0.75, 2, 240.0)
    assert figures["pictures_per_hour"] is None and figures["pictures"] == 0


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (JobFailed("PermanentStoreError", "No space left on device", False), True),
        (JobFailed("TransientStoreError", "", True), True),
        (SlotDied(), True),
        (JobFailed("Missing", "", False), False),
        (JobFailed("OutOfMemoryError", "", False), False),
        (ValueError("bug"), False),
    ],
)
def test_a_failure_of_the_store_as_a_whole_is_not_held_against_the_item(error: Exception, passes: bool) -> None:
    assert may_pass(error) is passes
