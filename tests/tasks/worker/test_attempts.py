"""Checks and reseeding inside a slot, with real trainings of a tiny base: what is kept, named, told and resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from blora.checks.adapter_check import Verdict, best_attempt
from blora.errors import SettingsError
from manifests.tables.run import ADAPTERS, FAULTS
from tasks.closing.collect import close_run
from tasks.closing.status import full_status
from tasks.messages import Advance
from tasks.run.inventory import take_inventory
from tasks.worker import attempts
from tests.in_process import InProcessSlot
from tests.tiny import save_tiny_base

UNREACHABLE = {"attempts": 3, "steps": 2, "reconstruction_distance": 0}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny base; do not change it."""
    return save_tiny_base(tmp_path_factory.mktemp("base") / "tiny")


def test_a_check_that_is_only_told_changes_neither_ids_nor_bytes(tmp_path: Path, base: Path) -> None:
    off, told = (
        InProcessSlot(tmp_path / "off", base, {"attempts": 0}),
        InProcessSlot(tmp_path / "told", base, {"steps": 2, "reconstruction_distance": 200}),
    )
    assert off.train().faults == told.train().faults == ()
    assert off.halves() == told.halves() and len(told.halves()) == 4
    assert [marker["check"] for marker in off.markers()] == [None, None]
    for marker in told.markers():
        check = marker["check"]
        assert (check["attempt"], check["attempts"], check["passed"]) == (1, 1, True)
        assert 0 < check["measures"]["reconstruction_distance"] < 150 and len(check["measures"]) == 4
    close_run(told.store, told.plan, take_inventory(told.store, told.plan))
    rows = told.table("adapters", ADAPTERS)
    assert [row["passed"] for row in rows] == [True, True] and all(row["white_background"] is not None for row in rows)


def test_nothing_is_drawn_to_be_measured_where_nothing_judges_it(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A base that was never calibrated has no limits: a check would cost a GPU's time and pass or fail nobody."""
    checked: list[int] = []
    monkeypatch.setattr(attempts, "check_adapters", lambda *args, **more: checked.append(1))
    slot = InProcessSlot(tmp_path, base, {"steps": 2, "style_copy": 0.1})  # a limit of pictures alone
    assert slot.train().faults == () and not checked and [marker["check"] for marker in slot.markers()] == [None, None]


def test_attempts_and_limits_are_part_of_the_id(tmp_path: Path, base: Path) -> None:
    one, three, four, wider = (
        {adapter.adapter_id for adapter in InProcessSlot(tmp_path / str(number), base, check).plan.adapters}
        for number, check in enumerate(
            (None, UNREACHABLE, UNREACHABLE | {"attempts": 4}, UNREACHABLE | {"reconstruction_distance": 0.1})
        )
    )
    assert len(one | three | four | wider) == 8


def test_several_attempts_need_something_to_judge_by(tmp_path: Path, base: Path) -> None:
    with pytest.raises(SettingsError, match="nothing to judge by"):
        InProcessSlot(tmp_path, base, {"attempts": 2})


def test_what_never_passes_is_kept_at_its_best_and_is_a_fault(tmp_path: Path, base: Path, monkeypatch: Any) -> None:
    seen: list[list[float]] = []
    check = attempts.check_adapters

    def watched(*args: Any, **options: Any) -> list[Verdict]:
        verdicts = check(*args, **options)
        seen.append([verdict.measures["reconstruction_distance"] for verdict in verdicts])
        return verdicts

    monkeypatch.setattr(attempts, "check_adapters", watched)
    slot = InProcessSlot(tmp_path, base, UNREACHABLE)
    assert slot.train().faults == ()
    assert [len(row) for row in seen] == [2, 2, 2] and len({value for row in seen for value in row}) == 6
    for number, marker in enumerate(slot.markers()):
        distances = [row[number] for row in seen]
        assert marker["check"]["measures"]["reconstruction_distance"] == min(distances)
        assert marker["check"]["attempt"] == 1 + distances.index(min(distances))
        assert (marker["check"]["passed"], marker["check"]["failed"]) == (False, ["reconstruction_distance"])
        assert marker["settings"]["check"]["attempts"] == 3
    assert slot.store.list(f"runs/{slot.plan.run.run_id}/checkpoints/") == {}
    outcome = close_run(slot.store, slot.plan, take_inventory(slot.store, slot.plan))
    told = [row for row in slot.table("faults", FAULTS) if row["kind"] == "check"]
    assert {row["item"] for row in told} == {adapter.adapter_id for adapter in slot.plan.adapters}
    assert "none of 3 trainings of c0 passed its check; the best is kept" in {row["what"] for row in told}
    assert not outcome.complete
    assert full_status(slot.store, slot.plan.run.run_id).passed == "0 of 2 adapters"


def test_only_what_failed_is_trained_again_until_it_passes(tmp_path: Path, base: Path, monkeypatch: Any) -> None:
    first = InProcessSlot(tmp_path / "first", base, UNREACHABLE | {"attempts": 2, "reconstruction_distance": 0.001})
    passes: list[list[str]] = []
    check = attempts.check_adapters

    def judged(base_: Any, trained: Any, settings: Any, **options: Any) -> list[Verdict]:
        """The real check, but for c0's first training, which passes."""
        passes.append([adapter.metadata["key"] for adapter, _ in trained])
        verdicts = check(base_, trained, settings, **options)
        content = first.plan.adapters[0].adapter_id
        return [
            Verdict(verdict.measures, {"reconstruction_distance": 200.0})
            if adapter.metadata["key"] == content
            else verdict
            for verdict, (adapter, _) in zip(verdicts, trained, strict=True)
        ]

    monkeypatch.setattr(attempts, "check_adapters", judged)
    first.train()
    content, style = (adapter.adapter_id for adapter in first.plan.adapters)
    assert passes == [[content, style], [f"{style} attempt 2"]]
    assert first.markers()[0]["check"]["attempt"] == 1 and first.markers()[0]["check"]["passed"] is True


def test_a_slot_that_dies_in_a_further_attempt_ends_with_the_same_bytes(tmp_path: Path, base: Path) -> None:
    whole, broken = (
        InProcessSlot(tmp_path / "whole", base, UNREACHABLE),
        InProcessSlot(tmp_path / "broken", base, UNREACHABLE),
    )
    whole.train()
    attempt, last = 0, 0

    def die(advance: Advance) -> None:
        nonlocal attempt, last
        attempt, last = attempt + (advance.done <= last), advance.done
        if advance.kind == "train" and attempt == 1 and advance.done == advance.total:
            raise KeyboardInterrupt

    broken.session.emit = die
    with pytest.raises(KeyboardInterrupt):
        broken.train()
    left = broken.store.list(f"runs/{broken.plan.run.run_id}/checkpoints/")
    assert len(left) == 2 and broken.halves() == {}, "a checkpoint of each attempt, and no adapter yet"
    broken.session.emit = broken.note
    broken.train()
    assert broken.halves() == whole.halves()
    assert [m["check"] for m in broken.markers()] == [m["check"] for m in whole.markers()]
    assert whole.train().trained == (), "nothing is trained twice"


def test_the_first_that_passed_is_kept_else_the_fewest_defects_then_the_nearest() -> None:
    def verdict(distance: float, split: float) -> Verdict:
        limits = {"reconstruction_distance": 0.5, "split_image": 0.5}
        return Verdict({"reconstruction_distance": distance, "split_image": split}, limits)

    assert best_attempt([verdict(0.9, 0.9), verdict(0.4, 0.4), verdict(0.1, 0.1)]) == 1
    assert best_attempt([verdict(0.9, 0.9), verdict(0.8, 0.2), verdict(0.7, 0.9)]) == 1
    assert best_attempt([verdict(0.9, 0.2), verdict(0.8, 0.2)]) == 1
    assert best_attempt([None, verdict(0.9, 0.9)]) == 1 and best_attempt([None, None]) == 0
