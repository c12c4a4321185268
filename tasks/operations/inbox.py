"""The inbox: manifests dropped for the night, known by what they say and not by what they are called.

A receipt (``receipts/<manifest_id>.json``) says which run a manifest became and how that stands. A manifest is done
when its receipt says so, it has not been dropped again since under a name that the receipt knows, and no review has
asked its run for further pictures: who replaces a picture and drops the same manifest once more has it planned anew,
and planning notices the picture.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from manifests import ids, layout
from manifests.errors import PermanentStoreError, printable_name
from manifests.faults import Fault
from manifests.loading.load import MANIFEST_FORMATS, MAX_MANIFEST_BYTES
from manifests.store.backend import Entry
from manifests.store.parallel import in_parallel
from manifests.store.store import Store

PICTURE_EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif"})
"""Files beside the manifests that are theirs."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Receipt:
    """What became of a manifest.

    Attributes:
        run_id: the run that it became.
        state: ``finished``, or ``faults`` where a later night has something left to do.
        sentence: how the run stands, in one line.
        drops: when the manifest was dropped under each of its names, as it was when this was written.
        redos: how many reviews had asked the run for further pictures by then.
    """

    run_id: str
    state: str
    sentence: str
    drops: Mapping[str, str]
    redos: int


_RECEIPT = TypeAdapter(Receipt)


@dataclass(frozen=True)
class Dropped:
    """A manifest in the inbox.

    Attributes:
        manifest_id: from its bytes, its folder and how the night is set; not from its name.
        drops: when it was dropped under each of its names (key: ISO time by the store's clock), the oldest first.
        address: of its oldest name.
        receipt: what became of it, if it has been worked off before.
        redos: how many reviews have asked its run for further pictures.
        note: what was odd about it and stops nobody, such as a receipt that cannot be read; empty mostly.
    """

    manifest_id: str
    drops: Mapping[str, str]
    address: str
    receipt: Receipt | None
    redos: int = 0
    note: str = ""

    @property
    def key(self) -> str:
        """The oldest of its names."""
        return next(iter(self.drops))

    @property
    def dropped_again(self) -> bool:
        """Whether it has been dropped once more since its receipt, under a name that the receipt knows."""
        known = self.receipt.drops if self.receipt else {}
        return any(time > known.get(key, time) for key, time in self.drops.items())

    @property
    def finished(self) -> bool:
        """Whether there is nothing to do."""
        if self.receipt is None or self.receipt.state != "finished":
            return False
        return not self.dropped_again and self.redos <= self.receipt.redos


@dataclass(frozen=True)
class Others:
    """What lies in the inbox and is not worked off.

    Attributes:
        unreadable: what may be a manifest, by its extension or as it has none, but cannot be read, each with its fault.
        ignored: names of files that are neither manifests nor pictures.
    """

    unreadable: Mapping[str, Fault]
    ignored: tuple[str, ...]


def look_aside(store: Store) -> Others:
    """Everything of the inbox that `look` leaves out but pictures, under printable names.

    Raises:
        StoreError: the store cannot be asked.
    """
    unreadable: dict[str, Fault] = {}
    ignored = [key for key in store.list(layout.INBOX_PREFIX) if not _is_manifest(key) and not _is_picture(key)]
    for key, (_, problem) in store.strays(layout.INBOX_PREFIX).items():
        name = printable_name(key)
        if _is_manifest(key) or not _extension(key):
            hint = "give it a plain name, or put the file itself there, and drop it again"
            unreadable[name] = Fault("manifest", "cannot be read", problem, "a manifest", hint, file=name)
        elif not _is_picture(key):
            ignored.append(key)
    return Others(unreadable, tuple(map(printable_name, sorted(ignored))))


def look(store: Store, ways: ids.Json) -> list[Dropped]:
    """Every manifest of the inbox, in the order in which they were dropped; equal ones are one.

    Args:
        store: the store.
        ways: settings of the night that change what a manifest means, such as a preset laid over it.

    Raises:
        StoreError: the store cannot be asked.
    """
    listing = store.list(layout.INBOX_PREFIX)
    by_age = sorted(filter(_is_manifest, listing), key=lambda key: (listing[key].modified, key))
    texts = in_parallel(store, lambda key: _fingerprint(store, key, listing[key]), by_age)
    drops: dict[str, dict[str, str]] = {}
    for key, text in zip(by_age, texts, strict=True):
        if text is None:  # taken away since the listing
            continue
        # Relative paths mean other pictures in another folder.
        manifest_id = ids.digest("manifest", text, os.path.dirname(key), ways)
        drops.setdefault(manifest_id, {})[key] = listing[key].modified.isoformat()
    return in_parallel(store, lambda manifest_id: _dropped(store, manifest_id, drops[manifest_id]), list(drops))


def _dropped(store: Store, manifest_id: str, drops: Mapping[str, str]) -> Dropped:
    note = ""
    try:
        receipt = _receipt(store, manifest_id)
    except (PermanentStoreError, ValueError) as error:
        # What the run has made is not made again, and then there is a good receipt.
        receipt, note = None, f"its receipt could not be read ({type(error).__name__}) and counts as none"
        log.warning("%s: %s: %s", printable_name(next(iter(drops))), layout.receipt_key(manifest_id), note)
    redos = len(store.list(layout.redo_prefix(receipt.run_id))) if receipt else 0
    return Dropped(manifest_id, drops, f"{store.root}/{next(iter(drops))}", receipt, redos, note)


def write_receipt(store: Store, dropped: Dropped, run_id: str, state: str, sentence: str) -> None:
    """Keep what became of a manifest, as it was dropped when it was looked at."""
    body: dict[str, Any] = {"manifest_id": dropped.manifest_id, "run_id": run_id, "state": state, "sentence": sentence}
    body["drops"] = dict(dropped.drops)
    # Those that were there when it was looked at: what a review asks for meanwhile is for the next night.
    body["redos"] = dropped.redos if dropped.receipt and dropped.receipt.run_id == run_id else 0
    store.replace(layout.receipt_key(dropped.manifest_id), json.dumps(body, indent=2).encode())


def _fingerprint(store: Store, key: str, entry: Entry) -> str | None:
    """Name a file by its bytes, if it is there; by its looks one that will be refused: too large, or not readable."""
    looks = f"{entry.size} bytes of {entry.modified.isoformat()}"
    if entry.size > MAX_MANIFEST_BYTES:
        return looks
    try:
        data = store.find(key)
    except PermanentStoreError:
        return looks
    return None if data is None else hashlib.sha256(data).hexdigest()


def _receipt(store: Store, manifest_id: str) -> Receipt | None:
    if (data := store.find(layout.receipt_key(manifest_id))) is None:
        return None
    receipt = _RECEIPT.validate_json(data)
    layout.redo_prefix(receipt.run_id)  # raises for what is no id
    return receipt


def _extension(key: str) -> str:
    """The extension, without what cannot be printed."""
    return "".join(c for c in os.path.splitext(key)[1].lower() if c == "." or c.isalnum())


def _is_manifest(key: str) -> bool:
    return _extension(key) in MANIFEST_FORMATS


def _is_picture(key: str) -> bool:
    return _extension(key) in PICTURE_EXTENSIONS
