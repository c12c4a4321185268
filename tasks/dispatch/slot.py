"""A slot: one supervised child process of a device, with the base model loaded once.

A job runs in a child, never in the flow's own process, so that a segmentation fault, the kernel's out-of-memory
killer or a poisoned CUDA context is an ordinary exception here: the task's retries apply, the other slots go on, and
the next job on this slot starts a fresh child.

Jobs go down the child's standard input, events and the answer up a private pipe (`tasks.messages`).
The child's standard error is relayed to this module's logger. A child whose parent dies sees its input close and
leaves. It has a session of its own: Ctrl-C on a terminal is for the parent, which stops its slots in order.
"""

from __future__ import annotations

import itertools
import logging
import os
import select
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from tasks.devices import gpu_variables, physical_gpus
from tasks.environment import slot_module
from tasks.errors import JobFailed, SlotClosed, SlotDied, SlotStalled
from tasks.messages import Advance, Heartbeat, Job, JobAnswer, JobError, from_line, to_line
from tasks.progress import Event

logger = logging.getLogger(__name__)

Listener = Callable[[Event], None]

_POLITE_SECONDS = 8.0
"""How long a child may take to leave once its input is closed."""


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
        self._closed, self._calling = False, threading.Lock()

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
            SlotClosed: it was closed before the child answered.
            SlotDied: the child ended before it answered.
            SlotStalled: the child was silent for too long.
            JobFailed: the job raised.
        """
        with self._calling:
            return self._call(job, listen)

    def _call(self, job: Job, listen: Listener) -> JobAnswer:
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

    def close(self) -> None:
        """End the child for good: what is being called fails, and so does every call that comes."""
        self._closed = True
        if child := self._child:
            self._end(child)
        with self._calling:  # whoever calls sees the end of the pipe before it is closed
            self.stop()

    def stop(self) -> None:
        """End the child; the next call starts another one."""
        child, self._child = self._child, None
        if child is not None:
            self._end(child)
            os.close(self._answers)

    def _end(self, child: subprocess.Popen[bytes]) -> None:
        """End a child: politely by closing its input, then by force."""
        assert child.stdin is not None
        try:
            child.stdin.close()
        except OSError:
            logger.debug("slot %s: its input was closed already", self.device)
        try:
            child.wait(timeout=_POLITE_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()

    def _ensure_child(self) -> subprocess.Popen[bytes]:
        if self._closed:
            raise SlotClosed(f"slot {self.name}: closed, as the run is being stopped")
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
            start_new_session=True,
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

    def _died(self, child: subprocess.Popen[bytes]) -> SlotDied | SlotClosed:
        if self._closed:
            return SlotClosed(f"slot {self.name}: closed while it was at work, as the run is being stopped")
        code = child.wait()
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        words = " | ".join(self._last_words)[-600:]
        return SlotDied(
            f"slot {self.device}: the child process {child.pid} ended ({how}). Last words: {words or 'none'}"
        )
