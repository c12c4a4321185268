"""Which item next: trainings, shards and scores handed to the slots as they become possible.

As many task runs are submitted as there are slots, so that "Running" in the UI means running. Scores go before
pictures and pictures before trainings: what is paid for becomes visible first.
"""

from __future__ import annotations

import queue
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from prefect.futures import PrefectFuture

from manifests.faults import Fault
from manifests.store import Store
from tasks import environment, steps
from tasks.faults import is_transient
from tasks.runs import Pack, Plan, Shard
from tasks.slots import SlotPool, slot_figures
from tasks.stock import take_stock

Future = PrefectFuture[dict[str, Any]]


def work_off(store: Store, plan: Plan, devices: Sequence[str]) -> tuple[list[Fault], dict[str, Any]]:
    """Do everything the store lacks of a plan.

    Args:
        store: the store.
        plan: the run's plan.
        devices: one slot each.

    Returns:
        The failures of items; slot seconds spent and items made, by kind of work, and under ``slots`` by slot.
    """
    board = Board(store, plan)
    with SlotPool(devices, store.root, environment.stall_timeout_seconds()) as pool:
        token = steps.POOL.set(pool)
        try:
            board.run(len(devices), pool.beside)
        finally:
            steps.POOL.reset(token)
    return board.failures, board.timings


@dataclass
class Board:
    """What is ready, what waits for adapters, and what came back."""

    store: Store
    plan: Plan
    failures: list[Fault] = field(default_factory=list)
    timings: dict[str, Any] = field(default_factory=dict)
    slots: dict[str, dict[str, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        plan = self.plan
        stock = take_stock(self.store, plan)
        scored = stock.scored
        self.packs = deque(
            pack for pack in plan.packs if any(a.adapter_id not in stock.adapters for a in pack.adapters)
        )
        coming = {a.adapter_id for pack in self.packs for a in pack.adapters} - stock.adapters
        self.ready: deque[Shard] = deque()
        self.to_score: deque[Shard] = deque()
        self.waiting: dict[str, set[str]] = {}
        for shard in plan.shards:
            drawn = {s.sample_id for s in shard.samples} <= stock.samples
            if not drawn and shard.adapter_ids & coming:
                self.waiting[shard.shard_id] = set(shard.adapter_ids & coming)
            elif not drawn:
                self.ready.append(shard)
            elif not {s.sample_id for s in shard.samples} <= scored:
                self.to_score.append(shard)

    def run(self, slots: int, beside: int = 0) -> None:
        """Submit and settle until nothing is left.

        At most `slots` items are in flight; scorings count apart where slots `beside` them serve that alone.
        """
        in_flight: dict[Future, Pack | Shard] = {}
        scoring: set[Future] = set()
        ended: queue.SimpleQueue[Future] = queue.SimpleQueue()
        started = time.monotonic()
        while True:
            while submitted := self._submit_next(
                slots - len(in_flight) + len(scoring), beside - len(scoring) if beside else None
            ):
                future, item, apart = submitted
                in_flight[future] = item
                if apart:
                    scoring.add(future)
                future.add_done_callback(ended.put)
            if not in_flight:
                break
            future = ended.get()
            scoring.discard(future)
            self._settle(in_flight.pop(future), future)
        wall_seconds = time.monotonic() - started
        if self.slots:
            self.timings["slots"] = [slot_figures(name, spent, wall_seconds) for name, spent in self.slots.items()]

    def _submit_next(self, free: int, free_to_score: int | None) -> tuple[Future, Pack | Shard, bool] | None:
        """Submit what comes first and finds a slot; the last value says whether it is a slot for scoring alone.

        Args:
            free: slots that are free.
            free_to_score: slots for scoring alone that are free; None where there are none at all.
        """
        run_id = self.plan.run.run_id
        if self.to_score and (free if free_to_score is None else free_to_score) > 0:
            shard = self.to_score.popleft()
            future = steps.score_shard.submit(run_id, shard.shard_id, shard.index, _shard_names(shard))
            return future, shard, free_to_score is not None
        if free <= 0:
            return None
        if self.ready:
            shard = self.ready.popleft()
            return steps.generate_shard.submit(run_id, shard.shard_id, shard.index, _shard_names(shard)), shard, False
        if self.packs:
            pack = self.packs.popleft()
            names = _join([adapter.name for adapter in pack.adapters])
            return steps.train_pack.submit(run_id, pack.pack_id, pack.index, names), pack, False
        return None

    def _settle(self, item: Pack | Shard, future: Future) -> None:
        """Take a finished task's result and see what it makes possible."""
        future.wait()
        state = future.state
        answer: dict[str, Any] = {}
        if state.is_completed():
            answer = future.result()
        else:
            self._fail(
                item, state.data if isinstance(state.data, BaseException) else None, state.message or state.name or ""
            )
        spent = self.slots.setdefault(answer["slot"], {}) if "slot" in answer else {}
        for name, value in answer.items():
            if name.endswith("_seconds") or name in {"trained", "drawn", "scored"}:
                spent[name] = spent.get(name, 0.0) + (value if name.endswith("_seconds") else len(value))
            if name.endswith("_seconds"):
                self.timings[name] = self.timings.get(name, 0.0) + value
            elif name in {"trained", "drawn", "scored"}:
                self.timings[name] = self.timings.get(name, 0.0) + len(value)
        if isinstance(item, Pack):
            self.failures += [Fault(**fault) for fault in answer.get("faults", [])]
            self._release({adapter.adapter_id for adapter in item.adapters})
        elif "drawn" in answer:
            self.to_score.append(item)

    def _release(self, settled: set[str]) -> None:
        """Shards whose last awaited adapter has come, or will never come, are ready."""
        shards = {shard.shard_id: shard for shard in self.plan.shards}
        for shard_id in list(self.waiting):
            self.waiting[shard_id] -= settled
            if not self.waiting[shard_id]:
                del self.waiting[shard_id]
                self.ready.append(shards[shard_id])

    def _fail(self, item: Pack | Shard, error: BaseException | None, message: str) -> None:
        """Give each item of a task that gave up a fault; `collect` keeps those of items that are really missing."""
        kind = "train" if isinstance(item, Pack) else "sample"
        ids = [a.adapter_id for a in item.adapters] if isinstance(item, Pack) else [s.sample_id for s in item.samples]
        for item_id in ids:
            self.failures.append(
                Fault(
                    kind=kind,
                    item=item_id,
                    what=f"the {kind} task failed after its retries",
                    received=str(error or message)[:2000],
                    accepted="a finished task",
                    hint="mend the cause, then: blora rerun",
                    transient=error is not None and is_transient(error),
                )
            )


def _shard_names(shard: Shard) -> str:
    samples = shard.samples
    return f"{samples[0].content_name} x {_join(list(dict.fromkeys(s.style_name for s in samples)))}"


def _join(names: Sequence[str], most: int = 4) -> str:
    shown = [name if len(name) <= 32 else name[:31] + "…" for name in names[:most]]
    return ", ".join(shown) + (f" and {len(names) - most} more" if len(names) > most else "")
