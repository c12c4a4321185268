"""The slots of this machine as a place: items are handed over as Prefect tasks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from prefect.client.schemas.objects import StateType
from prefect.futures import PrefectFuture

from flows.scheduling.place import Answer, Batch, Finish, Job, item_id
from manifests.store.store import Store
from tasks import environment
from tasks.dispatch import prefect_tasks
from tasks.dispatch.prefect_tasks import TaskOutcome
from tasks.dispatch.slots import SlotPool
from tasks.errors import may_pass
from tasks.messages import JobAnswer

SHARED_FROM, SHARE_MOST = 250, 16
"""Items of one kind that wait before a task is given more than one, and the most that it is given."""


class Slots:
    """The slots of this machine, which must be around (`slots`); items are handed over as Prefect tasks.

    One item a task, so that each can be seen, until there are so many that the records of them would be the work.

    Attributes:
        ends: how the tasks ended, by the ids of their task runs.
    """

    def __init__(self, run_id: str, pool: SlotPool) -> None:
        """Hand over the items of a run to the slots of `pool`."""
        self._run_id, self._pool = run_id, pool
        self.ends: dict[UUID, StateType] = {}

    def has_room(self, job: Job, in_flight: Counter[Job]) -> bool:
        """See `Place.has_room`; as many as there are slots, so that "Running" in the UI means running."""
        if not self._pool.beside:
            return in_flight.total() < len(self._pool.devices)
        if job == "score":
            return in_flight["score"] < self._pool.beside
        return in_flight["train"] + in_flight["generate"] < len(self._pool.devices)

    def size(self, waiting: int) -> int:
        """See `Place.size`."""
        return max(1, min(SHARE_MOST, waiting // SHARED_FROM))

    def submit(self, batch: Batch, ended: Callable[[Finish], None]) -> None:
        """See `Place.submit`; transient failures are retried by the task."""
        future = _as_task(batch, self._run_id)
        future.add_done_callback(lambda done: ended(lambda: self._answer(done)))

    def going_on(self) -> dict[str, frozenset[str]]:
        """See `Place.going_on`; slots die with their parent."""
        return {}

    def watch(self, name: str, ended: Callable[[Finish], None]) -> None:
        """See `Place.watch`."""
        raise LookupError(f"batch {name}: slots have none that outlives its parent")

    def _answer(self, future: PrefectFuture[Any]) -> Answer:
        future.wait()
        self.ends[future.task_run_id] = future.state.type
        said: Any = future.state.result(raise_on_failure=False)
        if not isinstance(said, TaskOutcome):
            message = str(said or future.state.message or future.state.name)
            return Answer(failed=message, transient=isinstance(said, BaseException) and may_pass(said))
        # The answer to a probe has none.
        faults = tuple(fault for answer in said.answers.values() for fault in getattr(answer, "faults", ()))
        spent = {slot: _spent(answer) for slot, answer in said.answers.items()}
        return Answer(spent, faults, failed_items=said.failed)


@contextmanager
def slots(store: Store, devices: Sequence[str]) -> Iterator[SlotPool]:
    """This machine's slots for the time of the block, for the tasks that are submitted in it.

    Inside another such block for the same store and devices it gives that one's slots: the runs of a night share
    them, so that a base model is loaded once a night and not once a run.
    """
    around = prefect_tasks.POOL.get(None)
    if around is not None and (around.store_root, around.devices) == (store.root, tuple(devices)):
        yield around
        return
    with SlotPool(devices, store.root, environment.stall_timeout_seconds()) as pool:
        token = prefect_tasks.POOL.set(pool)
        try:
            yield pool
        finally:
            prefect_tasks.POOL.reset(token)


def _spent(answer: JobAnswer) -> dict[str, float]:
    """Of what a slot answered: its seconds by kind of work, and how many items it made."""
    told = vars(answer)
    seconds = {name: float(value) for name, value in told.items() if name.endswith("_seconds")}
    return seconds | {name: float(len(told[name])) for name in ("trained", "drawn", "scored") if name in told}


def _as_task(batch: Batch, run_id: str) -> PrefectFuture[Any]:
    """Submit a batch as a Prefect task."""
    ids = [item_id(item) for item in batch.items]
    number = batch.items[0].index
    if batch.job == "train":
        return prefect_tasks.train_packs.submit(run_id, ids, number, batch.names, batch.only)
    if batch.job == "generate":
        return prefect_tasks.generate_shards.submit(run_id, ids, number, batch.names, batch.only)
    return prefect_tasks.score_shards.submit(run_id, ids, number, batch.names)
