"""The error tree of the contracts.

    ManifestsError              anything that goes wrong in this package
    ├── StoreError              the store (a folder or a bucket) said no
    │   ├── TransientStoreError     may well work later: throttled, reset, timed out; already retried with back-off
    │   └── PermanentStoreError     will not work until somebody changes something: rights, bucket, address
    │       └── Missing             no object under that key
    ├── Damaged                 an object of the store is there and is not what it should be
    ├── TableError              rows or a Parquet file that do not fit the schema
    ├── InvalidId (ValueError)  a text that may not become part of an object key
    └── ImageError              a picture that cannot be used

Every error carries the same four texts and survives pickling, so it can cross a process boundary unharmed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar


def counted(number: int, noun: str) -> str:
    """Say how many of something there are: "1 fault", "2 faults"."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def reason_of(error: BaseException) -> str:
    """Return what an exception says, for a person: without the name of its class and the number of its cause."""
    said = getattr(error, "strerror", None) or str(error)
    return re.sub(r"^\[Errno -?\d+\] ", "", str(said)) or type(error).__name__


def listed(names: Sequence[str], most: int) -> str:
    """Name the first few of some things and say how many there are beyond: "a, b and 3 more"."""
    beyond = len(names) - most
    return ", ".join(names[:most]) + (f" and {beyond} more" if beyond > 0 else "")


LONGEST_NAME = 160
"""Characters of a name that a message shows; names of files have 255 bytes at most, keys 1024."""

_NAME_END = 40  # of these: how a name ends tells most of what kind of file it is of


def printable(text: str) -> str:
    """Return `text` with control characters escaped: a hostile file name must not steer a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def printable_name(name: str) -> str:
    """Return a name of a file, run or person as it is shown everywhere: printable, and its middle left out if long."""
    text = printable(name)
    if len(text) <= LONGEST_NAME:
        return text
    return f"{text[: LONGEST_NAME - _NAME_END - 3]}...{text[-_NAME_END:]}"


def explain(what: str, received: str, accepted: str, hint: str) -> str:
    """Join the four texts of an error or fault into one line, leaving out the empty ones."""
    parts = [f"received {received}" if received else "", f"accepted {accepted}" if accepted else "", hint]
    details = "; ".join(part for part in parts if part)
    return printable(f"{what}: {details}" if details else what)


class ManifestsError(Exception):
    """Anything that goes wrong in this package.

    Args:
        what: What failed, and where (address, key, column).
        received: What was found.
        accepted: What would have been fine.
        hint: What to do next.
    """

    transient: ClassVar[bool] = False
    """True where trying again later may well work."""

    def __init__(self, what: str, received: str = "", accepted: str = "", hint: str = "") -> None:
        """Keep the four texts; they are also `args`, which is what makes the error picklable."""
        super().__init__(what, received, accepted, hint)
        self.what = what
        self.received = received
        self.accepted = accepted
        self.hint = hint

    def __str__(self) -> str:
        """Return one line: what, received, accepted, what to do next."""
        return explain(self.what, self.received, self.accepted, self.hint)


class StoreError(ManifestsError):
    """The store (a folder or a bucket) could not do what was asked."""


class TransientStoreError(StoreError):
    """The store failed in a way that may pass by itself; the retries of this package are used up."""

    transient: ClassVar[bool] = True


class PermanentStoreError(StoreError):
    """The store failed in a way that trying again does not mend."""


class Missing(PermanentStoreError):
    """There is no object under that key or address."""


class Damaged(ManifestsError):
    """An object of the store is there and cannot be used: empty, cut, of another program or of a newer version."""


class TableError(ManifestsError):
    """Rows or a Parquet file do not fit the schema they should have."""


class InvalidId(ManifestsError, ValueError):
    """A text that was to become part of an object key is not a plain word."""


class ImageError(ManifestsError):
    """A picture that cannot be used; `hint` says how to make it usable."""
