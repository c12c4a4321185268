"""Files and folders that users name, wherever they lie: at a local path or at an s3:// address."""

from __future__ import annotations

import functools
import re
from pathlib import Path

from manifests.errors import PermanentStoreError
from manifests.store.bucket import Bucket
from manifests.store.folder import read_file
from manifests.store.retries import retrying

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/+([^/]*)")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
ACCEPTED = "a local path, or s3://bucket/prefix"
"""What an address may be, for messages."""


def split_address(address: str, what: str) -> tuple[str, str] | None:
    """Return (bucket, key) of an s3:// address, None for a local path.

    Raises:
        PermanentStoreError: It is neither, or has credentials in it. A message never repeats what may be one.
    """
    if not address or "\0" in address:
        raise PermanentStoreError(what, repr(address), ACCEPTED)
    url = _URL.match(address)
    if url is None:
        return None
    if "@" in url[2] or ":" in url[2]:  # a secret may have a slash in it, and so hide the @ that ends it
        hint = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, and AWS_ENDPOINT_URL instead"
        raise PermanentStoreError(what, f"a {url[1]} address with credentials or a port in it", ACCEPTED, hint)
    bucket, _, key = address.removeprefix("s3://").partition("/")
    if not address.startswith("s3://") or not _BUCKET.fullmatch(bucket):
        shown = address.partition("?")[0] + ("?..." if "?" in address else "")  # signed addresses end with a signature
        raise PermanentStoreError(what, shown, f"{ACCEPTED}; bucket names have 3 to 63 of a-z 0-9 . -")
    return bucket, key


def parts_are_plain(path: str) -> bool:
    """Tell whether a path is names joined by /, none of which leads elsewhere."""
    return all(part not in ("", ".", "..") and part.isprintable() and "\\" not in part for part in path.split("/"))


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
    split = split_address(address, "read a file")
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
    if split_address(address, "look for a folder") is not None:
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
    split = split_address(address, "list a folder")
    if split is not None:
        bucket, prefix = split[0], split[1].strip("/")
        keys = _whole_bucket(bucket).list(f"{prefix}/" if prefix else "")
        below = [key.removeprefix(f"{prefix}/") if prefix else key for key in keys]
        return [name for name in below if "/" not in name]
    folder = Path(address).expanduser()
    return retrying(f"list {address}", lambda: [entry.name for entry in folder.iterdir() if entry.is_file()])
