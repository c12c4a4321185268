"""Which run is meant: whole ids, beginnings, names and latest; what is said where none is, or several."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from manifests import layout
from manifests.errors import PermanentStoreError
from manifests.store.folder import Folder
from manifests.store.store import Store
from tasks.errors import NoStore, RunNotFound
from tasks.run.which import find_run, require_store, try_store
from tests.made_run import plan_run


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, dict[str, str]]:
    """A store with four runs, the newest first by name; two of one manifest's name."""
    folder, ids = tmp_path_factory.mktemp("which"), {}
    for number, (name, style) in enumerate(
        [("Küche Süd", "wave"), ("film", "wave"), ("film", "ink"), ("film-noir", "wave")]
    ):
        store, plan = plan_run(folder, ["apple"], [style], name=name)
        key = layout.run_key(plan.run.run_id, "run.json")
        record = json.loads(store.read(key)) | {"created_at": f"2026-0{number + 1}-01T12:00:00+00:00"}
        store.replace(key, json.dumps(record).encode())
        ids[f"{name} {style}"] = plan.run.run_id
    return store, ids


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("latest", "film-noir wave"),
        ("Küche Süd", "Küche Süd wave"),
        ("Ku\u0308che Su\u0308d", "Küche Süd wave"),
        ("kuc", "Küche Süd wave"),
        ("film-noir", "film-noir wave"),
        (" film-n ", "film-noir wave"),
    ],
)
def test_a_name_the_beginning_of_an_id_or_latest_stands_for_a_run(
    planned: tuple[Store, dict[str, str]], asked: str, meant: str
) -> None:
    store, ids = planned
    assert find_run(store, asked) == ids[meant]
    assert find_run(store, ids[meant]) == ids[meant]
    assert find_run(store, ids[meant][:-2]) == ids[meant]


def test_what_two_runs_begin_with_lists_them_whole_and_newest_first(planned: tuple[Store, dict[str, str]]) -> None:
    store, ids = planned
    with pytest.raises(RunNotFound, match="received 'film', which 2 runs begin with") as caught:
        find_run(store, "film")
    shown = re.findall(r"film-\w{12} \(2026-\d\d-01 12:00:00 UTC\)", str(caught.value))
    assert [row.split()[0] for row in shown] == [ids["film ink"], ids["film wave"]]
    with pytest.raises(RunNotFound, match="which 3 runs begin with"):
        find_run(store, "fil")


@pytest.mark.parametrize("asked", ["flim-noir", "", "../runs", "-", "f" * 300, "a\nb"])
def test_what_no_run_is_called_is_refused(planned: tuple[Store, dict[str, str]], asked: str) -> None:
    with pytest.raises(RunNotFound, match="accepted: a run id, the beginning of one") as caught:
        find_run(planned[0], asked)
    assert "\n" not in str(caught.value) and "4 runs" in str(caught.value)
    assert ("did you mean film-noir?" in str(caught.value)) == (asked == "flim-noir")


def test_a_mistyped_root_is_no_store_and_a_new_one_has_no_run(tmp_path: Path) -> None:
    nowhere = Store.open(str(tmp_path / "strore"))
    for look in (require_store, lambda store: find_run(store, "latest")):
        with pytest.raises(NoStore, match=f"no store at {tmp_path}/strore: .*--root"):
            look(nowhere)
    assert not (tmp_path / "strore").exists()
    (tmp_path / "inbox").mkdir()
    (tmp_path / "inbox" / "a.yaml").write_text("x")
    with pytest.raises(RunNotFound, match="has no run yet"):
        find_run(Store.open(str(tmp_path)), "latest")


class Overwriting(Folder):
    """A place that takes every write, as a server without conditional ones does."""

    def create(self, key: str, data: bytes) -> bool:
        self.replace(key, data)
        return True


def test_a_store_is_tried_and_left_as_it_was(root: str) -> None:
    store = Store.open(root)
    try_store(store)
    assert store.list("") == {}


def test_a_store_that_overwrites_is_refused_before_work_begins(tmp_path: Path) -> None:
    store = Store(Overwriting(tmp_path / "store"))
    with pytest.raises(
        PermanentStoreError, match="a second object of one name was taken; accepted a store that refuses"
    ):
        try_store(store)
    assert store.list("") == {}
