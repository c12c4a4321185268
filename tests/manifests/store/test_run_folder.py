"""The folder of a run: tables and files come back by name, on a disk and in a bucket, under the keys of `layout`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from manifests import layout
from manifests.errors import Damaged, InvalidId, Missing, TableError
from manifests.store.run_folder import RunFolder
from manifests.store.store import Store
from manifests.tables import measuring, review
from manifests.tables import run as run_tables
from manifests.tables.columns import TableFile, TableFolder
from manifests.tables.parquet import to_parquet_bytes, to_table
from manifests.tables.review import DECISIONS_FILES
from manifests.tables.run import ADDED_SCORES_FILES, PLAN_FILE, REDO_FILES, SHARD_SCORES_FILES, SLOTS, SLOTS_FILE
from tests.manifests.tables.test_parquet import row_of

TABLES = [value for module in (run_tables, review, measuring) for value in vars(module).values()]
FILES = [file for file in TABLES if isinstance(file, TableFile)]
FOLDERS = [folder for folder in TABLES if isinstance(folder, TableFolder)]


@pytest.fixture
def run(root: str) -> RunFolder:
    return RunFolder(Store.open(root), "night-1")


def test_a_table_comes_back_by_its_name(run: RunFolder) -> None:
    rows = [row_of(SLOTS) | {"slot": f"{number} cpu"} for number in range(3)]
    run.write(SLOTS_FILE, iter(rows))
    assert run.rows(SLOTS_FILE) == run.read(SLOTS_FILE).to_pylist() == rows
    run.write_table(SLOTS_FILE, to_table(rows[:1], SLOTS))
    assert run.rows(SLOTS_FILE) == rows[:1]
    assert run.store.read("runs/night-1/slots.parquet") == to_parquet_bytes(to_table(rows[:1], SLOTS))


def test_a_table_that_is_not_there(run: RunFolder) -> None:
    assert run.rows(PLAN_FILE) == []
    assert run.find(PLAN_FILE) is None
    with pytest.raises(Missing, match=r"plan\.parquet"):
        run.read(PLAN_FILE)


@pytest.mark.parametrize("read", [RunFolder.read, RunFolder.find, RunFolder.rows])
def test_another_table_in_its_place_is_refused(run: RunFolder, read: Callable[[RunFolder, TableFile], Any]) -> None:
    run.write(TableFile(PLAN_FILE.name, SLOTS), [])
    with pytest.raises(Damaged, match=r"runs/night-1/plan\.parquet is damaged: received wrong table") as caught:
        read(run, PLAN_FILE)
    assert isinstance(caught.value.__cause__, TableError)


def test_rows_that_do_not_fit_leave_what_was_there(run: RunFolder) -> None:
    run.write(SLOTS_FILE, [row_of(SLOTS)])
    with pytest.raises(TableError):
        run.write(SLOTS_FILE, [row_of(SLOTS) | {"adapters": 0.5}])
    assert len(run.rows(SLOTS_FILE)) == 1


def test_the_first_of_two_writers_stays(run: RunFolder) -> None:
    first, second = ([row_of(SLOTS) | {"slot": slot}] for slot in ("0", "1"))
    assert run.write_once(SLOTS_FILE, first) is True
    assert run.write_once(SLOTS_FILE, second) is False
    assert run.rows(SLOTS_FILE) == first


def test_a_table_in_several_files(run: RunFolder) -> None:
    assert run.files(REDO_FILES) == []
    for part in ("20261122-b", "20261121-a"):
        run.write_once(REDO_FILES.file(part), [row_of(PLAN_FILE.schema) | {"name": part}])
    run.write(DECISIONS_FILES.file("c"), [])
    run.store.replace(run.key("redo/notes.txt"), b"no table")
    assert [file.name for file in run.files(REDO_FILES)] == ["redo/20261121-a.parquet", "redo/20261122-b.parquet"]
    assert [row["name"] for file in run.files(REDO_FILES) for row in run.rows(file)] == ["20261121-a", "20261122-b"]


def test_another_run_has_its_own(run: RunFolder) -> None:
    run.write(SLOTS_FILE, [row_of(SLOTS)])
    run.write_json("run.json", {"state": "planned"})
    other = RunFolder(run.store, "night-2")
    assert (other.rows(SLOTS_FILE), other.find_json("run.json")) == ([], None)


def test_json_comes_back_by_its_name(run: RunFolder) -> None:
    with pytest.raises(Missing):
        run.read_json("run.json")
    assert run.find_json("run.json") is None
    value = {"state": "planned", "name": "grün", "faults": [None, 0.5]}
    assert run.write_json_once("run.json", value) is True
    assert run.write_json_once("run.json", {}) is False
    assert run.read_json("run.json") == run.find_json("run.json") == value
    assert "grün" in run.store.read("runs/night-1/run.json").decode(), "a person can read it"
    run.write_json("run.json", [])
    assert run.find_json("run.json") == []


@pytest.mark.parametrize(("run_id", "name"), [("../x", "a.json"), ("x", "../a.json"), ("", "a.json"), ("x", "a b")])
def test_no_name_leads_out_of_the_folder(tmp_path: Any, run_id: str, name: str) -> None:
    with pytest.raises(InvalidId):
        RunFolder(Store.open(str(tmp_path)), run_id).write_json(name, {})


def test_files_have_names_of_their_own_and_lie_where_the_layout_says() -> None:
    names = [file.name for file in FILES] + [folder.name for folder in FOLDERS]
    assert len(names) == len(set(names))
    run = RunFolder(Store.open("x"), "r")
    assert run.key(SHARD_SCORES_FILES.file("s").name) == layout.shard_scores_key("r", "s")
    assert (
        run.key(ADDED_SCORES_FILES.file("s-clip").name)
        == layout.added_scores_prefix("r") + "s-clip.parquet"
        == "runs/r/added_scores/s-clip.parquet"
    )
    assert run.key(REDO_FILES.name) + "/" == layout.redo_prefix("r")
    assert run.key(DECISIONS_FILES.name) == "runs/r/decisions"


def test_a_run_whose_id_has_letters_of_another_script_is_kept_and_listed(root: str) -> None:
    store = Store.open(root)
    run = RunFolder(store, "夜の絵-3f2a")
    run.write_json("run.json", {"name": "夜の絵"})
    assert RunFolder(store, "夜の絵-3f2a").read_json("run.json") == {"name": "夜の絵"}
    assert list(store.list(layout.RUNS_PREFIX)) == ["runs/夜の絵-3f2a/run.json"]
