"""What a night takes up again: a finished manifest that was reviewed since."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from manifests import layout
from manifests.store.store import Store
from tasks.errors import TaskError
from tasks.operations.gc import find_waste
from tasks.operations.inbox import Dropped, look, look_aside, write_receipt
from tasks.operations.night_record import Night, load_night, write_night
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


ODD = {
    b"line\nbreak.csv": "inbox/line\\nbreak.csv",
    b"\x1b[31mred.yaml": "inbox/\\x1b[31mred.yaml",
    b"caf\xe9.csv": "inbox/caf\\udce9.csv",
    b"back\\slash.json": "inbox/back\\slash.json",
    b"no\xc2\xa0break.csv": "inbox/no\\xa0break.csv",
    b"gpj\xe2\x80\xae.csv": "inbox/gpj\\u202e.csv",
    b"end.csv\n": "inbox/end.csv\\n",
}


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    """The inbox of a local store, with one good manifest."""
    folder = tmp_path / "store" / "inbox"
    folder.mkdir(parents=True)
    (folder / "good.yaml").write_text("version: 1")
    return folder


def test_an_odd_name_is_a_fault_of_that_file_and_the_others_are_found(inbox: Path) -> None:
    for name in ODD:
        Path(os.fsdecode(os.fsencode(inbox) + b"/" + name)).write_bytes(b"content,style\n")
    deep = inbox / ("a" * 200) / ("b" * 200) / ("c" * 200) / ("d" * 200)
    deep.mkdir(parents=True)
    (deep / f"{'e' * 200}.csv").write_bytes(b"")
    (inbox / "circle.csv").symlink_to(inbox / "circle.csv")
    (inbox / "self").symlink_to(inbox)
    (inbox / "gone.json").symlink_to(inbox / "nothing")
    store = Store.open(str(inbox.parent))
    assert [dropped.key for dropped in look(store, None)] == ["inbox/good.yaml"]
    others = look_aside(store)
    assert others.ignored == ()
    long = [name for name in others.unreadable if "aaa" in name]
    linked = {"inbox/circle.csv", "inbox/self", "inbox/gone.json"}
    assert others.unreadable.keys() == {*ODD.values(), *linked, *long} and len(long) == 1
    assert len(long[0]) <= 160 and long[0].endswith("e.csv")
    for name, fault in others.unreadable.items():
        assert str(fault).startswith(f"{name}: cannot be read: received ") and str(fault).isprintable()
    night = Night.begin().ignoring(others.ignored)
    write_night(store, night)
    assert load_night(store) == night


@pytest.mark.parametrize("manifest", ["leak.csv", "kitchen"])
def test_a_link_out_of_the_store_is_refused_unread(inbox: Path, tmp_path: Path, manifest: str) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "night.csv").write_text("root:x:0:0:the secret\n")
    (inbox / manifest).symlink_to(secret if manifest == "kitchen" else secret / "night.csv")
    store = Store.open(str(inbox.parent))
    assert [dropped.key for dropped in look(store, None)] == ["inbox/good.yaml"]
    (fault,) = look_aside(store).unreadable.values()
    assert "a link that leads out of the store" in str(fault) and "secret" not in str(fault)


def test_files_that_are_no_manifests_are_listed_and_pictures_are_not(inbox: Path) -> None:
    for name in ("README.txt", "c.xlsx", "photo.JPG", ".DS_Store", "kitchen/wave.png", "kitchen/notes.docx"):
        (inbox / name).parent.mkdir(exist_ok=True)
        (inbox / name).write_bytes(b"x")
    store = Store.open(str(inbox.parent))
    assert [dropped.key for dropped in look(store, None)] == ["inbox/good.yaml"]
    night = Night.begin().ignoring(look_aside(store).ignored)
    assert night.ignored == ("inbox/README.txt", "inbox/c.xlsx", "inbox/kitchen/notes.docx")
    assert night.sentence == "0 manifests finished, no manifest and ignored: README.txt, c.xlsx, kitchen/notes.docx"
    assert not night.failed


@pytest.mark.parametrize(
    "damaged",
    [b"", b"{", b"[]", b"\xff", b"null", b'{"run_id": "a-1"}', b"{" * 100_000,
     json.dumps({"run_id": "../x", "state": "finished", "sentence": "", "drops": {}, "redos": 0}).encode(),
     json.dumps({"run_id": "a-1", "state": "finished", "sentence": "", "drops": [], "redos": "many"}).encode()],
)  # fmt: skip
def test_a_damaged_receipt_counts_as_none_and_says_so(inbox: Path, damaged: bytes) -> None:
    store = Store.open(str(inbox.parent))
    key = layout.receipt_key(the_one(store).manifest_id)
    store.replace(key, damaged)
    one = the_one(store)
    assert one.receipt is None and not one.finished and "its receipt could not be read" in one.note
    write_receipt(store, one, "a-1", "finished", "1 of 1")
    assert the_one(store).finished and not the_one(store).note


def test_a_manifest_without_the_right_to_read_it_does_not_hide_the_others(inbox: Path) -> None:
    (inbox / "locked.csv").write_bytes(b"")
    (inbox / "locked.csv").chmod(0)
    if os.access(inbox / "locked.csv", os.R_OK):
        pytest.skip("this user may read everything")
    found = look(Store.open(str(inbox.parent)), None)
    assert {dropped.key for dropped in found} == {"inbox/good.yaml", "inbox/locked.csv"}


def test_nothing_is_deleted_while_a_run_cannot_be_seen(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    store, _ = plan_run(tmp_path, ["apple"], ["wave"])
    (Path(store.root) / "runs" / "moved").symlink_to(elsewhere)
    with pytest.raises(TaskError, match="runs/moved, a link that leads out of the store"):
        find_waste(store, timedelta(days=1))
