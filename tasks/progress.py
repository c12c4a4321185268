"""Who wants to know how far the work is: a terminal's progress bars, a test, nobody.

Prefect's own records hold states, not steps; step-by-step progress stays inside the process that asked for the run.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

Event = Mapping[str, Any]
"""``kind`` (train | sample | score), ``id`` of the pack or shard, ``done`` and ``total`` in steps or samples, maybe
``loss``. Before those come ``run`` (its ``id``) and ``work``, whose ``done`` and ``total`` are sums for each kind."""

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
