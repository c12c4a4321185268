"""What a night takes up again: a finished manifest that was reviewed since."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from manifests import layout
from manifests.store.store import Store
from tasks.operations.inbox import Dropped, look, write_receipt
from tasks.review.decisions import Mark
from tasks.review.redo import record_review
from tasks.run.plan import load_plan
from tests.made_run import finish, plan_run


def the_one(store: Store) -> Dropped:
    (dropped,) = look(store, [])
    return dropped


def test_a_finished_manifest_is_taken_up_again_once_a_review_asks_for_further_pictures(tmp_path: Path) -> None:
    store, plan = plan_run(tmp_path, ["apple"], ["wave", "night"])
    run_id = plan.run.run_id
    store.replace(f"{layout.INBOX_PREFIX}night.yaml", b"version: 1")
    assert not the_one(store).finished
    write_receipt(store, the_one(store), run_id, "finished" if finish(store, plan).complete else "faults", "2 of 2")
    assert the_one(store).finished
    keep, redo = plan.samples
    marks = [
        Mark(keep.sample_id, "keep", "Ada", datetime.now(UTC)),
        Mark(redo.sample_id, "redo", "Ada", datetime.now(UTC)),
    ]
    assert len(record_review(store, plan, marks[:1])) == 0 and the_one(store).finished
    assert len(record_review(store, plan, marks[1:])) == 1
    taken_up = the_one(store)
    assert not taken_up.finished
    # A second review comes while the night draws what the first has asked for.
    again = [Mark(redo.sample_id, "redo", "Bob", datetime.now(UTC))]
    assert len(record_review(store, load_plan(store, run_id), again)) == 1
    write_receipt(store, taken_up, run_id, "finished", "3 of 3")
    assert not the_one(store).finished
    write_receipt(store, the_one(store), run_id, "finished", "4 of 4")
    assert the_one(store).finished
