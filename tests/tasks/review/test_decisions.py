"""Decisions: every fault of a file at once, the last mark wins, redo grows the plan, what is kept is delivered."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from manifests import ids, layout
from manifests.store.store import Store
from tasks.closing.export import export_run
from tasks.errors import RunRefused, TaskError
from tasks.review.decisions import Mark, load_marks, read_marks, record_marks
from tasks.review.redo import record_review
from tasks.run.plan import Plan, load_plan
from tests.made_run import finish, plan_run

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.fixture
def run(tmp_path: Path) -> tuple[Store, Plan]:
    """A finished run of four pictures."""
    store, plan = plan_run(tmp_path, ["apple", "owl"], ["wave", "ink"])
    finish(store, plan)
    return store, plan


def marks_file(tmp_path: Path, plan: Plan, *rows: dict[str, Any], **changes: Any) -> str:
    """Write a decisions file of rows laid over a good one."""
    good = {"sample_id": plan.samples[0].sample_id, "decision": "keep", "decided_at": "2026-11-22T12:00:00Z"}
    body = {"format": 1, "run_id": plan.run.run_id, "reviewer": "Ada", "decisions": [good | row for row in rows]}
    path = tmp_path / "decisions.json"
    path.write_text(json.dumps({name: value for name, value in (body | changes).items() if value is not ...}))
    return str(path)


def test_a_good_file_is_read(tmp_path: Path, run: tuple[Store, Plan]) -> None:
    address = marks_file(tmp_path, run[1], {}, {"sample_id": run[1].samples[1].sample_id, "decision": "redo"})
    marks = read_marks(address, run[1])
    assert [(mark.decision, mark.reviewer, mark.decided_at) for mark in marks] == [
        ("keep", "Ada", NOON),
        ("redo", "Ada", NOON),
    ]


def test_every_fault_of_a_file_is_told_at_once(tmp_path: Path, run: tuple[Store, Plan]) -> None:
    later = (datetime.now(UTC) + timedelta(days=3)).isoformat()
    address = marks_file(
        tmp_path,
        run[1],
        {},
        {"decision": "love"},
        {"sample_id": "f" * 24},
        {},
        {"decided_at": "yesterday"},
        {"decided_at": "2026-11-22T12:00:00"},
        {"decided_at": later},
        {"sample_id": 7},
        {"note": "too dark"},
        run_id="other-0123456789ab",
        reviewer=3,
    )
    with pytest.raises(RunRefused) as caught:
        read_marks(address, run[1])
    found = {fault.field: fault.what for fault in caught.value.faults}
    assert found == {
        "reviewer": "wrong value",
        "run_id": "another run",
        "decisions[1].decision": "wrong value",
        "decisions[2].sample_id": "unknown picture",
        "decisions[3].sample_id": "two marks on one picture",
        "decisions[4].decided_at": "wrong value",
        "decisions[5].decided_at": "wrong value",
        "decisions[6].decided_at": "wrong value",
        "decisions[7].sample_id": "wrong value",
        "decisions[8].note": "unknown key",
    }
    assert all(fault.file == address and fault.accepted and fault.hint for fault in caught.value.faults)


@pytest.mark.parametrize("row", [{"decision": "love"}, {"sample_id": "f" * 24}, {}])
def test_of_many_faults_the_first_are_told_and_all_are_counted(
    tmp_path: Path, run: tuple[Store, Plan], row: dict[str, Any]
) -> None:
    with pytest.raises(RunRefused) as caught:
        read_marks(marks_file(tmp_path, run[1], {}, *[row] * 900), run[1])
    assert [fault.field for fault in caught.value.faults][::9] == [
        f"decisions[{number}].{'decision' if 'decision' in row else 'sample_id'}" for number in (1, 10)
    ]
    assert "900 faults" in str(caught.value) and "the first 10" in str(caught.value)


def test_many_more_marks_than_pictures_are_not_looked_at(tmp_path: Path, run: tuple[Store, Plan]) -> None:
    with pytest.raises(RunRefused) as caught:
        read_marks(marks_file(tmp_path, run[1], *[{}] * 20_000), run[1])
    assert (caught.value.faults[0].what, caught.value.faults[0].received) == ("more marks than pictures", "20000")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "7", '{"decisions": 5}', '{"decisions": [null, []]}', "\udcff", "[" * 100_000]
)
def test_what_is_no_decisions_file_is_refused(tmp_path: Path, run: tuple[Store, Plan], text: str) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(RunRefused) as caught:
        read_marks(str(path), run[1])
    assert caught.value.faults


def test_the_last_mark_counts_whichever_file_came_first(run: tuple[Store, Plan]) -> None:
    store, plan = run
    first, second = (sample.sample_id for sample in plan.samples[:2])
    ada = Mark(first, "keep", "Ada", NOON)
    record_marks(store, plan.run.run_id, [replace(ada, decision="reject", decided_at=NOON + timedelta(hours=1))])
    record_marks(store, plan.run.run_id, [ada, Mark(second, "keep", "Ada", NOON)])
    marks = load_marks(store, plan.run.run_id)
    assert (marks[first].decision, marks[second].decision) == ("reject", "keep")
    taken_back = Mark(second, "undecided", "Bo", NOON + timedelta(hours=2))
    record_marks(store, plan.run.run_id, [taken_back])
    assert set(load_marks(store, plan.run.run_id)) == {first}
    before = store.list(layout.run_key(plan.run.run_id, "decisions") + "/")
    record_marks(store, plan.run.run_id, [taken_back])
    assert store.list(layout.run_key(plan.run.run_id, "decisions") + "/") == before


def test_a_redo_asks_for_the_same_pair_with_another_seed_once(run: tuple[Store, Plan]) -> None:
    store, plan = run
    old = plan.samples[2]
    mark = Mark(old.sample_id, "redo", "Ada", NOON)
    (new,) = record_review(store, plan, [mark])
    assert new.seed != old.seed and new.sample_id != old.sample_id
    assert new.candidate_of == old.sample_id, "it is chosen from beside the rejected one"
    assert replace(new, seed=old.seed, sample_id=old.sample_id, candidate_of=None) == old
    grown = load_plan(store, plan.run.run_id)
    assert grown.samples == (*plan.samples, new) and grown.packs == plan.packs
    assert store.exists(old.key) and not store.exists(new.key)
    assert load_marks(store, plan.run.run_id)[old.sample_id].redo_sample_id == new.sample_id
    assert record_review(store, grown, [mark]) == []
    assert load_plan(store, plan.run.run_id).samples == grown.samples
    (third,) = record_review(store, grown, [replace(mark, decided_at=NOON + timedelta(minutes=1))])
    assert len({old.seed, new.seed, third.seed}) == 3


def test_two_reviews_at_once_ask_for_a_picture_once(run: tuple[Store, Plan]) -> None:
    store, plan = run
    marks = [Mark(sample.sample_id, "redo", "", NOON) for sample in plan.samples[:2]]
    record_review(store, plan, marks)
    record_review(store, plan, marks[:1])  # from a plan that was read before
    assert len(store.list(layout.redo_prefix(plan.run.run_id))) == 2
    assert len(load_plan(store, plan.run.run_id).samples) == 6


def test_pictures_of_a_version_that_named_them_otherwise_are_not_redone(
    run: tuple[Store, Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, plan = run
    real = ids.sample_id
    monkeypatch.setattr(ids, "sample_id", lambda **parts: real(**parts)[::-1])
    with pytest.raises(RunRefused) as caught:
        record_review(store, plan, [Mark(plan.samples[0].sample_id, "redo", "", NOON)])
    assert "cannot be drawn again" in str(caught.value.faults[0])
    assert not store.list(layout.run_key(plan.run.run_id, "decisions") + "/") and not store.list(
        layout.redo_prefix(plan.run.run_id)
    )


def test_only_kept_pictures_are_delivered(run: tuple[Store, Plan], tmp_path: Path) -> None:
    store, plan = run
    with pytest.raises(TaskError, match="is marked keep"):
        export_run(store, plan.run.run_id, str(tmp_path / "none"), kept=True)
    marks = [Mark(plan.samples[0].sample_id, "keep", "", NOON), Mark(plan.samples[1].sample_id, "reject", "", NOON)]
    record_marks(store, plan.run.run_id, marks)
    assert export_run(store, plan.run.run_id, str(tmp_path / "kept"), kept=True) == (1, 0)
    assert [path.name for path in (tmp_path / "kept").glob("*__*.png")] == ["apple__wave__0.png"]
