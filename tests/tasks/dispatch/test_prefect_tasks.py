"""Several items in one task: what the items before an accident have cost is not lost when the task is retried."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tasks.dispatch.prefect_tasks import POOL, RETRIES, _in_slot
from tasks.dispatch.slots import SlotPool
from tasks.errors import SlotDied
from tasks.messages import TrainAnswer, TrainPack


def test_a_retried_task_counts_what_it_made_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLORA_SLOT_MODULE", "tests.forgetful_slot")
    jobs = {name: TrainPack("r", name) for name in ("a", "b", "c")}
    with SlotPool(["cpu", "cpu"], str(tmp_path)) as pool:
        token = POOL.set(pool)
        try:
            with pytest.raises(SlotDied):
                _in_slot(jobs)
            said: Any = _in_slot(jobs)
            again: Any = _in_slot(jobs)
        finally:
            POOL.reset(token)
    assert said.answers == {
        "0 cpu": TrainAnswer(trained=("a",), train_seconds=2.0),
        "1 cpu": TrainAnswer(trained=("b", "c"), train_seconds=4.0),
    }
    assert again.answers == {"0 cpu": TrainAnswer()}, "counted twice"


def test_a_task_without_tries_left_tries_every_item(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLORA_SLOT_MODULE", "tests.forgetful_slot")
    monkeypatch.setenv("PREFECT__RUNTIME__TASK_RUN__RUN_COUNT", str(1 + RETRIES))
    jobs = {name: TrainPack("r", name) for name in ("a", "b", "c")}
    with SlotPool(["cpu"], str(tmp_path)) as pool:
        token = POOL.set(pool)
        try:
            state: Any = _in_slot(jobs)
        finally:
            POOL.reset(token)
        outcome = state.data
        assert outcome.answers == {"0 cpu": TrainAnswer(trained=("a", "c"), train_seconds=4.0)}, "c was not tried"
        assert list(outcome.failed) == ["b"] and outcome.failed["b"].may_pass
        assert "exit code 9" in outcome.failed["b"].message
        assert pool.unclaimed == {}


def test_a_task_that_fails_for_good_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLORA_SLOT_MODULE", "tests.forgetful_slot")
    monkeypatch.setenv("PREFECT__RUNTIME__TASK_RUN__RUN_COUNT", str(1 + RETRIES))
    with SlotPool(["cpu"], str(tmp_path)) as pool:
        token = POOL.set(pool)
        try:
            with pytest.raises(SlotDied):
                _in_slot({"b": TrainPack("r", "b")})
        finally:
            POOL.reset(token)
        assert pool.unclaimed == {}
