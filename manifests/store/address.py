"""Addresses that users give: a local path, or a bucket's. What a kind of address looks like is said here alone."""

from __future__ import annotations

import os.path
import re
from pathlib import Path

from manifests.errors import PermanentStoreError

_BUCKET_SCHEME = "s3://"
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/+([^/]*)")
_BUCKET_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
ACCEPTED = "a local path, or s3://bucket/prefix"
"""What an address may be, for messages."""


def is_bucket(address: str) -> bool:
    """Tell whether an address leads to a bucket and not to this machine's disk; its bucket may be misspelt."""
    return address.startswith(_BUCKET_SCHEME)


def bucket_and_key(address: str) -> tuple[str, str] | None:
    """Return (bucket, key) of a bucket's address, None for anything else; the bucket has its scheme with it."""
    name, _, key = address.removeprefix(_BUCKET_SCHEME).partition("/")
    return (_BUCKET_SCHEME + name, key) if is_bucket(address) and _BUCKET_NAME.fullmatch(name) else None


def local_path(address: str) -> Path:
    """Return the path that a local address means: `~` is the home folder, as in a shell."""
    return Path(os.path.expanduser(address))  # Path.expanduser raises where it knows no such user


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
    split = bucket_and_key(address)
    if split is None:
        shown = address.partition("?")[0] + ("?..." if "?" in address else "")  # signed addresses end with a signature
        raise PermanentStoreError(what, shown, f"{ACCEPTED}; bucket names have 3 to 63 of a-z 0-9 . -")
    return split[0].removeprefix(_BUCKET_SCHEME), split[1]


def parts_are_plain(path: str) -> bool:
    """Tell whether a path is names joined by /, none of which leads elsewhere."""
    return all(part not in ("", ".", "..") and part.isprintable() and "\\" not in part for part in path.split("/"))
