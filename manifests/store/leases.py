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
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import secrets
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from manifests.errors import StoreError
from manifests.store.backend import Backend

log = logging.getLogger("manifests")


def _record(holder: str, nonce: str, expires_at: float) -> bytes:
    return json.dumps({"holder": holder, "nonce": nonce, "expires_at": expires_at}).encode()


def _nonce_of(record: bytes) -> str | None:
    """What tells the holding that wrote a record; None where that cannot be read."""
    try:
        return str(json.loads(record)["nonce"])
    except (ValueError, TypeError, KeyError):
        return None


def _has_lapsed(record: bytes, now: float) -> bool:
    """Return whether a lease is over; a record that cannot be read binds nobody."""
    try:
        expires_at = float(json.loads(record)["expires_at"])
    except (ValueError, TypeError, KeyError):
        return True
    return not math.isfinite(expires_at) or expires_at <= now


class Lease:
    """A lease that this process holds, until it is released, lost or lapsed. Safe to use from several threads.

    Attributes:
        key: The object key of the lease.
        holder: Who holds it, for people.
        nonce: What tells this holding from any other.
        ttl_seconds: For how long each renewal holds.
    """

    def __init__(
        self, backend: Backend, key: str, holder: str, nonce: str, ttl_seconds: float, expires_at: float, version: str
    ) -> None:
        """Take over what `acquire` has just written; use `Store.acquire_lease`."""
        self.key = key
        self.holder = holder
        self.nonce = nonce
        self.ttl_seconds = ttl_seconds
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
        record = _record(self.holder, self.nonce, expires_at)
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
        return current[1] if current is not None and _nonce_of(current[0]) == self.nonce else None

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
    """

    holder: str
    expires_at: float

    @property
    def is_live(self) -> bool:
        """Whether it binds others, by this machine's clock."""
        return self.expires_at > time.time()


def look(backend: Backend, key: str) -> Held | None:
    """Return who holds or held a lease; None where nobody ever did, or the record cannot be read."""
    current = backend.read_version(key)
    if current is None:
        return None
    try:
        record = json.loads(current[0])
        return Held(str(record["holder"]), float(record["expires_at"]))
    except (ValueError, TypeError, KeyError):
        return None


def acquire(backend: Backend, key: str, holder: str, ttl_seconds: float) -> Lease | None:
    """Take a lease that is free or has lapsed; see `Store.acquire_lease`."""
    if not ttl_seconds > 0 or not math.isfinite(ttl_seconds):
        raise ValueError(f"ttl_seconds of lease {key}: received {ttl_seconds}; accepted a number above 0")
    nonce = secrets.token_hex(8)
    expires_at = time.time() + ttl_seconds
    record = _record(holder, nonce, expires_at)
    version = backend.swap(key, record, None)
    if version is None:
        current = backend.read_version(key)
        if current is None or not _has_lapsed(current[0], time.time()):
            return None
        version = backend.swap(key, record, current[1])
    return None if version is None else Lease(backend, key, holder, nonce, ttl_seconds, expires_at, version)
