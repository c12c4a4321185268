"""Files and folders that users name, wherever they lie: at a local path or at an s3:// address."""

from __future__ import annotations

import functools

from manifests.errors import PermanentStoreError
from manifests.store.address import local_path, split_address
from manifests.store.bucket import Bucket
from manifests.store.folder import read_file
from manifests.store.retries import retrying


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
    return retrying(f"read {address}", lambda: read_file(local_path(address), max_bytes))


def is_folder(address: str) -> bool:
    """Return whether an address is a local folder; in a bucket only a name that ends with a slash is one.

    Raises:
        StoreError: It cannot be asked.
    """
    if split_address(address, "look for a folder") is not None:
        return address.endswith("/")
    return retrying(f"look for {address}", lambda: local_path(address).is_dir())


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
    folder = local_path(address)
    return retrying(f"list {address}", lambda: [entry.name for entry in folder.iterdir() if entry.is_file()])
