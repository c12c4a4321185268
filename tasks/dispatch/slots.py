"""Slots: one supervised child process per device, with the base model loaded once.

A job runs in a child, never in the flow's own process, so that a segmentation fault, the kernel's out-of-memory
killer or a poisoned CUDA context is an ordinary exception here: the task's retries apply, the other slots go on, and
the next job on this slot starts a fresh child.

Jobs go down the child's standard input, events and the answer up a private pipe (`tasks.messages`).
The child's standard error is relayed to this module's logger. A child whose parent dies sees its input close and
leaves.
"""

from __future__ import annotations

import itertools
import logging
import os
import queue
import select
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from tasks.devices import gpu_variables, physical_gpus
from tasks.environment import slot_module
from tasks.errors import JobFailed, SlotDied, SlotStalled
from tasks.messages import Advance, Heartbeat, Job, JobAnswer, JobError, from_line, to_line
from tasks.progress import Event

logger = logging.getLogger(__name__)

Listener = Callable[[Event], None]


class Slot:
    """One device and the child process bound to it; the child starts with the first job and again after each death."""

    def __init__(self, device: str, store_root: str, stall_timeout_seconds: float, threads: int = 0) -> None:
        """Bind to a device.

        Args:
            device: ``cpu`` or ``cuda:<index>``.
            store_root: the store that the child opens.
            stall_timeout_seconds: a child that is silent for longer than this is ended.
            threads: that the child computes with on the CPU, where OMP_NUM_THREADS says nothing; 0: one a core.
        """
        self.device = device
        self.name = device
        self.store_root = store_root
        self.stall_timeout_seconds, self.threads = stall_timeout_seconds, threads
        self._child: subprocess.Popen[bytes] | None = None
        self._answers = -1
        self._unread = b""
        self._numbers = itertools.count(1)
        self._last_words: deque[str] = deque(maxlen=20)

    @property
    def pid(self) -> int | None:
        """Process id of the living child, or None."""
        return self._child.pid if self._child and self._child.poll() is None else None

    def call(self, job: Job, listen: Listener = lambda event: None) -> JobAnswer:
        """Have the child do one job and wait for its answer.

        Args:
            job: what is to be done.
            listen: called with each event that the job emits on its way.

        Raises:
            SlotDied: the child ended before it answered.
            SlotStalled: the child was silent for too long.
            JobFailed: the job raised.
        """
        child = self._ensure_child()
        number, doing = next(self._numbers), ""
        try:
            assert child.stdin is not None
            child.stdin.write(to_line(number, job))
            child.stdin.flush()
        except OSError as error:
            raise self._died(child) from error
        for request, message in self._messages(child):
            if request != number:
                continue  # of a job whose caller went away before its end
            match message:
                case Advance():
                    listen(message.as_event())
                case Heartbeat():
                    if message.doing != doing:
                        doing = message.doing
                        logger.info("slot %s: %s", self.name, doing)
                        if message.until:  # a person who sees nothing happen must know why
                            listen({"kind": "note", "id": self.name, "text": f"{doing}; {message.until}"})
                case JobError():
                    raise JobFailed(message.error_class, message.message, message.transient)
                case _:
                    return message
        raise self._died(child)

    def stop(self) -> None:
        """End the child: politely by closing its input, then by force."""
        child, self._child = self._child, None
        if child is None:
            return
        assert child.stdin is not None
        try:
            child.stdin.close()
        except OSError:
            logger.debug("slot %s: its input was closed already", self.device)
        try:
            child.wait(timeout=5)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        os.close(self._answers)

    def _ensure_child(self) -> subprocess.Popen[bytes]:
        if self._child is not None and self._child.poll() is None:
            return self._child
        self.stop()
        read_end, write_end = os.pipe()
        environment = {**({"OMP_NUM_THREADS": str(self.threads)} if self.threads else {}), **os.environ}
        device = self.device
        if device.startswith("cuda:"):
            environment |= gpu_variables(physical_gpus([device]))
            # Without it, torch refuses to compute deterministically.
            environment.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            device = "cuda:0"
        command = [sys.executable, "-m", slot_module(), device, self.store_root, str(write_end)]
        child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=(write_end,),
            env=environment,
        )
        os.close(write_end)
        self._child, self._answers, self._unread = child, read_end, b""
        threading.Thread(target=self._relay_stderr, args=(child,), daemon=True).start()
        logger.info("slot %s: child process %d", self.device, child.pid)
        return child

    def _messages(self, child: subprocess.Popen[bytes]) -> Iterator[tuple[int, Any]]:
        """Messages of the child, each with the number of its request, until its pipe closes."""
        while True:
            ready, _, _ = select.select([self._answers], [], [], self.stall_timeout_seconds)
            if not ready:
                child.kill()
                child.wait()
                raise SlotStalled(
                    f"slot {self.device}: the child process {child.pid} was silent for "
                    f"{self.stall_timeout_seconds:g} s and was ended; its item is tried again. "
                    "BLORA_STALL_TIMEOUT_SECONDS sets the limit."
                )
            chunk = os.read(self._answers, 1 << 16)
            if not chunk:
                return
            self._unread += chunk
            *lines, self._unread = self._unread.split(b"\n")
            for line in lines:
                yield from_line(line)

    def _relay_stderr(self, child: subprocess.Popen[bytes]) -> None:
        assert child.stderr is not None
        for raw in child.stderr:
            line = raw.decode(errors="replace").rstrip()
            self._last_words.append(line)
            logger.debug("slot %s: %s", self.device, line)

    def _died(self, child: subprocess.Popen[bytes]) -> SlotDied:
        code = child.wait()
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        words = " | ".join(self._last_words)[-600:]
        return SlotDied(
            f"slot {self.device}: the child process {child.pid} ended ({how}). Last words: {words or 'none'}"
        )


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
        for slot in self.slots:
            slot.stop()

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
