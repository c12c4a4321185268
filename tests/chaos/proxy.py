"""A bad network at a given rate: of all requests to the real S3 so many in a hundred go wrong, in six ways."""

from __future__ import annotations

import contextlib
import random
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import get_args

from tests.manifests.store.flaky import Proxy, Trouble, flaky_proxy
from tests.servers import S3Server

TROUBLES: tuple[Trouble, ...] = tuple(one for one in get_args(Trouble) if one != "ignore conditions")
"""Slow down, internal error, reset, lost answer, cut short, delay: each as likely as the others."""


@dataclass
class RandomProxy(Proxy):
    """Requests meet a trouble with probability `rate`, whatever they are; the n-th draw is fixed by the seed."""

    rate: float = 0.0
    met: Counter[str] = field(default_factory=Counter)
    """How many requests met which trouble; "none" for the others."""
    _draw: random.Random = field(default_factory=lambda: random.Random(0))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def next_trouble(self, method: str, path: str) -> Trouble | None:
        """Draw for one request."""
        with self._lock:
            trouble = self._draw.choice(TROUBLES) if self._draw.random() < self.rate else None
            self.delay_seconds = self._draw.uniform(0.05, 0.8)
            self.met[trouble or "none"] += 1
            self.seen.clear()  # a session of hours would keep them all
        return trouble

    def reseed(self, seed: str) -> None:
        """Begin the sequence of draws anew."""
        with self._lock:
            self._draw = random.Random(seed)


@contextlib.contextmanager
def bad_network(server: S3Server, rate: float, seed: int) -> Iterator[RandomProxy]:
    """Run the proxy in front of the server."""
    with flaky_proxy(server, RandomProxy) as proxy:
        assert isinstance(proxy, RandomProxy)
        proxy.rate = rate
        proxy.reseed(str(seed))
        yield proxy
