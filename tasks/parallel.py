"""Many questions to the store at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Answer = TypeVar("Answer")

REQUESTS_AT_ONCE = 16
"""Questions to the store at once; below the connections that it keeps."""


def in_parallel(ask: Callable[[str], Answer], subjects: Sequence[str]) -> list[Answer]:
    """Ask the store about many things, some at a time; a bucket answers each in milliseconds, but answers many at once.

    Raises:
        StoreError: one of the questions failed; which ones were asked besides is left open.
    """
    with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
        return list(pool.map(ask, subjects))
