"""SHA-256 of files and of folders' files: what names a base that lies on this machine. Imports no torch.

Seven gigabytes take seconds to minutes to hash, and every process of a run asks: planner, slots, doctor. So a digest is
remembered in the process, and that of a large file in the user's cache too, under its path, size, modification time and
inode. A digest in the cache saves time and nothing else: one that cannot be read or written is computed.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import time
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Final

__all__ = ["DIGESTS_CACHE", "file_digest", "folder_digest"]

DIGESTS_CACHE: Final = "~/.cache/blora/digests"
"""A file for each digest; may be deleted at any time."""

_LARGE_BYTES: Final = 16_000_000
"""From here on a digest is kept for other processes, too: less is hashed in the time that a look takes."""

_SETTLED_NS: Final = 2_000_000_000
"""A file changed so lately may change again without a later time: file systems count in steps of up to 2 s."""

_Stamp = tuple[int, int, int]


def file_digest(path: Path) -> str:
    """SHA-256 of a file, 64 hex digits; remembered while its size, time and inode stay."""
    return _remembered(str(path.resolve()), _stamp(path))


def folder_digest(folder: Path, files: Iterable[Path]) -> str:
    """SHA-256 over the names and digests of some files of a folder, whatever their order."""
    total = hashlib.sha256()
    for path in sorted(files):
        total.update(f"{path.relative_to(folder).as_posix()}\0{file_digest(path)}\n".encode())
    return total.hexdigest()


def _stamp(path: Path) -> _Stamp:
    """Size, modification time in nanoseconds, and inode."""
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ino


@lru_cache(maxsize=256)
def _remembered(path: str, stamp: _Stamp) -> str:
    size, changed_ns, _ = stamp
    if size < _LARGE_BYTES:
        return _hashed(path)
    name = hashlib.sha256("\0".join((path, *map(str, stamp))).encode()).hexdigest()
    kept = Path(DIGESTS_CACHE).expanduser() / name
    if known := _kept(kept):
        return known
    digest = _hashed(path)
    if _stamp(Path(path)) == stamp and time.time_ns() - changed_ns > _SETTLED_NS:
        _keep(kept, digest)
    return digest


def _hashed(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _kept(path: Path) -> str:
    """What is remembered there; empty where it is nothing, or no digest."""
    try:
        text = path.read_text("ascii")
    except (OSError, ValueError):
        return ""
    return text if re.fullmatch(r"[0-9a-f]{64}", text) else ""


def _keep(path: Path, digest: str) -> None:
    """Remember a digest; it appears whole or not at all."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
            file.write(digest)
        os.replace(file.name, path)
    except OSError:
        pass  # a home that cannot be written is no reason to fail
