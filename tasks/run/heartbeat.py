"""Who is at work: leases that show people and parents, by the store alone, what goes on where and since when."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from manifests import layout
from manifests.errors import counted, listed, printable, printable_name
from manifests.store.leases import Held, Lease
from manifests.store.store import Store
from tasks.environment import lease_seconds
from tasks.run.plan import Plan, PlannedAdapter

_BOOT = Path("/proc/sys/kernel/random/boot_id")


def here() -> str:
    """This process in words: machine, process, and the time by this machine's clock."""
    return f"{socket.gethostname()}, process {os.getpid()}, since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"


def process_mark(process_id: int | None = None) -> str:
    """What tells a process from all others, of any machine and any time; empty where the system does not say.

    Boot of the machine, namespace of process ids (a container has its own), id, and start in clock ticks since the
    boot: an id that is given again comes with another start. Linux alone says all that.

    Args:
        process_id: of a process of this machine; this one where it is left out.
    """
    pid = os.getpid() if process_id is None else process_id
    try:
        boot, space = _BOOT.read_text().strip(), os.readlink("/proc/self/ns/pid")
        return f"{boot} {space} {pid} {_started(pid)}"
    except OSError:
        return ""


def _started(pid: int) -> str:
    """When a process began, in clock ticks since the boot; empty for one that has ended and is not yet collected.

    Raises:
        OSError: there is no such process, or its record may not be read.
    """
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()  # see proc(5): its name has any letters
    return "" if fields[0] in "ZX" else fields[19]


def is_gone(held: Held) -> bool:
    """Whether the process that holds a lease is known to be dead: it was one of this machine, and is there no more."""
    boot, space, pid, started = (*held.process.split(" "), "", "", "", "")[:4]
    if not started or not process_mark().startswith(f"{boot} {space} "):
        return False
    try:
        os.kill(int(pid), 0)
        return _started(int(pid)) != started
    except ProcessLookupError:
        return True
    except (OSError, ValueError, OverflowError):  # another user's, or it ended just now
        return False


def take_lease(store: Store, key: str, holder: str) -> Lease | None:
    """Take a lease that is free, has lapsed, or whose holder is known to be dead; None where somebody else has it.

    Args:
        store: the store.
        key: the lease's key.
        holder: who wants it, for people.

    Raises:
        StoreError: the store cannot be asked.
    """
    mark = process_mark()
    if (lease := store.acquire_lease(key, holder, lease_seconds(), mark)) is not None:
        return lease
    held = store.look_at_lease(key, lease_seconds())
    if held is None or not held.is_live or not is_gone(held):
        return None
    store.break_lease(key, held)
    return store.acquire_lease(key, holder, lease_seconds(), mark)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold an interrupt back until the end of the block, in the main thread; no other thread is ever interrupted.

    For a few words with the store: a lease that is written and not yet in anybody's hands would be nobody's to release.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []

    def later(number: int, frame: FrameType | None) -> None:
        came.append(number)

    before = signal.signal(signal.SIGINT, later)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if came:
            signal.raise_signal(signal.SIGINT)


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
    if (lease := take_lease(store, key, holder)) is None:
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
    there = store.list(layout.LEASES_PREFIX)
    return [
        printable(f"took over {name} from {held.holder}")
        for key, name in names.items()
        if key in there and (held := store.break_lease(key)) is not None
    ]
