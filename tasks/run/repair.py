"""What of a run is there and cannot be used: taken away, so that it is made again as if it had never been there."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from manifests.errors import Damaged, printable_name
from manifests.store.backend import Entry
from manifests.store.parallel import in_parallel
from manifests.store.run_folder import RunFolder
from manifests.store.store import Store
from manifests.tables.run import SAMPLES_FILE
from tasks.pictures import decoded
from tasks.run.inventory import Inventory
from tasks.run.plan import Plan

_SAME_TIME = timedelta(seconds=1)  # buckets tell times by the second


def discard_unreadable(store: Store, plan: Plan, inventory: Inventory) -> list[str]:
    """Delete those of a run's pictures that cannot be read; to be called by whoever draws them again.

    A picture that has scores was read once. It is read again only where it has been written since the run last ended.

    Args:
        store: the store.
        plan: the run's plan.
        inventory: what is there of it.

    Returns:
        What was deleted and why, a line each.

    Raises:
        StoreError: the store cannot be asked, or a picture not be deleted.
    """
    recorded = _recorded(store, plan.run.run_id)
    suspect = [
        sample.key
        for sample in plan.samples
        if (entry := inventory.pictures.get(sample.sample_id)) is not None
        and (sample.sample_id not in inventory.scored or _differs(entry, recorded.get(sample.sample_id)))
    ]
    problems = zip(suspect, in_parallel(store, lambda key: _problem(store, key), suspect), strict=True)
    told = []
    for key, problem in problems:
        if problem:
            store.delete(key)
            told.append(f"{store.root}/{printable_name(key)} is no picture ({problem}): deleted, to be drawn again")
    return told


def _recorded(store: Store, run_id: str) -> Mapping[str, tuple[int, datetime]]:
    """The size and time of each picture as they were when the run last ended; nothing where that is not known."""
    try:
        rows = RunFolder(store, run_id).rows(SAMPLES_FILE)
    except Damaged:
        return {}
    return {row["sample_id"]: (row["bytes"], row["drawn_at"]) for row in rows if row["drawn_at"] is not None}


def _differs(entry: Entry, recorded: tuple[int, datetime] | None) -> bool:
    if recorded is None:
        return False
    size, drawn_at = recorded
    return entry.size != size or abs(entry.modified - drawn_at) >= _SAME_TIME


def _problem(store: Store, key: str) -> str:
    """What is wrong with a picture; nothing where it is well, or gone."""
    if (data := store.find(key)) is None:
        return ""
    if not data:
        return "an empty file"
    try:
        decoded(data)
    except OSError:
        return f"{len(data)} bytes that no picture can be read from"
    return ""
