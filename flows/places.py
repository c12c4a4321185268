"""Where items are handed over: the slots of this machine, or flow runs on a work pool; the work there is the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias
from uuid import UUID

from prefect.client.schemas.objects import StateType
from prefect.futures import PrefectFuture

from manifests.errors import listed
from manifests.faults import Fault
from manifests.store.store import Store
from tasks import environment, steps
from tasks.faults import may_pass
from tasks.fleet import Fleet, FlowRunEnd
from tasks.messages import JobAnswer
from tasks.runs import Pack, Shard
from tasks.slots import SlotPool
from tasks.steps import ItemError, TaskOutcome

Job: TypeAlias = Literal["train", "generate", "score"]


@dataclass(frozen=True)
class Batch:
    """Items that are handed over together.

    Attributes:
        job: what is to be done with them.
        items: packs to train, or shards to draw or to score.
        only: ids of the adapters or pictures that are wanted of them; None: all.
    """

    job: Job
    items: tuple[Pack | Shard, ...]
    only: tuple[str, ...] | None = None

    @property
    def names(self) -> str:
        """What a person calls them."""
        names = [adapter.name for pack in self.items if isinstance(pack, Pack) for adapter in pack.adapters]
        for shard in self.items:
            if isinstance(shard, Shard):
                styles = join(list(dict.fromkeys(sample.style_name for sample in shard.samples)))
                names.append(f"{shard.samples[0].content_name} x {styles}")
        return join(names)


@dataclass(frozen=True)
class Answer:
    """What came of a batch.

    Attributes:
        spent: by slot, its seconds and the items it made, by kind of work; with ``wall_seconds`` where a slot elsewhere
            was at the batch's disposal for so long.
        faults: failures of single items.
        failed_items: why items failed for good, by their ids, where the others did not.
        failed: why the whole batch failed; empty if it did not.
        transient: whether another try can help, now or some other time, if it failed.
        lost: whether whoever had it is gone, so that another is to take it.
        elsewhere: whether it was done on another machine, where drawing includes scoring and nobody here saw the steps.
    """

    spent: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    faults: tuple[Fault, ...] = ()
    failed_items: Mapping[str, ItemError] = field(default_factory=dict)
    failed: str = ""
    transient: bool = False
    lost: bool = False
    elsewhere: bool = False


SHARED_FROM, SHARE_MOST = 250, 16
"""Items of one kind that wait before a task is given more than one, and the most that it is given."""

Finish: TypeAlias = Callable[[], Answer]


class Place(Protocol):
    """Somewhere that batches can be handed over to."""

    def has_room(self, job: Job, in_flight: Counter[Job]) -> bool:
        """Whether another batch of a job is taken while so many of each are in flight."""

    def size(self, waiting: int) -> int:
        """How many items to hand over together when so many of one kind wait."""

    def submit(self, batch: Batch, ended: Callable[[Finish], None]) -> None:
        """Hand over a batch; `ended` is called from any thread with what gives the answer."""

    def going_on(self) -> Mapping[str, frozenset[str]]:
        """Batches that an earlier parent handed over and that go on: ids of their items by a name for `watch`."""

    def watch(self, name: str, ended: Callable[[Finish], None]) -> None:
        """Have the answer of a batch that goes on, as `submit` does."""


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


class Pool:
    """A work pool: some items a flow run, more while much is left: few runs are started, and all end together."""

    def __init__(self, fleet: Fleet, at_once: int, most: int = 64) -> None:
        """Hand over through `fleet`, at most `at_once` flow runs of at most `most` items."""
        self._fleet, self._at_once, self._most = fleet, at_once, most

    def has_room(self, job: Job, in_flight: Counter[Job]) -> bool:
        """See `Place.has_room`."""
        return in_flight.total() < self._at_once

    def size(self, waiting: int) -> int:
        """See `Place.size`; half of what each would get if all were handed over now."""
        return max(1, min(self._most, -(-waiting // (2 * self._at_once))))

    def submit(self, batch: Batch, ended: Callable[[Finish], None]) -> None:
        """See `Place.submit`."""
        ids = tuple(item_id(item) for item in batch.items)
        self.watch(self._fleet.start(batch.job == "train", ids, batch.only, f"{batch.job} {batch.names}"), ended)

    def going_on(self) -> Mapping[str, frozenset[str]]:
        """See `Place.going_on`; by the ids of the flow runs."""
        return self._fleet.going_on()

    def watch(self, name: str, ended: Callable[[Finish], None]) -> None:
        """See `Place.watch`."""

        def finish(end: FlowRunEnd) -> None:
            attempt = end.attempt
            if attempt is None:
                answer = Answer(failed=end.reason, transient=True, lost=not end.cancelled)
            else:
                answer = Answer(attempt.spent, attempt.faults, elsewhere=True)
            ended(lambda: answer)

        self._fleet.watch(name, finish)


@contextmanager
def slots(store: Store, devices: Sequence[str]) -> Iterator[SlotPool]:
    """This machine's slots for the time of the block, for the tasks that are submitted in it.

    Inside another such block for the same store and devices it gives that one's slots: the runs of a night share
    them, so that a base model is loaded once a night and not once a run.
    """
    around = steps.POOL.get(None)
    if around is not None and (around.store_root, around.devices) == (store.root, tuple(devices)):
        yield around
        return
    with SlotPool(devices, store.root, environment.stall_timeout_seconds()) as pool:
        token = steps.POOL.set(pool)
        try:
            yield pool
        finally:
            steps.POOL.reset(token)


def item_id(item: Pack | Shard) -> str:
    """The id of a pack or shard."""
    return item.pack_id if isinstance(item, Pack) else item.shard_id


def join(names: Sequence[str], most: int = 4) -> str:
    """Some names for a person, the first few and how many there are beyond."""
    return listed([name if len(name) <= 32 else name[:31] + "…" for name in names], most)


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
        return steps.train_packs.submit(run_id, ids, number, batch.names, batch.only)
    if batch.job == "generate":
        return steps.generate_shards.submit(run_id, ids, number, batch.names, batch.only)
    return steps.score_shards.submit(run_id, ids, number, batch.names)
