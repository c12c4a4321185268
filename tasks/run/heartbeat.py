"""Who is at work: leases that show people and parents, by the store alone, what goes on where and since when."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from manifests.store.store import Store
from tasks.environment import lease_seconds


def here() -> str:
    """This process in words: machine, process, and the time by this machine's clock."""
    return f"{socket.gethostname()}, process {os.getpid()}, since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"


@contextmanager
def at_work(store: Store, key: str, what: str) -> Iterator[None]:
    """Show for the time of the block that this process is at work.

    It excludes nobody: where another one shows itself under the same key, this one stays unseen.

    Args:
        store: the store.
        key: the lease's key.
        what: what is worked at.
    """
    lease = store.acquire_lease(key, f"{what}: {here()}", lease_seconds())
    if lease is None:
        yield
        return
    try:
        with lease.keep_alive():
            yield
    finally:
        lease.release()  # after the renewing has stopped, which would take a released lease for a lost one
