"""Who is at work: leases that show people and parents, by the store alone, what goes on where and since when."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from manifests import layout
from manifests.errors import counted, listed, printable, printable_name
from manifests.store.leases import Held
from manifests.store.store import Store
from tasks.environment import lease_seconds
from tasks.run.plan import Plan, PlannedAdapter

_HERE = re.compile(r"(?P<host>\S+), process (?P<pid>\d+), since ")


def here() -> str:
    """This process in words: machine, process, and the time by this machine's clock."""
    return f"{socket.gethostname()}, process {os.getpid()}, since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"


def is_gone(held: Held) -> bool:
    """Whether the process that holds a lease is known to be dead: it was one of this machine, and there is none such.

    Of a machine that has another one's name, such as a container without a name of its own, this says nothing true.
    """
    found = _HERE.search(held.holder)
    if found is None or found["host"] != socket.gethostname():
        return False
    try:
        os.kill(int(found["pid"]), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # another user's
        return False
    return False


@contextmanager
def at_work(store: Store, key: str, what: str, doing: Callable[[], str] = str) -> Iterator[None]:
    """Show for the time of the block that this process is at work.

    It excludes nobody: where another one shows itself under the same key, this one stays unseen. The lease of a process
    that is known to be dead is taken at once, and one that lapsed meanwhile is released: who had it is not at work.

    Args:
        store: the store.
        key: the lease's key.
        what: what is worked at.
        doing: asked at each renewal how far it is.
    """
    holder = f"{what}: {here()}"
    if (held := store.look_at_lease(key, lease_seconds())) is not None and held.is_live and is_gone(held):
        store.break_lease(key)
    lease = store.acquire_lease(key, holder, lease_seconds())
    if lease is None:
        try:
            yield
        finally:
            if (left := store.acquire_lease(key, holder, lease_seconds())) is not None:
                left.release()
        return
    lease.doing = doing
    try:
        with lease.keep_alive():
            yield
    finally:
        lease.release()  # after the renewing has stopped, which would take a released lease for a lost one


def until(held: Held) -> str:
    """Say when a lease ends unless it is renewed."""
    return f"until {datetime.fromtimestamp(held.ends_at, UTC):%H:%M:%S} UTC, unless it is renewed"


def waiting_for(store: Store, adapters: Sequence[PlannedAdapter]) -> tuple[str, str]:
    """Say for whom the training of some adapters waits: how many, which, who has them, where; and until when.

    Raises:
        StoreError: the store cannot be asked.
    """
    looked = [store.look_at_lease(layout.lease_key(one.adapter_id), lease_seconds()) for one in adapters[:3]]
    names = listed([printable_name(one.name) for one in adapters], 3)
    said = f"waits for {counted(len(adapters), 'adapter')} that another run trains: {names}"
    live = [held for held in looked if held is not None and held.is_live]
    if not live:
        return said, "a lease has just ended"
    holders = listed(sorted({printable_name(held.holder) for held in live}), 2)
    return f"{said}: held by {holders}", until(max(live, key=lambda held: held.ends_at))


def take_over(store: Store, plan: Plan) -> list[str]:
    """Take the leases of a run and of all its adapters away from whoever holds them.

    Returns:
        What was taken from whom, a line each.

    Raises:
        StoreError: the store cannot be asked.
    """
    run_id = plan.run.run_id
    names = {layout.lease_key(adapter.adapter_id): f"the training of {adapter.name}" for adapter in plan.adapters}
    names[layout.run_lease_key(run_id)] = f"run {run_id}"
    there = [key for key in store.list(layout.LEASES_PREFIX) if key in names]
    return [
        printable(f"took over {names[key]} from {held.holder}")
        for key in there
        if (held := store.break_lease(key)) is not None
    ]
