"""The board, where the work is done elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from flows.scheduling.board import Board
from flows.scheduling.place import Answer, Batch, Finish, Job
from flows.scheduling.refusals import ENOUGH, Refusal
from manifests import layout
from manifests.faults import Fault
from manifests.loading.load import load_manifest
from manifests.store.store import Store
from tasks import progress
from tasks.planning.make import make_plan
from tasks.run.plan import Plan
from tasks.run.selection import select
from tests.flows.conftest import SETTINGS, Project


class Elsewhere:
    """A place that says at once that everything was done on another machine, or gives the answers of `first` before."""

    def __init__(self, first: Sequence[Answer] = (), most: int = 8) -> None:
        self.first, self.most, self.handed_over = list(first), most, 0

    def has_room(self, job: Job, in_flight: Counter[Job]) -> bool:
        return in_flight.total() < self.most

    def size(self, waiting: int) -> int:
        return 1

    def submit(self, batch: Batch, ended: Callable[[Finish], None]) -> None:
        self.handed_over += 1
        answer = self.first.pop(0) if self.first else Answer(elsewhere=True)
        ended(lambda: answer)

    def going_on(self) -> Mapping[str, frozenset[str]]:
        return {}

    def watch(self, name: str, ended: Callable[[Finish], None]) -> None:
        raise LookupError(name)


def planned(project: Project, tmp_path: Path) -> tuple[Store, Plan]:
    store = Store.open(str(tmp_path / "store"))
    return store, make_plan(store, load_manifest(str(project.path), allowed_roots=[str(project.base)])).plan


def test_work_elsewhere_moves_the_bars(project: Project, tmp_path: Path) -> None:
    store, plan = planned(project, tmp_path)
    done: Counter[str] = Counter()
    announced: list[progress.Event] = []

    def listen(event: progress.Event) -> None:
        if event["kind"] == "work":
            announced.append(event)
            return
        assert event["done"] == event["total"]
        done[event["kind"]] += event["done"]

    with progress.watching(listen):
        Board(store, plan, select(plan, (), ()), Elsewhere()).run()
    assert done == {"train": len(plan.packs) * SETTINGS["train"]["steps"], "sample": 4, "score": 4}
    (work,) = announced
    assert work["total"] == done and work["done"] == {"train": 0, "sample": 0, "score": 0}


def test_what_ends_while_a_parent_starts_again_is_not_begun_once_more(project: Project, tmp_path: Path) -> None:
    store, plan = planned(project, tmp_path)
    first, *others = plan.packs

    class Ending(Elsewhere):
        """Work that an earlier parent handed over; it ends just before anybody asks for it."""

        def going_on(self) -> Mapping[str, frozenset[str]]:
            for adapter in first.adapters:
                for half in ("content", "style"):
                    store.write_once(layout.adapter_key(adapter.adapter_id, half), b"half")
                store.write_once(layout.adapter_marker_key(adapter.adapter_id), b"{}")
            return {}

        def submit(self, batch: Batch, ended: Callable[[Finish], None]) -> None:
            assert first not in batch.items
            super().submit(batch, ended)

    place = Ending()
    Board(store, plan, select(plan, (), ()), place).run()
    assert place.handed_over == len(others) + len(plan.shards)


def refusal(host: str, why: str = "no such folder") -> Answer:
    return Answer(refused=Refusal(host, Fault("settings", f"the base cannot be had: {why}", "", "", "", item="run")))


def test_what_one_machine_cannot_begin_another_does(project: Project, tmp_path: Path) -> None:
    store, plan = planned(project, tmp_path)
    place, notes = Elsewhere([refusal("sick"), Answer(elsewhere=True), refusal("sick")], most=2), []
    with progress.watching(lambda event: notes.append(event["text"]) if event["kind"] == "note" else None):
        board = Board(store, plan, select(plan, (), ()), place)
        board.run()
    assert board.failures == [] and place.handed_over == len(plan.packs) + len(plan.shards) + 2
    told = "sick could not begin (the base cannot be had: no such folder); what it had goes to another"
    assert notes == [told], "the same is told once"


def test_where_no_machine_can_begin_that_is_one_fault_soon(project: Project, tmp_path: Path) -> None:
    store, plan = planned(project, tmp_path)
    answers = [refusal(host) for host in ("gpu-1", "gpu-2")] * 9
    place = Elsewhere(answers, most=2)
    board = Board(store, plan, select(plan, (), ()), place)
    board.run()
    (fault,) = board.failures
    assert str(fault) == "run: on gpu-1, gpu-2: the base cannot be had: no such folder"
    assert place.handed_over == ENOUGH, "and no other item is handed over"
    mixed = Elsewhere([refusal("gpu-1", "no room")] * 2 + [refusal("gpu-2"), refusal("gpu-3")], most=1)
    board = Board(store, plan, select(plan, (), ()), mixed)
    board.run()
    assert [fault.what for fault in board.failures] == ["on gpu-2, gpu-3: the base cannot be had: no such folder"]


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
