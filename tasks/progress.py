"""Who wants to know how far the work is: a terminal's progress bars, a test, nobody.

Prefect's own records hold states, not steps; step-by-step progress stays inside the process that asked for the run.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

Event = Mapping[str, Any]
"""Always ``kind`` and ``id``; the others say how far something is. From slots they come as `tasks.messages.Advance`.

run     a run is planned: its id
work    how much of a run is done and will have been: ``done`` and ``total`` by kind (train, sample, score)
parts   a probe is planned: its id, and in ``total`` how many parts are missing
train, sample, score, probe   ``done`` and ``total`` of a pack, shard or part, in steps or pictures; maybe ``loss``
method  the same of what another method does, which ``id`` names
note    something that a person should know at once, in ``text``: that a slot waits, and for whom
"""

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
