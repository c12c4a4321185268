"""A run of which an object is damaged: one line that names it and what to do, and the other runs go on."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from flows.cli.main import app
from manifests import layout
from manifests.errors import Damaged, Missing
from manifests.store.store import Store
from tasks.closing.collect import close_run
from tasks.closing.export import export_run
from tasks.closing.status import full_status, list_runs
from tasks.figures.grid import fit
from tasks.operations.gc import find_waste
from tasks.operations.night_record import Night, load_night, write_night
from tasks.report.trends import load_nights
from tasks.run.inventory import take_inventory
from tasks.run.markers import REMEDY
from tasks.run.outcome import recorded_faults
from tasks.run.plan import Plan, load_plan
from tasks.run.repair import discard_unreadable
from tasks.worker.session import Session
from tests.made_run import finish, plan_run

Spoil = Callable[[bytes], bytes]


def _without(name: str) -> Spoil:
    return lambda data: json.dumps({key: value for key, value in json.loads(data).items() if key != name}).encode()


def _newer(data: bytes) -> bytes:
    table, sink = pq.read_table(pa.BufferReader(data)), pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata({**table.schema.metadata, b"schema_version": b"99"}), sink)
    return bytes(sink.getvalue())


JSON_DAMAGE: dict[str, Spoil] = {
    "empty": lambda _: b"",
    "blank": lambda _: b" \n",
    "list": lambda _: b"[1, 2]",
    "null": lambda _: b"null",
    "deep": lambda _: b"[" * 200_000,
    "cut": lambda data: data[: len(data) // 2],
    "bytes": lambda _: b"\xff\xfe\x00",
    "no settings": _without("settings"),
    "no time": _without("created_at"),
    "settings of another kind": lambda data: json.dumps(json.loads(data) | {"settings": 3}).encode(),
}
TABLE_DAMAGE: dict[str, Spoil] = {
    "empty": lambda _: b"",
    "cut": lambda data: data[: len(data) // 2],
    "html": lambda _: b"<html>404</html>",
    "newer": _newer,
    "zeros": lambda data: data[:4] + bytes(len(data) - 12) + data[-8:],
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Plan, Plan]:
    """A store with two finished runs."""
    folder = tmp_path_factory.mktemp("made")
    store, damaged = plan_run(folder, ["a", "b"], ["s"])
    finish(store, damaged)
    _, sound = plan_run(folder, ["a"], ["s"], name="other", seeds=(5,))
    finish(store, sound)
    return store, damaged, sound


@pytest.fixture
def two(made: tuple[Store, Plan, Plan], tmp_path: Path) -> tuple[Store, Plan, Plan]:
    """A copy of it, to be damaged."""
    shutil.copytree(made[0].root, tmp_path / "store")
    return Store.open(str(tmp_path / "store")), *made[1:]


def _spoil(store: Store, key: str, spoil: Spoil) -> None:
    store.replace(key, spoil(store.read(key)))


def _one_line(error: BaseException, name: str) -> None:
    text = str(error)
    assert name in text and "\n" not in text and len(text) < 700, text
    assert "delete" in text or "upgrade" in text or "rerun" in text, text


@pytest.mark.parametrize("spoil", JSON_DAMAGE.values(), ids=JSON_DAMAGE.keys())
def test_a_damaged_record_is_told_and_the_other_runs_are_listed(two: tuple[Store, Plan, Plan], spoil: Spoil) -> None:
    store, damaged, sound = two
    _spoil(store, layout.run_key(damaged.run.run_id, "run.json"), spoil)
    for read in (load_plan, full_status):
        with pytest.raises(Damaged) as caught:
            read(store, damaged.run.run_id)
        _one_line(caught.value, "run.json")
    rows = {row[0]: row for row in list_runs(store)}
    assert rows[sound.run.run_id][1] == "finished"
    assert rows[damaged.run.run_id][1] == "damaged" and "run.json" in rows[damaged.run.run_id][3]
    assert [run for night in load_nights(store, 9) for run, _ in night.runs] == [sound.run.run_id]


@pytest.mark.parametrize("spoil", TABLE_DAMAGE.values(), ids=TABLE_DAMAGE.keys())
@pytest.mark.parametrize(
    ("name", "read"), [("plan.parquet", load_plan), ("faults.parquet", recorded_faults)], ids=["plan", "faults"]
)
def test_a_damaged_table_is_told(
    two: tuple[Store, Plan, Plan], name: str, read: Callable[[Store, str], Any], spoil: Spoil
) -> None:
    store, damaged, _ = two
    _spoil(store, layout.run_key(damaged.run.run_id, name), spoil)
    with pytest.raises(Damaged) as caught:
        read(store, damaged.run.run_id)
    _one_line(caught.value, name)
    assert len(load_nights(store, 9)[0].runs) == 2


@pytest.mark.parametrize("spoil", TABLE_DAMAGE.values(), ids=TABLE_DAMAGE.keys())
def test_scores_that_cannot_be_read_count_as_not_there(
    two: tuple[Store, Plan, Plan], spoil: Spoil, caplog: pytest.LogCaptureFixture
) -> None:
    store, damaged, _ = two
    for key in store.list(layout.SCORES_PREFIX):
        if damaged.run.run_id in key:
            _spoil(store, key, spoil)
    assert len(take_inventory(store, damaged).scored) == 2  # by the parts, which are still there
    part = next(iter(store.list(layout.shard_scores_prefix(damaged.run.run_id))))
    _spoil(store, part, spoil)
    assert len(take_inventory(store, damaged).scored) == 1
    assert all("rerun" in record.getMessage() or "upgrade" in record.getMessage() for record in caplog.records)
    assert len(load_nights(store, 9)[0].runs) == 2


def _ages(store: Store) -> None:
    before = (datetime.now(UTC) - timedelta(days=90)).timestamp()
    for path in Path(store.root).rglob("*"):
        os.utime(path, (before, before))


@pytest.mark.parametrize("name", ["run.json", "plan.parquet", "no run.json"])
def test_nothing_goes_that_an_unreadable_run_might_refer_to(two: tuple[Store, Plan, Plan], name: str) -> None:
    store, damaged, _ = two
    orphan = "adapters/" + "0" * 16 + "/adapter.json"
    store.replace(orphan, b"{}")
    _ages(store)
    assert "adapters" in {waste.kind for waste in find_waste(store, timedelta(days=30)).waste}
    if name == "no run.json":
        store.delete(layout.run_key(damaged.run.run_id, "run.json"))
    else:
        _spoil(store, layout.run_key(damaged.run.run_id, name), lambda data: data[:9])
    found = find_waste(store, timedelta(days=30))
    assert not {"adapters", "pictures", "inputs"} & {waste.kind for waste in found.waste}
    assert len(found.unreadable) == 1 and damaged.run.run_id in found.unreadable[0]


@pytest.mark.parametrize("data", [b"", b"[]", b'{"night_id": 3}', b"[" * 200_000])
def test_a_damaged_night_is_told(tmp_path: Path, data: bytes) -> None:
    store, night = Store.open(str(tmp_path)), Night.begin()
    write_night(store, night)
    store.replace(layout.night_key(night.night_id), data)
    with pytest.raises(Damaged, match=r"night\.json is damaged"):
        load_night(store)


@pytest.mark.parametrize(
    "spoil",
    [lambda _: b"", lambda _: b"<!doctype html><title>403</title>", lambda data: data[:60], lambda data: data[:-40]],
    ids=["empty", "html", "head alone", "cut"],
)
def test_a_picture_that_cannot_be_read_is_taken_away(two: tuple[Store, Plan, Plan], spoil: Spoil) -> None:
    store, damaged, _ = two
    assert discard_unreadable(store, damaged, take_inventory(store, damaged)) == []
    key = damaged.samples[0].key
    whole = store.read(key)
    _spoil(store, key, spoil)
    told = discard_unreadable(store, damaged, take_inventory(store, damaged))
    assert len(told) == 1 and key in told[0]
    assert [sample.key for sample in damaged.samples if not store.exists(sample.key)] == [key]
    store.replace(key, whole)  # another time, and well
    assert discard_unreadable(store, damaged, take_inventory(store, damaged)) == []


MARKER_DAMAGE = {name: spoil for name, spoil in JSON_DAMAGE.items() if "settings" not in name}
MARKER_DAMAGE |= {"no time": _without("trained_at"), "no rank": _without("rank")}


@pytest.mark.parametrize("spoil", MARKER_DAMAGE.values(), ids=MARKER_DAMAGE.keys())
def test_a_marker_that_cannot_be_read_stops_nothing_and_its_adapter_is_made_again(
    two: tuple[Store, Plan, Plan], spoil: Spoil
) -> None:
    store, damaged, _ = two
    bad = damaged.adapters[0].adapter_id
    _spoil(store, layout.adapter_marker_key(bad), spoil)
    outcome = close_run(store, damaged, take_inventory(store, damaged))
    (fault,) = outcome.faults
    assert fault.item == bad and fault.transient and "adapter.json is damaged" in fault.what and "rerun" in fault.hint
    told = discard_unreadable(store, damaged, take_inventory(store, damaged))
    assert len(told) == 1 and layout.adapter_marker_key(bad) in told[0] and "\n" not in told[0]
    assert bad not in take_inventory(store, damaged).adapters


def test_an_adapter_that_was_cut_is_made_again(two: tuple[Store, Plan, Plan]) -> None:
    store, damaged, _ = two
    bad, sound, *_ = (adapter.adapter_id for adapter in damaged.adapters)
    _spoil(store, layout.adapter_key(bad, "style"), lambda data: data[: len(data) // 2])
    told = discard_unreadable(store, damaged, take_inventory(store, damaged))
    assert told == [f"{store.root}/{layout.adapter_key(bad, 'style')} is cut (2 bytes of 4): deleted; {REMEDY}"]
    held = take_inventory(store, damaged).adapters
    assert bad not in held and sound in held
    assert discard_unreadable(store, damaged, take_inventory(store, damaged)) == []


def test_a_picture_that_cannot_be_read_is_not_exported(
    two: tuple[Store, Plan, Plan], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store, damaged, _ = two
    _spoil(store, damaged.samples[0].key, lambda data: data[: len(data) // 2])
    assert export_run(store, damaged.run.run_id, str(tmp_path / "out")) == (1, 1)
    assert len(list((tmp_path / "out").glob("a__*.png")) + list((tmp_path / "out").glob("b__*.png"))) == 1
    (line,) = caplog.messages
    assert damaged.samples[0].key in line and "blora rerun" in line


def test_the_commands_go_on_beside_a_damaged_run(two: tuple[Store, Plan, Plan]) -> None:
    store, damaged, sound = two
    _spoil(store, layout.run_key(damaged.run.run_id, "run.json"), lambda _: b"")
    root = ["--root", store.root]

    def blora(*arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, [*arguments, *root], env={"COLUMNS": "400"})
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done.exit_code, done.output

    code, text = blora("status")
    assert code == 0 and sound.run.run_id in text and "damaged" in text
    code, text = blora("gc")
    assert code == 0 and "all kept" in text and damaged.run.run_id in text
    for command in ("status", "report", "scores"):
        code, text = blora(command, damaged.run.run_id)
        assert code == 2 and "run.json" in text and "Traceback" not in text, (command, text)
    assert blora("scores", sound.run.run_id)[0] == 0


@pytest.mark.parametrize("data", [None, b"", b"<html>"], ids=["gone", "empty", "html"])
def test_an_input_that_cannot_be_read_says_how_it_comes_back(two: tuple[Store, Plan, Plan], data: bytes | None) -> None:
    store, damaged, _ = two
    key = layout.image_key(damaged.adapters[0].image_ids[0])
    store.delete(key)
    if data is not None:
        store.replace(key, data)
    session = Session("cpu", store, lambda _: None)
    with pytest.raises((Missing, OSError)) as caught:
        session.picture(key)
    assert key in str(caught.value) and "manifest again" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"<html>", b"\x89PNG\r\n\x1a\n"])
def test_a_sheet_shows_a_grey_cell_for_what_it_cannot_read(data: bytes) -> None:
    assert fit(data, 8).getcolors() == [(64, (214, 214, 220))]
