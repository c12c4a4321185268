"""How a long training spends its time, and how it is stopped."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, Self


class Budget:
    """Minutes a training may use, counted across resumes.

    On a CPU these are minutes of the processor (all threads), so that a training which is paused, or shares the
    machine, neither ends early nor skips a part of its schedule; on a GPU they are minutes of the clock.
    """

    def __init__(self, minutes: float, spent: float = 0.0, device: str = "cpu") -> None:
        """Start counting now; `spent` are the seconds of the parts before."""
        self.seconds, self.before = minutes * 60, spent
        self.clock: Callable[[], float] = time.process_time if device == "cpu" else time.monotonic
        self.start = self.clock()

    @property
    def spent(self) -> float:
        """Seconds used, those before the last resume included."""
        return self.before + self.clock() - self.start

    @property
    def done(self) -> float:
        """Share of the budget used; 1 or more at its end."""
        return self.spent / self.seconds if self.seconds else 1.0


class Stop:
    """Becomes true on SIGTERM or SIGINT inside a `with`, so that a step ends and is saved in place of being lost."""

    def __init__(self) -> None:
        self.asked = False
        self.before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self.before = {number: signal.signal(number, self._ask) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True

    def __bool__(self) -> bool:
        return self.asked


class Every:
    """True once in each stretch of seconds of one clock."""

    def __init__(self, seconds: float, now: float) -> None:
        """The first stretch begins at `now`."""
        self.seconds, self.last = seconds, now

    def due(self, now: float) -> bool:
        """Whether a stretch has passed since the last time."""
        if now - self.last < self.seconds:
            return False
        self.last = now
        return True
