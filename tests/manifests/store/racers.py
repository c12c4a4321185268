"""What the racing processes of the tests run; imports little, for each process imports it anew."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TypeVar

from manifests.store.store import Store

T = TypeVar("T")


def _start_together(environment: dict[str, str], start: float) -> None:
    os.environ.update(environment)
    time.sleep(max(0.0, start - time.time()))


def write_once(environment: dict[str, str], start: float, root: str, key: str, data: bytes) -> bool:
    """Try to be the writer of an object."""
    _start_together(environment, start)
    return Store.open(root).write_once(key, data)


def acquire(environment: dict[str, str], start: float, root: str, key: str) -> str | None:
    """Try to take a lease; return its nonce."""
    _start_together(environment, start)
    lease = Store.open(root).acquire_lease(key, f"process {os.getpid()}", 600)
    return lease.nonce if lease else None


def hold_for_ever(
    environment: dict[str, str], root: str, key: str, ttl_seconds: float, report: Callable[[str], None]
) -> None:
    """Take a lease, say so, and keep it alive until killed."""
    os.environ.update(environment)
    lease = Store.open(root).acquire_lease(key, "doomed", ttl_seconds)
    assert lease is not None
    with lease.keep_alive():
        report(lease.nonce)
        time.sleep(3600)


def write_for_ever(environment: dict[str, str], root: str, size_bytes: int) -> None:
    """Write large objects, each of one repeated byte, until killed."""
    os.environ.update(environment)
    store = Store.open(root)
    for number in range(1_000_000):
        store.write_once(f"big/{number}", bytes([number % 251]) * size_bytes)
