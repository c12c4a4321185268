"""Which item next: trainings, shards and scores handed over as they become possible, here or to a work pool.

Scores go before pictures and pictures before trainings: what is paid for becomes visible first.
"""

from __future__ import annotations

import queue
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from typing import Any

from flows.scheduling.place import Answer, Batch, Finish, Job, Place, item_id, members
from flows.scheduling.refusals import Refusals
from manifests.faults import Fault
from manifests.store.store import Store
from tasks import progress
from tasks.dispatch.slots import slot_figures
from tasks.run.inventory import Inventory, take_inventory
from tasks.run.plan import Pack, Plan, Shard
from tasks.run.selection import Selection

ATTEMPTS = 4
"""How often an item is handed over whose holder goes missing."""


@dataclass
class Board:
    """What is ready, what waits for adapters, and what came back.

    Attributes:
        store: the store.
        plan: the run's plan, or a part of it.
        selection: the items of the plan that are wanted.
        place: where they are handed over.
        known: what there is of the plan, where somebody has just looked and nobody else can be at work on it.
        pace: what `tasks.progress.Tally` reckons by; empty where nothing is known.
        inventory: what there was when the work began.
        failures: the failures of items, in the end.
        idle: whether nothing had to be done, in the end.
        spent: by slot, its seconds (``wall_seconds``: at the disposal of this work) and items made, in the end.
    """

    store: Store
    plan: Plan
    selection: Selection
    place: Place
    known: InitVar[Inventory | None] = None
    pace: Mapping[str, float] = field(default_factory=dict)
    inventory: Inventory = field(init=False)
    failures: list[Fault] = field(default_factory=list)
    idle: bool = field(default=True, init=False)
    spent: dict[str, dict[str, float]] = field(default_factory=dict)

    def __post_init__(self, known: Inventory | None) -> None:
        # Asked before anybody looks at what there is: what ends in between is then seen as done, not begun once more.
        self._adopted = self.place.going_on()
        inventory = self.inventory = known or take_inventory(self.store, self.plan)
        coming = self.selection.adapters - inventory.adapters
        self._packs = deque(pack for pack in self.plan.packs if any(a.adapter_id in coming for a in pack.adapters))
        self._ready: deque[Shard] = deque()
        self._to_score: deque[Shard] = deque()
        self._awaited: dict[str, set[str]] = {}
        """Adapters that a shard waits for, by the shard's id."""
        self._waiting_for: dict[str, list[Shard]] = {}
        """Shards that wait for an adapter, by the adapter's id."""
        self._attempts: Counter[str] = Counter()
        self._refusals = Refusals()
        possible = inventory.adapters | coming
        unscored = inventory.pictures.keys() - inventory.scored
        for shard in self.plan.shards:
            wanted = [sample for sample in shard.samples if sample.sample_id in self.selection.samples]
            to_draw = [
                sample
                for sample in wanted
                if sample.sample_id not in inventory.pictures and sample.adapter_ids <= possible
            ]
            awaited = {adapter_id for sample in to_draw for adapter_id in sample.adapter_ids} & coming
            if awaited:
                self._awaited[shard.shard_id] = awaited
                for adapter_id in awaited:
                    self._waiting_for.setdefault(adapter_id, []).append(shard)
            elif to_draw:
                self._ready.append(shard)
            elif any(sample.sample_id in unscored for sample in wanted):
                self._to_score.append(shard)

    def run(self) -> None:
        """Hand over and settle until nothing is left."""
        in_flight: Counter[Job] = Counter()
        started = time.monotonic()
        self._announce()
        ended: queue.SimpleQueue[tuple[Batch, Finish]] = queue.SimpleQueue()

        def tell(batch: Batch) -> Callable[[Finish], None]:
            return lambda finish: ended.put((batch, finish))

        for name, ids in self._adopted.items():
            batch = self._take(ids)
            if batch is not None:
                self.place.watch(name, tell(batch))
                in_flight[batch.job] += 1
                self.idle = False
        while True:
            while next_batch := self._next(in_flight):
                self.place.submit(next_batch, tell(next_batch))
                in_flight[next_batch.job] += 1
                self.idle = False
            if not in_flight.total():
                break
            batch, finish = ended.get()
            in_flight[batch.job] -= 1
            self._settle(batch, finish())
        self.failures += self._refusals.faults()
        wall_seconds = time.monotonic() - started
        for spent in self.spent.values():
            spent.setdefault("wall_seconds", wall_seconds)

    @property
    def timings(self) -> dict[str, Any]:
        """For run.json, once the work has ended: the sums over all slots, and ``slots``, the figures of each."""
        sums: dict[str, float] = {}
        for spent in self.spent.values():
            _add(sums, {name: value for name, value in spent.items() if name != "wall_seconds"})
        rows = [slot_figures(name, spent, spent["wall_seconds"]) for name, spent in self.spent.items()]
        return {**sums, "slots": rows} if rows else {}

    def _announce(self) -> None:
        """Tell whoever watches how much of the run is done and how much will have been in the end."""
        pictures, to_draw = len(self.plan.samples), [*self._ready, *map(self.plan.shard, self._awaited)]
        undrawn = sum(len(shard.samples) for shard in to_draw)
        unscored = undrawn + sum(len(shard.samples) for shard in self._to_score)
        steps = len(self._packs) * self.plan.run.settings.train.steps
        done = {"train": 0, "sample": pictures - undrawn, "score": pictures - unscored}
        total = {"train": steps, "sample": pictures, "score": pictures}
        work = {"kind": "work", "id": self.plan.run.run_id, "done": done, "total": total}
        progress.publish(work | ({"pace": self.pace} if self.pace else {}))

    def _next(self, in_flight: Counter[Job]) -> Batch | None:
        """What comes first and finds room; None where nothing does."""
        if not self._refusals.lets_begin(in_flight.total()):
            return None
        queues: tuple[tuple[Job, deque[Pack] | deque[Shard]], ...] = (
            ("score", self._to_score),
            ("generate", self._ready),
            ("train", self._packs),
        )
        for job, waiting in queues:
            if waiting and self.place.has_room(job, in_flight):
                return self._batch(job, [waiting.popleft() for _ in range(self.place.size(len(waiting)))])
        return None

    def _batch(self, job: Job, items: Sequence[Pack | Shard]) -> Batch:
        """The items with the ids of what is wanted of them, unless that is all."""
        all_of_them = [member for item in items for member in members(item)]
        wanted = self.selection.adapters if job == "train" else self.selection.samples
        only = tuple(member for member in all_of_them if member in wanted)
        return Batch(job, tuple(items), None if len(only) == len(all_of_them) else only)

    def _take(self, ids: frozenset[str]) -> Batch | None:
        """Take items out of what is to be done because somebody is at them; None where nothing of theirs is."""
        packs = [pack for pack in self._packs if pack.pack_id in ids]
        shards = [shard for shard in (*self._ready, *self._to_score) if shard.shard_id in ids]
        self._packs = deque(pack for pack in self._packs if pack.pack_id not in ids)
        self._ready = deque(shard for shard in self._ready if shard.shard_id not in ids)
        self._to_score = deque(shard for shard in self._to_score if shard.shard_id not in ids)
        return self._batch("train", packs) if packs else self._batch("generate", shards) if shards else None

    def _settle(self, batch: Batch, answer: Answer) -> None:
        """Take an answer and see what it makes possible."""
        if answer.refused:
            if self._refusals.add(answer.refused):
                progress.publish({"kind": "note", "id": self.plan.run.run_id, "text": answer.refused.sentence})
            self._put_back(batch)
            return
        if answer.lost and self._hand_back(batch):
            return
        self._refusals.forget()
        for slot, figures in answer.spent.items():
            _add(self.spent.setdefault(slot, {}), figures)
        self.failures += answer.faults
        for item in batch.items:
            if answer.failed:
                self._fail(batch.job, item, answer.failed, answer.transient)
            elif error := answer.failed_items.get(item_id(item)):
                self._fail(batch.job, item, error.message, error.may_pass)
        if answer.elsewhere:
            self._tell(batch, answer)
        if batch.job == "train":
            for item in batch.items:
                self._release(members(item))
        elif batch.job == "generate" and not answer.failed and not answer.elsewhere:
            self._to_score.extend(item for item in batch.items if isinstance(item, Shard))

    def _tell(self, batch: Batch, answer: Answer) -> None:
        """Publish the progress of work elsewhere, whose steps nobody here has seen: what an item came to at its end."""
        failed = {fault.item for fault in answer.faults}
        for item in batch.items:
            made = sum(member not in failed for member in members(item))
            kinds = ("train",) if isinstance(item, Pack) else ("sample", "score")
            total = self.plan.run.settings.train.steps if isinstance(item, Pack) else len(item.samples)
            done = total * (made > 0) if isinstance(item, Pack) else made
            for kind in kinds if done else ():
                progress.publish({"kind": kind, "id": item_id(item), "done": done, "total": total})

    def _hand_back(self, batch: Batch) -> bool:
        """Put items whose holder is gone back in front; False once they have been handed over often enough."""
        self._attempts.update(item_id(item) for item in batch.items)
        if max(self._attempts[item_id(item)] for item in batch.items) >= ATTEMPTS:
            return False
        self._put_back(batch)
        return True

    def _put_back(self, batch: Batch) -> None:
        for item in reversed(batch.items):
            if isinstance(item, Pack):
                self._packs.appendleft(item)
            elif isinstance(item, Shard):
                self._ready.appendleft(item)

    def _release(self, settled: Sequence[str]) -> None:
        """Shards whose last awaited adapter has come, or will never come, are ready."""
        for adapter_id in settled:
            for shard in self._waiting_for.pop(adapter_id, ()):
                awaited = self._awaited[shard.shard_id]
                awaited.discard(adapter_id)
                if not awaited:
                    del self._awaited[shard.shard_id]
                    self._ready.append(shard)

    def _fail(self, job: Job, item: Pack | Shard, why: str, transient: bool) -> None:
        """Give each member of an item that failed a fault; `collect` keeps those of members that are really missing."""
        work = {"train": "training", "generate": "drawing", "score": "scoring"}[job]
        for member in members(item):
            self.failures.append(
                Fault(
                    kind="train" if job == "train" else "sample",
                    item=member,
                    what=f"{work} failed",
                    received=why[:2000],
                    accepted="",
                    hint="mend the cause, then: blora rerun",
                    transient=transient,
                )
            )


def _add(sums: dict[str, float], figures: Mapping[str, float]) -> None:
    for name, value in figures.items():
        sums[name] = sums.get(name, 0.0) + value
