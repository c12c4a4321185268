"""Who is training an adapter now: a lease is a small object with a holder and an end, renewed while the work goes on.

A lease is taken by creating the object if there is none, or by replacing one that has lapsed if it is still exactly the
one that was read. The disk or the server decides who was first, so of any number of racers one wins. A holder that dies
stops renewing, and its lease lapses by itself. A holder whose renewal lost its answer knows its own record by the
nonce, and goes on from there. A released lease stays behind as a lapsed record: removing it safely would need
conditional deletes, which not every server has.

Clocks: the end is written by the holder's clock and read by the clock of whoever wants the lease, so machines should
agree within a third of the lease's duration (NTP keeps them within milliseconds). `keep_alive` renews after a third, so
a lease that is alive always has two thirds left. Should clocks differ more, or a holder sleep past its end, then two
machines may train one adapter: that wastes time, and harms nothing, for results are written once.

Whatever end is written, a lease that nobody renews binds for its length at most: from when a watcher first saw it as it
is, by a clock of its own that nobody sets (`Sightings`), and where its end is none that an agreeing clock could have
written, from when it was written by the store's own clock. A holder that is alive changes it three times as often.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import monotonic

from manifests.errors import StoreError
from manifests.store.backend import Backend, Version

log = logging.getLogger("manifests")


LONGEST_SECONDS = 3600.0
"""For how long a lease binds without a renewal, whatever length it says; most are renewed every minute or so."""

_AGREEING = 4 / 3  # of its length: more than that is left of no lease whose holder's clock agrees


def _record(holder: str, nonce: str, expires_at: float, seconds: float, doing: str = "", process: str = "") -> bytes:
    body = {"holder": holder, "nonce": nonce, "expires_at": expires_at, "seconds": seconds}
    said = {"doing": doing, "process": process}
    return json.dumps(body | {name: text for name, text in said.items() if text}).encode()


def _nonce_of(record: bytes) -> str | None:
    """What tells the holding that wrote a record; None where that cannot be read."""
    try:
        return str(json.loads(record)["nonce"])
    except (ValueError, TypeError, KeyError):
        return None


class Sightings:
    """Since when one watcher has seen each lease as it is, by a clock that nobody sets. Safe in threads."""

    def __init__(self) -> None:
        """Nothing has been seen yet."""
        self._first: dict[str, tuple[str, float]] = {}

    def seconds(self, key: str, token: str) -> float:
        """Return for how long this version of a lease has been seen; 0 for the first time."""
        now, first = monotonic(), self._first.get(key)
        if first is None or first[0] != token:
            self._first[key] = first = (token, now)
        return now - first[1]


class Lease:
    """A lease that this process holds, until it is released, lost or lapsed. Safe to use from several threads.

    Attributes:
        key: The object key of the lease.
        holder: Who holds it, for people.
        nonce: What tells this holding from any other.
        ttl_seconds: For how long each renewal holds.
        process: What tells the holder's process from all others, for machines; empty where nothing does.
        doing: Gives what the holder is at, for people; each renewal writes it.
    """

    def __init__(
        self,
        backend: Backend,
        key: str,
        holder: str,
        nonce: str,
        ttl_seconds: float,
        expires_at: float,
        version: str,
        process: str = "",
    ) -> None:
        """Take over what `acquire` has just written; use `Store.acquire_lease`."""
        self.key = key
        self.holder = holder
        self.nonce = nonce
        self.ttl_seconds = ttl_seconds
        self.process = process
        self.doing: Callable[[], str] = str
        self._backend = backend
        self._expires_at = expires_at
        self._version: str | None = version
        self._lock = threading.Lock()

    @property
    def expires_at(self) -> float:
        """When it ends unless it is renewed, in seconds since 1970 by this machine's clock."""
        return self._expires_at

    @property
    def lost(self) -> bool:
        """True once it is known that the lease is no longer ours: released, or taken over after it had lapsed."""
        return self._version is None

    def renew(self) -> bool:
        """Hold it for another `ttl_seconds`.

        Returns:
            False if somebody else has it, which is for good.

        Raises:
            StoreError: The store could not be asked; the lease holds until `expires_at` all the same.
        """
        with self._lock:
            return self._write(time.time() + self.ttl_seconds)

    def release(self) -> None:
        """Let others have it at once; nothing happens if it is lost already.

        Never raises StoreError: the work is done, and a lease that could not be released lapses by itself.
        """
        with self._lock:
            try:
                self._write(0.0)
            except StoreError as error:
                log.warning("lease %s: not released, others wait until it lapses (%s)", self.key, error)
            self._version = None

    def _write(self, expires_at: float) -> bool:
        if self._version is None:
            return False
        record = _record(self.holder, self.nonce, expires_at, self.ttl_seconds, self.doing(), self.process)
        version = self._backend.swap(self.key, record, self._version)
        if version is None and (own := self._own_version()) is not None:
            version = self._backend.swap(self.key, record, own)
        self._version = version
        if version is None:
            return False
        self._expires_at = expires_at
        return True

    def _own_version(self) -> str | None:
        """The version that is there, if this holding wrote it: by a write whose answer was lost."""
        current = self._backend.read_version(self.key)
        return current.token if current is not None and _nonce_of(current.data) == self.nonce else None

    @contextlib.contextmanager
    def keep_alive(self) -> Iterator[Lease]:
        """Renew from a thread, every third of `ttl_seconds`, while the body runs; look at `lost` in the body.

        The body is not interrupted when the lease is lost. It is not released at the end: that is the caller's.
        """
        done = threading.Event()
        thread = threading.Thread(target=self._renew_until, args=(done,), name=f"lease {self.key}", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            done.set()
            thread.join()

    def _renew_until(self, done: threading.Event) -> None:
        while not done.wait(self.ttl_seconds / 3):
            try:
                if not self.renew():
                    log.warning("lease %s: lost, somebody else has it now", self.key)
                    return
            except StoreError as error:
                # Not lost yet: a later renewal succeeds as long as nobody has taken the lease over.
                log.warning("lease %s: could not be renewed (%s)", self.key, error)


@dataclass(frozen=True)
class Held:
    """A lease as anybody may see it.

    Attributes:
        holder: Who has or had it.
        expires_at: When it ends or ended, in seconds since 1970 by the holder's clock; 0 once released.
        ends_at: The same by this machine's clock, unless it is renewed: never later than its length from now.
        doing: What its holder said at the last renewal that it was at; empty if nothing.
        process: What tells its holder's process from all others, as that wrote it; empty if nothing.
        nonce: What tells this holding from any other.
    """

    holder: str
    expires_at: float
    ends_at: float
    doing: str = ""
    process: str = ""
    nonce: str = ""

    @property
    def is_live(self) -> bool:
        """Whether it binds others, by this machine's clock."""
        return self.ends_at > time.time()


def _held(version: Version, seen_seconds: float, usual_seconds: float) -> Held | None:
    """Return what a record says; None where it cannot be read, and so binds nobody."""
    try:
        record = json.loads(version.data)
        holder, expires_at = str(record["holder"]), float(record["expires_at"])
        said = float(record.get("seconds", usual_seconds))
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None
    if not math.isfinite(expires_at):
        return None
    now, length = time.time(), min(said if said > 0 else usual_seconds, LONGEST_SECONDS)
    left = min(expires_at - now, length - seen_seconds)
    if expires_at - now > _AGREEING * length and version.age_seconds is not None:
        left = min(left, length - version.age_seconds)
    said_besides = (str(record.get(name, "")) for name in ("doing", "process", "nonce"))
    return Held(holder, expires_at, min(expires_at, now + left), *said_besides)


def look(backend: Backend, sightings: Sightings, key: str, usual_seconds: float) -> Held | None:
    """Return who holds or held a lease; see `Store.look_at_lease`."""
    current = backend.read_version(key)
    return None if current is None else _held(current, sightings.seconds(key, current.token), usual_seconds)


def acquire(
    backend: Backend, sightings: Sightings, key: str, holder: str, ttl_seconds: float, process: str = ""
) -> Lease | None:
    """Take a lease that is free or has lapsed; see `Store.acquire_lease`."""
    if not ttl_seconds > 0 or not math.isfinite(ttl_seconds):
        raise ValueError(f"ttl_seconds of lease {key}: received {ttl_seconds}; accepted a number above 0")
    nonce = secrets.token_hex(8)
    expires_at = time.time() + ttl_seconds
    record = _record(holder, nonce, expires_at, ttl_seconds, process=process)
    version = backend.swap(key, record, None)
    if version is None:
        current = backend.read_version(key)
        if current is None:
            return None
        held = _held(current, sightings.seconds(key, current.token), ttl_seconds)
        if held is not None and held.is_live:
            return None
        version = backend.swap(key, record, current.token)
    return None if version is None else Lease(backend, key, holder, nonce, ttl_seconds, expires_at, version, process)


def break_off(backend: Backend, sightings: Sightings, key: str, only: Held | None = None) -> Held | None:
    """Free a lease whoever holds it; see `Store.break_lease`."""
    while (current := backend.read_version(key)) is not None:
        held = _held(current, sightings.seconds(key, current.token), LONGEST_SECONDS)
        if held is None or not held.is_live or (only is not None and held.nonce != only.nonce):
            return None
        # With another nonce: the holder must not take it for its own record.
        if backend.swap(key, _record(held.holder, secrets.token_hex(8), 0.0, 0.0), current.token) is not None:
            return held
    return None
