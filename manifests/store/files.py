"""Files and folders that users name, wherever they lie: at a local path or at an s3:// address.

A name with accents has two spellings that look the same, composed (as keyboards write) and decomposed (as macOS and
some archives keep it). Where there is no file of the very name, that of the other spelling is meant.
"""

from __future__ import annotations

import functools
import os
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING

from manifests.errors import Missing, PermanentStoreError
from manifests.store.address import local_path, split_address
from manifests.store.folder import read_file
from manifests.store.retries import retrying

if TYPE_CHECKING:
    from manifests.store.bucket import Bucket


@functools.lru_cache(maxsize=16)
def _whole_bucket(name: str) -> Bucket:
    """Keep one connection for the many pictures of a manifest."""
    from manifests.store.bucket import Bucket  # takes long to import, and most files lie in folders

    return Bucket(name, "")


def as_spelled(path: str) -> str:
    """Return a local path as its file or folder is spelled; as it is where there is none under either spelling."""
    if path.isascii() or os.path.lexists(path):
        return path
    folder, name = os.path.split(path)
    folder = as_spelled(folder) if name else folder
    spellings = (os.path.join(folder, one) for one in (name, *_other_spellings(name)))
    return next(filter(os.path.lexists, spellings), path)


def _other_spellings(name: str) -> list[str]:
    """A name composed and decomposed, less the spelling that it has."""
    return sorted({unicodedata.normalize(form, name) for form in ("NFC", "NFD")} - {name})


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
        return _read_object(_whole_bucket(bucket), key, max_bytes)
    return retrying(f"read {address}", lambda: read_file(_path(address), max_bytes))


def _path(address: str) -> Path:
    return Path(as_spelled(str(local_path(address))))


def _read_object(bucket: Bucket, key: str, max_bytes: int | None) -> bytes:
    """Read the object of a key, or of the key in another spelling where there is none."""
    try:
        return bucket.read(key, max_bytes)
    except Missing:
        other = next(filter(bucket.exists, _other_spellings(key)), None)
        if other is None:
            raise
        return bucket.read(other, max_bytes)


def is_there(address: str) -> bool:
    """Return whether there is a file, an object or a local folder of the very name.

    Raises:
        StoreError: It cannot be asked.
    """
    split = split_address(address, "look for a file")
    if split is not None:
        bucket, key = split
        return any(map(_whole_bucket(bucket).exists, (key, *_other_spellings(key))))
    return retrying(f"look for {address}", _path(address).exists)


def is_folder(address: str) -> bool:
    """Return whether an address is a local folder; in a bucket only a name that ends with a slash is one.

    Raises:
        StoreError: It cannot be asked.
    """
    if split_address(address, "look for a folder") is not None:
        return address.endswith("/")
    return retrying(f"look for {address}", _path(address).is_dir)


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
        bucket, within = _whole_bucket(split[0]), split[1].strip("/")
        for prefix in (f"{one}/" if one else "" for one in (within, *_other_spellings(within))):
            if names := [key.removeprefix(prefix) for key in bucket.list(prefix)]:
                return [name for name in names if "/" not in name]
        return []
    folder = _path(address)
    return retrying(f"list {address}", lambda: [entry.name for entry in folder.iterdir() if entry.is_file()])
