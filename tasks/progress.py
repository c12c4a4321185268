"""Who wants to know how far the work is: a terminal's progress bars, a test, nobody.

Prefect's own records hold states, not steps; step-by-step progress stays inside the process that asked for the run.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

Event = Mapping[str, Any]
"""A ``kind``, the ``id`` of what it is about, and mostly ``done`` and ``total``.

============================  ===========================================================================
kind                          says
============================  ===========================================================================
run                           a run's plan is kept; its id alone
work                          what the run needs: ``done`` and ``total`` are sums for each kind of work
parts                         a block probe is kept; how many parts are missing
rescore                       how many pictures further scorers have to judge
train, sample, score          a slot at a pack (steps, maybe ``loss``) or a shard (pictures)
method                        a slot at another method's item, whose id is for people
probe                         a slot at a part of a block probe (pictures)
============================  ===========================================================================

The last three rows come from slots, where they are `tasks.messages.Advance`."""

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
