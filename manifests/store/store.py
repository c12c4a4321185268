"""The store: objects under keys, in a local folder or an S3 bucket, with the same contract for both.

- `write_once` never overwrites, and one of any number of writers wins.
- Every write is all or nothing: a reader sees a whole object or none, even if the writer is killed.
- Transient failures are retried inside, with back-off and jitter, a bounded number of times (`retries.py`).
- What comes out are bytes and our own errors; credentials are in no message, no attribute and no pickle.

    store = Store.open("s3://bucket/blora")     # or Store.open("results")
    if not store.exists(key):
        store.write_once(key, data)
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from manifests.errors import InvalidId, Missing, PermanentStoreError
from manifests.store import leases
from manifests.store.address import ACCEPTED, local_path, parts_are_plain, split_address
from manifests.store.backend import Backend, Entry
from manifests.store.folder import Folder
from manifests.store.leases import Held, Lease, Sightings

_LONGEST_KEY_BYTES = 900  # S3 allows 1024 for prefix and key together
_NO_KEY = (
    "a name with a backslash, an empty part or characters that cannot be printed, such as line breaks and direction "
    f"marks, or of more than {_LONGEST_KEY_BYTES} bytes"
)


def _checked(key: str) -> str:
    """Return the key if it stays below the root.

    Raises:
        InvalidId: It does not, or has a name that a listing would hide.
    """
    if not _is_key(key):
        accepted = f"names joined by /, none empty or starting with a dot, {_LONGEST_KEY_BYTES} bytes at most"
        raise InvalidId("object key", repr(key)[:200], accepted, "build keys with manifests.layout")
    return key


def _is_key(text: str) -> bool:
    short = len(text.encode("utf-8", "replace")) <= _LONGEST_KEY_BYTES
    return short and parts_are_plain(text) and not any(part.startswith(".") for part in text.split("/"))


class Store:
    """Objects under one root. Cheap to open, safe in threads, after a fork, and when pickled to another process.

    Attributes:
        root: The address as shown to people; it never has credentials in it.
        requests_at_once: How many requests side by side it answers soonest.
    """

    def __init__(self, backend: Backend) -> None:
        """Wrap a back end; use `Store.open`."""
        self.root = backend.root
        self.requests_at_once = backend.requests_at_once
        self._backend = backend
        self._sightings = Sightings()

    @classmethod
    def open(cls, root: str) -> Store:
        """Open a store; nothing is created or asked until the first operation.

        Args:
            root: A local path, or "s3://bucket/prefix". Endpoint, region and credentials come from the usual AWS
                environment and profile.

        Raises:
            PermanentStoreError: The address is neither, has credentials in it, or names a local file.
        """
        split = split_address(root, "open the store")
        if split is None:
            return cls(Folder(local_path(root)))
        bucket, prefix = split[0], split[1].strip("/")
        if "?" in prefix:
            raise PermanentStoreError("open the store", "an address with a ? in it", ACCEPTED)
        if prefix and not parts_are_plain(prefix):
            raise PermanentStoreError("open the store", root, f"{ACCEPTED}, without empty names, . and ..")
        from manifests.store.bucket import Bucket  # a quarter of a second, of no use for a folder

        return cls(Bucket(bucket, f"{prefix}/" if prefix else ""))

    def __reduce__(self) -> tuple[object, tuple[str]]:
        """Pickle as the address alone: connections and credentials stay here."""
        return Store.open, (self.root,)

    def __repr__(self) -> str:
        return f"Store({self.root!r})"

    def read(self, key: str) -> bytes:
        """Return the whole object.

        Raises:
            Missing: There is no such object.
            StoreError: It cannot be read.
        """
        return self._backend.read(_checked(key), None)

    def find(self, key: str) -> bytes | None:
        """Return the whole object; None if there is no such object.

        Raises:
            StoreError: It cannot be read.
        """
        try:
            return self.read(key)
        except Missing:
            return None

    def find_into(self, key: str, path: Path) -> bool:
        """Copy an object that may be too large for memory into a file of this machine.

        Returns:
            Whether there is such an object.

        Raises:
            StoreError: It cannot be read.
        """
        try:
            self._backend.read_into(_checked(key), path)
        except Missing:
            return False
        return True

    def replace_from(self, key: str, path: Path) -> None:
        """Write an object that may be too large for memory from a file, all or nothing, as `replace` does.

        Raises:
            StoreError: It cannot be written.
        """
        self._backend.replace_from(_checked(key), path)

    def exists(self, key: str) -> bool:
        """Return whether there is such an object; a folder is none.

        Raises:
            StoreError: The store cannot be asked.
        """
        return self._backend.exists(_checked(key))

    def write_once(self, key: str, data: bytes) -> bool:
        """Write the object unless there is one, all or nothing; an existing object is never touched.

        Returns:
            True if this call wrote it, False if it was there.

        Raises:
            StoreError: It cannot be written.
        """
        return self._backend.create(_checked(key), data)

    def replace(self, key: str, data: bytes) -> None:
        """Write the object, all or nothing, whether or not there is one: for the tables of a run.

        Raises:
            StoreError: It cannot be written.
        """
        self._backend.replace(_checked(key), data)

    def delete(self, key: str) -> None:
        """Remove the object; no error if there is none.

        Raises:
            StoreError: It cannot be removed.
        """
        self._backend.delete(_checked(key))

    def list(self, prefix: str) -> dict[str, Entry]:
        """Return every object below a folder, at any depth, in the order of the keys.

        Args:
            prefix: A folder such as "samples/<content_id>/" (the last slash may be left out); "" for the whole store.

        Raises:
            StoreError: The store cannot be asked; a listing is complete or fails.
        """
        return {key: entry for key, entry, problem in self._scan(prefix) if not problem}

    def strays(self, prefix: str) -> dict[str, tuple[Entry, str]]:
        """Return what lies below a folder and is no object that could be read, each with the reason.

        Names that no key may have; links that lead nowhere, to a folder or out of the store; never hidden files.

        Args:
            prefix: As of `list`, which leaves these out.

        Raises:
            StoreError: The store cannot be asked.
        """
        return {key: (entry, problem) for key, entry, problem in self._scan(prefix) if problem}

    def _scan(self, prefix: str) -> Iterator[tuple[str, Entry, str]]:
        folder = prefix.rstrip("/")
        for key, entry in self._backend.list(f"{_checked(folder)}/" if folder else "").items():
            yield key, entry, entry.problem or ("" if _is_key(key) else _NO_KEY)

    def acquire_lease(self, key: str, holder: str, ttl_seconds: float, process: str = "") -> Lease | None:
        """Take a lease that is free or has lapsed.

        Args:
            key: Its object key, from `layout.lease_key`.
            holder: Who wants it, for people: machine, process, run.
            ttl_seconds: After how many seconds without a renewal it lapses.
            process: What tells the holder's process from all others, for `Held.process`.

        Returns:
            The lease, or None if somebody else holds it.

        Raises:
            ValueError: `ttl_seconds` is not a positive number.
            StoreError: The store cannot be asked.
        """
        return leases.acquire(self._backend, self._sightings, _checked(key), holder, ttl_seconds, process)

    def look_at_lease(self, key: str, usual_seconds: float = leases.LONGEST_SECONDS) -> Held | None:
        """Return who holds or held a lease, without taking it; None where nobody ever did or it cannot be read.

        Args:
            key: Its object key.
            usual_seconds: The length of a lease that does not say its own.

        Raises:
            StoreError: The store cannot be asked.
        """
        return leases.look(self._backend, self._sightings, _checked(key), usual_seconds)

    def break_lease(self, key: str, only: Held | None = None) -> Held | None:
        """Take a lease away from whoever holds it, so that the next may have it at once.

        A holder that is alive goes on with its work all the same, and learns at its next renewal that it has lost.

        Args:
            key: Its object key.
            only: Take it away from this holding alone, as it was looked at, and from none that came after.

        Returns:
            Who had it; None where nobody did.

        Raises:
            StoreError: The store cannot be asked.
        """
        return leases.break_off(self._backend, self._sightings, _checked(key), only)
