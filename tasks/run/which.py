"""Which run a person means, and whether there is a store at all where they look for it."""

from __future__ import annotations

import secrets
import unicodedata

from manifests import layout
from manifests.errors import Damaged, InvalidId, PermanentStoreError, counted, listed
from manifests.ids import name_in, slug
from manifests.parsing.records import suggest
from manifests.store.address import is_bucket, local_path
from manifests.store.store import Store
from tasks.errors import NoStore, RunNotFound
from tasks.run.outcome import find_records

LATEST = "latest"
"""Asks for the run that was planned last."""

ACCEPTED = f"a run id, the beginning of one, a manifest's name, or {LATEST}"

_SHOWN = 8
_OTHER_STORE = "take another disk or another server for the store"
_PARTS = (layout.INBOX_PREFIX, layout.PROBES_PREFIX, layout.ADAPTERS_PREFIX, layout.IMAGES_PREFIX, layout.NIGHTS_PREFIX)


def find_run(store: Store, asked: str) -> str:
    """Return the id of the run that is meant.

    A whole id comes first, then a manifest's name that one run has, then the beginning of one run's id.

    Args:
        store: the store.
        asked: as a person wrote it; see `ACCEPTED`.

    Raises:
        NoStore: nothing of this product lies there.
        RunNotFound: no run, or more than one, is meant; the message lists them.
    """
    asked = unicodedata.normalize("NFC", asked.strip())
    if _is_run(store, asked):  # without a listing of all that all runs have written
        return asked
    known = run_ids(store)
    if not known:
        require_store(store)
        raise RunNotFound(f"run: received {asked!r}; {store.root} has no run yet: blora run makes one")
    if asked == LATEST:
        return _newest_first(store, known)[0][0]
    meant = [run_id for run_id in known if asked and name_in(run_id) == slug(asked)]
    meant = meant or [run_id for run_id in known if asked and run_id.startswith(asked)]
    if len(meant) == 1:
        return meant[0]
    if meant:
        rows = [f"{run_id} ({planned or 'damaged'})" for run_id, planned in _newest_first(store, meant)]
        raise RunNotFound(
            f"run: received {asked!r}, which {counted(len(meant), 'run')} begin with; accepted: more of the id, or "
            f"{LATEST}: {listed(rows, _SHOWN)}"
        )
    near = suggest(asked, (*known, *{name_in(run_id) for run_id in known}, LATEST), "blora status lists them")
    raise RunNotFound(
        f"run: received {asked!r}; accepted: {ACCEPTED}; {store.root} has {counted(len(known), 'run')}; {near}"
    )


def run_ids(store: Store) -> list[str]:
    """The ids of all runs, in order."""
    keys = store.list(layout.RUNS_PREFIX)
    return sorted(key.split("/")[1] for key in keys if key.endswith("/run.json") and key.count("/") == 2)


def names_nearby(root: str, beginning: str) -> list[str]:
    """What may stand for a run and begins so, for a shell that completes words: of a folder alone, and never an error.

    A bucket would have to list all that all runs have written, which takes longer than a person waits for a key.
    """
    if is_bucket(root):
        return []
    known = sorted(path.parent.name for path in local_path(root).glob(f"{layout.RUNS_PREFIX}*/run.json"))
    words = [LATEST, *dict.fromkeys(name_in(run_id) for run_id in known), *known] if known else []
    return [word for word in words if word.startswith(beginning)]


def _is_run(store: Store, asked: str) -> bool:
    try:
        return store.exists(layout.run_key(asked, "run.json"))
    except InvalidId:
        return False


def try_store(store: Store) -> None:
    """Have a store take an object, give it back and refuse another of its name; it is as before in the end.

    Asked before hours of work, and by the doctor: without the refusal two runs at once would tear each other's files.

    Raises:
        StoreError: it does not.
    """
    key, data = f"trial-{secrets.token_hex(8)}", secrets.token_bytes(16)
    store.write_once(key, data)
    try:
        if store.read(key) != data:
            raise PermanentStoreError(f"try {store.root}", "other bytes than were written", "the same", _OTHER_STORE)
        if store.write_once(key, b"another"):
            received, accepted = "a second object of one name was taken", "a store that refuses it"
            raise PermanentStoreError(f"try {store.root}", received, accepted, _OTHER_STORE)
    finally:
        store.delete(key)


def require_store(store: Store) -> None:
    """See that something of this product lies where a command is to read.

    Raises:
        NoStore: nothing does, as where the place was mistyped.
    """
    if any(store.list(prefix) for prefix in (layout.RUNS_PREFIX, *_PARTS)):
        return
    raise NoStore(
        f"no store at {store.root}: received a place where nothing of blora lies; accepted: the --root (or BLORA_ROOT) "
        "that blora run was given; blora run makes a new one"
    )


def _newest_first(store: Store, run_ids: list[str]) -> list[tuple[str, str]]:
    """Some runs with when they were planned, damaged ones last."""
    records = find_records(store)
    planned = {
        run_id: "" if isinstance(record, Damaged) else record.planned_at
        for run_id, record in records.items()
        if run_id in set(run_ids)
    }
    return sorted(planned.items(), key=lambda row: row[1], reverse=True)
