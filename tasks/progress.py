"""Who wants to know how far the work is: a terminal's progress bars, a test, nobody.

Prefect's own records hold states, not steps; step-by-step progress stays inside the process that asked for the run.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tasks.words import roughly

Event = Mapping[str, Any]
"""Always ``kind`` and ``id``; the others say how far something is. From slots they come as `tasks.messages.Advance`.

manifest  a night takes up the next: its name, and in ``done`` and ``total`` which of how many it is
run     a run is planned: its id, and in ``text`` a line about it
work    how much of a run is done and will have been: ``done`` and ``total`` by kind (train, sample, score); maybe
        ``pace``, the seconds that it is reckoned to take (`Tally`)
parts   a probe is planned: its id, and in ``total`` how many parts are missing
train, sample, score, probe   ``done`` and ``total`` of a pack, shard or part, in steps or pictures; maybe ``loss``
method  the same of what another method does, which ``id`` names
note    something that a person should know at once, in ``text``: that a slot waits, and for whom
"""

KINDS = ("train", "sample", "score")
UNITS = {"train": "steps", "sample": "pictures", "score": "scores", "probe": "pictures"}
"""What is counted of a kind of work."""

_BELIEVED_SECONDS = 5.0
"""How much work must have been done for its own pace to count as much as the reckoned one."""


class Tally:
    """How far a run's work is, and how long the rest will take. A listener; safe in threads.

    What is left is reckoned by the pace of the estimate and, the more has been done, by how much faster or slower that
    went: slot seconds that should have passed against those that have.
    """

    def __init__(self) -> None:
        """Nothing is known yet."""
        self._pace: Mapping[str, float] = {}
        self._already: dict[str, int] = {}
        self._total: dict[str, int] = {}
        self._done: dict[tuple[str, str], int] = {}
        self._announced = 0.0
        self._first: tuple[float, float] | None = None  # when the first step came, and the slot seconds done by then

    def __call__(self, event: Event) -> None:
        """Take one event."""
        if event["kind"] == "work":
            self._pace, self._announced = event.get("pace", {}), time.monotonic()
            self._already, self._total = dict(event["done"]), dict(event["total"])
            self._done, self._first = {}, None
        elif event["kind"] in KINDS:
            self._done[event["kind"], str(event["id"])] = event["done"]
            if self._first is None:
                self._first = time.monotonic(), self._reckoned_done()

    def done(self, kind: str) -> int:
        """How much of a kind of work is done, with what was there before."""
        return self._already.get(kind, 0) + sum(done for (of, _), done in tuple(self._done.items()) if of == kind)

    def seconds_left(self, kind: str = KINDS[-1]) -> float | None:
        """Until that kind of work and those before it are done; None where no pace is known."""
        if not self._pace or kind not in KINDS:
            return None
        slot_seconds = sum(
            max(0, self._total.get(one, 0) - self.done(one)) * self._pace.get(one, 0.0)
            for one in KINDS[: KINDS.index(kind) + 1]
        )
        now, slots = time.monotonic(), self._pace.get("slots", 1.0)
        if self._first is None:
            start = max(0.0, self._pace.get("other", 0.0) - (now - self._announced))
            return start + slot_seconds / slots
        since, before = self._first
        spent, reckoned = (now - since) * slots, self._reckoned_done() - before
        return slot_seconds / slots * (spent + _BELIEVED_SECONDS) / (reckoned + _BELIEVED_SECONDS)

    def sentence(self) -> str:
        """How far it is, for people; empty before it has begun."""
        counts = [f"{self.done(kind)} of {total} {UNITS[kind]}" for kind, total in self._total.items() if total]
        left = self.seconds_left()
        return ", ".join(counts) + (f"; about {roughly(left)} left" if counts and left is not None else "")

    def _reckoned_done(self) -> float:
        return sum(done * self._pace.get(kind, 0.0) for (kind, _), done in tuple(self._done.items()))


_listeners: list[Callable[[Event], None]] = []
_lock = threading.Lock()


@contextmanager
def watching(listener: Callable[[Event], None]) -> Iterator[None]:
    """Have every event of this process sent to `listener` for the time of the block."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def publish(event: Event) -> None:
    """Send an event to whoever watches; one at a time, whichever slot's thread it comes from."""
    with _lock:
        for listener in tuple(_listeners):
            listener(event)
