"""The store: objects under keys, in a local folder or an S3 bucket, with the same contract for both.

- `write_once` never overwrites, and one of any number of writers wins.
- Every write is all or nothing: a reader sees a whole object or none, even if the writer is killed.
- Transient failures are retried inside, with back-off and jitter, a bounded number of times (`upstream.py`).
- What comes out are bytes and our own errors; credentials are in no message, no attribute and no pickle.

    store = Store.open("s3://bucket/blora")     # or Store.open("results")
    if not store.exists(key):
        store.write_once(key, data)
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

from manifests.errors import InvalidId, Missing, PermanentStoreError, StoreError, TransientStoreError
from manifests.store import leases
from manifests.store.backend import Backend, Entry
from manifests.store.bucket import Bucket
from manifests.store.folder import Folder, read_file
from manifests.store.leases import Held, Lease
from manifests.store.retries import retrying

__all__ = [
    "Entry",
    "Held",
    "Lease",
    "Missing",
    "PermanentStoreError",
    "Store",
    "StoreError",
    "TransientStoreError",
    "is_folder",
    "list_address",
    "read_address",
]

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/+([^/]*)")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_ACCEPTED = "a local path, or s3://bucket/prefix"
_LONGEST_KEY_BYTES = 900  # S3 allows 1024 for prefix and key together


def _split(address: str, what: str) -> tuple[str, str] | None:
    """Return (bucket, key) of an s3:// address, None for a local path.

    Raises:
        PermanentStoreError: It is neither, or has credentials in it. A message never repeats what may be one.
    """
    if not address or "\0" in address:
        raise PermanentStoreError(what, repr(address), _ACCEPTED)
    url = _URL.match(address)
    if url is None:
        return None
    if "@" in url[2] or ":" in url[2]:  # a secret may have a slash in it, and so hide the @ that ends it
        hint = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, and AWS_ENDPOINT_URL instead"
        raise PermanentStoreError(what, f"a {url[1]} address with credentials or a port in it", _ACCEPTED, hint)
    bucket, _, key = address.removeprefix("s3://").partition("/")
    if not address.startswith("s3://") or not _BUCKET.fullmatch(bucket):
        shown = address.partition("?")[0] + ("?..." if "?" in address else "")  # signed addresses end with a signature
        raise PermanentStoreError(what, shown, f"{_ACCEPTED}; bucket names have 3 to 63 of a-z 0-9 . -")
    return bucket, key


def _parts_are_plain(path: str) -> bool:
    return all(part not in ("", ".", "..") and part.isprintable() and "\\" not in part for part in path.split("/"))


def _checked(key: str) -> str:
    """Return the key if it stays below the root.

    Raises:
        InvalidId: It does not, or has a name that a listing would hide.
    """
    long = len(key.encode("utf-8", "replace")) > _LONGEST_KEY_BYTES
    if long or not _parts_are_plain(key) or any(part.startswith(".") for part in key.split("/")):
        accepted = f"names joined by /, none empty or starting with a dot, {_LONGEST_KEY_BYTES} bytes at most"
        raise InvalidId("object key", repr(key)[:200], accepted, "build keys with manifests.layout")
    return key


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

    @classmethod
    def open(cls, root: str) -> Store:
        """Open a store; nothing is created or asked until the first operation.

        Args:
            root: A local path, or "s3://bucket/prefix". Endpoint, region and credentials come from the usual AWS
                environment and profile.

        Raises:
            PermanentStoreError: The address is neither, has credentials in it, or names a local file.
        """
        split = _split(root, "open the store")
        if split is None:
            return cls(Folder(Path(root)))
        bucket, prefix = split[0], split[1].strip("/")
        if "?" in prefix:
            raise PermanentStoreError("open the store", "an address with a ? in it", _ACCEPTED)
        if prefix and not _parts_are_plain(prefix):
            raise PermanentStoreError("open the store", root, f"{_ACCEPTED}, without empty names, . and ..")
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
        folder = prefix.rstrip("/")
        return self._backend.list(f"{_checked(folder)}/" if folder else "")

    def acquire_lease(self, key: str, holder: str, ttl_seconds: float) -> Lease | None:
        """Take a lease that is free or has lapsed.

        Args:
            key: Its object key, from `layout.lease_key`.
            holder: Who wants it, for people: machine, process, run.
            ttl_seconds: After how many seconds without a renewal it lapses.

        Returns:
            The lease, or None if somebody else holds it.

        Raises:
            ValueError: `ttl_seconds` is not a positive number.
            StoreError: The store cannot be asked.
        """
        return leases.acquire(self._backend, _checked(key), holder, ttl_seconds)

    def look_at_lease(self, key: str) -> Held | None:
        """Return who holds or held a lease, without taking it; None where nobody ever did.

        Raises:
            StoreError: The store cannot be asked.
        """
        return leases.look(self._backend, _checked(key))


@functools.lru_cache(maxsize=16)
def _whole_bucket(name: str) -> Bucket:
    """Keep one connection for the many pictures of a manifest."""
    return Bucket(name, "")


def read_address(address: str, max_bytes: int | None = None) -> bytes:
    """Read a manifest or picture that a user named, wherever it lies.

    Args:
        address: A local path or an s3:// address.
        max_bytes: The most that will be read; more is an error, and no memory is spent on it.

    Raises:
        Missing: There is nothing there.
        PermanentStoreError: It is too large, no regular file, or no address that can be read.
        TransientStoreError: The server did not answer, again and again.
    """
    split = _split(address, "read a file")
    if split is not None:
        bucket, key = split
        if not key:
            raise PermanentStoreError(f"read {address}", "a bucket", "the address of an object, s3://bucket/key")
        return _whole_bucket(bucket).read(key, max_bytes)
    return retrying(f"read {address}", lambda: read_file(Path(address).expanduser(), max_bytes))


def is_folder(address: str) -> bool:
    """Return whether an address is a local folder; in a bucket only a name that ends with a slash is one.

    Raises:
        StoreError: It cannot be asked.
    """
    if _split(address, "look for a folder") is not None:
        return address.endswith("/")
    return retrying(f"look for {address}", lambda: Path(address).is_dir())


def list_address(address: str) -> list[str]:
    """Return the names of the files, or objects, that lie right in a folder that a user named.

    Args:
        address: A local folder, or s3://bucket/folder.

    Raises:
        Missing: There is no such folder.
        StoreError: It cannot be listed.
    """
    split = _split(address, "list a folder")
    if split is not None:
        bucket, prefix = split[0], split[1].strip("/")
        keys = _whole_bucket(bucket).list(f"{prefix}/" if prefix else "")
        below = [key.removeprefix(f"{prefix}/") if prefix else key for key in keys]
        return [name for name in below if "/" not in name]
    folder = Path(address).expanduser()
    return retrying(f"list {address}", lambda: [entry.name for entry in folder.iterdir() if entry.is_file()])
