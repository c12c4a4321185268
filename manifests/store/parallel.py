"""Many questions to the store at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from manifests.store.store import Store

Subject = TypeVar("Subject")
Answer = TypeVar("Answer")


def in_parallel(store: Store, ask: Callable[[Subject], Answer], subjects: Sequence[Subject]) -> list[Answer]:
    """Ask the store about many things, as many at a time as it answers fastest.

    Raises:
        StoreError: one of the questions failed; which ones were asked besides is left open.
    """
    with ThreadPoolExecutor(store.requests_at_once) as pool:
        return list(pool.map(ask, subjects))
