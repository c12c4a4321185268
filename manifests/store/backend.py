"""What a place to keep objects must be able to do; a local folder (`folder.py`) and a bucket (`bucket.py`) can."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, Protocol

CONTENT_TYPES: Final = {
    "css": "text/css; charset=utf-8",
    "gif": "image/gif",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "json": "application/json",
    "md": "text/markdown; charset=utf-8",
    "mp4": "video/mp4",
    "png": "image/png",
}
"""What objects are served as, by the end of their key: a browser downloads a page that does not say that it is one."""


@dataclass(frozen=True)
class Entry:
    """One object of a listing.

    Attributes:
        size: Its size in bytes.
        modified: When it was last written (UTC), by the clock of the disk or server.
        version: Another one once it was written anew with other content; servers tell times by the second only.
        problem: Why it cannot be read, such as a link that leads elsewhere; empty for an object.
    """

    size: int
    modified: datetime.datetime
    version: str
    problem: str = ""


class Version(NamedTuple):
    """An object as it was read.

    Attributes:
        data: The object.
        token: Of this version of it.
        age_seconds: At least for how long it has been there, by the clock of the disk or server alone; None where that
            clock is wrong.
    """

    data: bytes
    token: str
    age_seconds: float | None


class Backend(Protocol):
    """Objects under keys that `store.py` has checked. Every method raises StoreError and nothing else upstream."""

    requests_at_once: int
    """How many requests side by side are answered soonest."""

    @property
    def root(self) -> str:
        """The address of the place, without credentials."""

    def read(self, key: str, max_bytes: int | None) -> bytes:
        """Return the object, or raise `Missing`; `PermanentStoreError` if it is longer than `max_bytes`."""

    def read_into(self, key: str, path: Path) -> None:
        """Write the object into a file of this machine piece by piece, or raise `Missing`."""

    def replace_from(self, key: str, path: Path) -> None:
        """Write the object from a file of this machine piece by piece, all or nothing, as `replace` does."""

    def exists(self, key: str) -> bool:
        """Return whether there is an object (a folder is none)."""

    def create(self, key: str, data: bytes) -> bool:
        """Write the object unless there is one, all or nothing; return whether this call wrote it."""

    def replace(self, key: str, data: bytes) -> None:
        """Write the object, all or nothing; a reader sees the old or the new."""

    def delete(self, key: str) -> None:
        """Remove the object if there is one."""

    def list(self, prefix: str) -> dict[str, Entry]:
        """Return every object below a folder ("" or "name/") in the order of the keys, and what has a `problem`."""

    def read_version(self, key: str) -> Version | None:
        """Return the object as it is; None if there is no object."""

    def swap(self, key: str, data: bytes, version: str | None) -> str | None:
        """Write the object only if it still is that version (None: only if there is none).

        `data` must be unlike all that was ever written there, so that a writer knows its own again.

        Returns:
            The token of what was written; None if somebody else came first, and then nothing is changed.
        """


def is_visible(key: str) -> bool:
    """Return whether a listing shows this key: no folder marker, and no name that starts with a dot."""
    return not key.endswith("/") and not any(part.startswith(".") for part in key.split("/"))
