"""The slots of one machine, handed out to whoever has a job; and what each did in a run."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from tasks.dispatch.slot import Slot
from tasks.messages import JobAnswer


class SlotPool:
    """The slots of one machine. Use as a context manager; `borrow` hands out a free slot.

    Attributes:
        devices: one slot each.
        store_root: the store that all of them work in.
        slots: all of them.
        beside: how many of them serve scoring alone, on the CPU, so that no GPU waits for it: one where there are
            GPUs, none elsewhere.
        unclaimed: answers of items of tasks that will be tried again, by task run and slot; else they would be lost.
    """

    def __init__(self, devices: Sequence[str], store_root: str, stall_timeout_seconds: float = 1800.0) -> None:
        """Make a slot per device; children start on first use."""
        self.devices, self.store_root = tuple(devices), store_root
        self.beside = int(any(device.startswith("cuda") for device in devices))
        # Each would otherwise take a thread for every core, and they would wait for each other.
        count = len(devices) + self.beside
        threads = max(1, (os.cpu_count() or 1) // count) if count > 1 else 0
        self.slots = [Slot(device, store_root, stall_timeout_seconds, threads) for device in devices]
        self.unclaimed: dict[str, dict[str, list[JobAnswer]]] = {}
        self._free: queue.SimpleQueue[Slot] = queue.SimpleQueue()
        self._free_beside: queue.SimpleQueue[Slot] = queue.SimpleQueue()
        for number, slot in enumerate(self.slots):
            slot.name = f"{number} {slot.device}"
            self._free.put(slot)
        if self.beside:
            scorer = Slot("cpu", store_root, stall_timeout_seconds, threads)
            scorer.name = "scoring cpu"
            self.slots.append(scorer)
            self._free_beside.put(scorer)

    def __enter__(self) -> SlotPool:
        return self

    def __exit__(self, *exc: object) -> None:
        closing = [threading.Thread(target=slot.close) for slot in self.slots]
        for thread in closing:
            thread.start()
        for thread in closing:
            thread.join()

    @contextmanager
    def borrow(self, *, beside: bool = False) -> Iterator[Slot]:
        """A slot for the time of the block, of those `beside` the GPUs if asked for and there; waits for a free one."""
        free = self._free_beside if beside and self.beside else self._free
        slot = free.get()
        try:
            yield slot
        finally:
            free.put(slot)


def slot_figures(name: str, spent: Mapping[str, float], wall_seconds: float) -> dict[str, Any]:
    """What one slot did in a run: how busy its device was, and what it made an hour.

    Args:
        name: the slot's.
        spent: sums of its answers: seconds by kind of work, and items made.
        wall_seconds: that it was at the run's disposal, waiting and gaps included.

    Returns:
        Without run_id, a row of the SLOTS table. Rates are per hour of that kind of work; null where none was done.
    """

    def per_hour(made: str, seconds: str) -> float | None:
        return 3600 * spent[made] / spent[seconds] if spent.get(made) and spent.get(seconds) else None

    busy_seconds = spent.get("busy_seconds", 0.0)
    return {
        "slot": name,
        "wall_seconds": wall_seconds,
        "busy_seconds": busy_seconds,
        "busy_share": busy_seconds / wall_seconds if wall_seconds else 0.0,
        "adapters": int(spent.get("trained", 0)),
        "pictures": int(spent.get("drawn", 0)),
        "scored": int(spent.get("scored", 0)),
        "adapters_per_hour": per_hour("trained", "train_seconds"),
        "pictures_per_hour": per_hour("drawn", "sample_seconds"),
    }
