"""The board, where the work is done elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from flows.scheduling.board import Board
from flows.scheduling.place import Answer, Batch, Finish, Job
from manifests.loading.load import load_manifest
from manifests.store.store import Store
from tasks import progress
from tasks.planning.make import make_plan
from tasks.run.selection import select
from tests.flows.conftest import SETTINGS, Project


class Elsewhere:
    """A place that says at once that everything was done on another machine."""

    def has_room(self, job: Job, in_flight: Counter[Job]) -> bool:
        return True

    def size(self, waiting: int) -> int:
        return max(1, waiting)

    def submit(self, batch: Batch, ended: Callable[[Finish], None]) -> None:
        ended(lambda: Answer(elsewhere=True))

    def going_on(self) -> Mapping[str, frozenset[str]]:
        return {}

    def watch(self, name: str, ended: Callable[[Finish], None]) -> None:
        raise LookupError(name)


def test_work_elsewhere_moves_the_bars(project: Project, tmp_path: Path) -> None:
    plan = make_plan(
        Store.open(str(tmp_path / "store")), load_manifest(str(project.path), allowed_roots=[str(project.base)])
    ).plan
    done: Counter[str] = Counter()
    announced: list[progress.Event] = []

    def listen(event: progress.Event) -> None:
        if event["kind"] == "work":
            announced.append(event)
            return
        assert event["done"] == event["total"]
        done[event["kind"]] += event["done"]

    with progress.watching(listen):
        Board(Store.open(str(tmp_path / "store")), plan, select(plan, (), ()), Elsewhere()).run()
    assert done == {"train": len(plan.packs) * SETTINGS["train"]["steps"], "sample": 4, "score": 4}
    (work,) = announced
    assert work["total"] == done and work["done"] == {"train": 0, "sample": 0, "score": 0}


def test_an_automatic_pack_size_is_one_where_other_machines_train(project: Project, tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"))

    def sizes(pack_size: int | str, elsewhere: bool) -> list[int]:
        project.write(settings=SETTINGS | {"pack_size": pack_size})
        loaded = load_manifest(str(project.path), allowed_roots=[str(project.base)])
        draft = make_plan(store, loaded, devices="" if elsewhere else "auto")
        return [len(pack.adapters) for pack in draft.plan.packs]

    assert sizes("auto", True) == [1, 1, 1, 1]
    assert sizes("auto", False)[0] > 1, "this machine holds more of so small a model"
    assert sizes(3, True) == [3, 1]
