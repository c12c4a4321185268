"""What of a run is there and cannot be used: taken away, so that it is made again as if it had never been there."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from manifests import layout
from manifests.errors import Damaged, printable_name
from manifests.store.backend import Entry
from manifests.store.parallel import in_parallel
from manifests.store.run_folder import RunFolder
from manifests.store.store import Store
from manifests.tables.run import SAMPLES_FILE
from tasks.pictures import problem_of
from tasks.run.inventory import Inventory
from tasks.run.markers import REMEDY, cut_halves, read_markers
from tasks.run.plan import Plan

_SAME_TIME = timedelta(seconds=1)  # buckets tell times by the second


def discard_unreadable(store: Store, plan: Plan, inventory: Inventory) -> list[str]:
    """Delete those of a run's pictures and adapters that cannot be read; to be called by whoever makes them again.

    A picture that has scores was read once. It is read again only where it has been written since the run last ended.
    Of adapters only the markers are read: a half that is not as long as its marker says was cut.

    Args:
        store: the store.
        plan: the run's plan.
        inventory: what is there of it.

    Returns:
        What was deleted and why, a line each.

    Raises:
        StoreError: the store cannot be asked, or an object not be deleted.
    """
    return [*_discard_pictures(store, plan, inventory), *_discard_adapters(store, plan, inventory)]


def _discard_adapters(store: Store, plan: Plan, inventory: Inventory) -> list[str]:
    """Delete markers that cannot be read, and halves that were cut."""
    there = [adapter.adapter_id for adapter in plan.adapters if adapter.adapter_id in inventory.adapters]
    told, sound = [], {}
    for adapter_id, marker in read_markers(store, there).items():
        if isinstance(marker, Damaged):
            store.delete(layout.adapter_marker_key(adapter_id))
            told.append(f"{marker.what} ({marker.received}): deleted; {REMEDY}")
        else:
            sound[adapter_id] = marker
    for key, problem in cut_halves(store, sound).items():
        store.delete(key)  # without it the adapter is not whole, and what its marker tells of the other half stays
        told.append(f"{store.root}/{printable_name(key)} is cut ({problem}): deleted; {REMEDY}")
    return told


def _discard_pictures(store: Store, plan: Plan, inventory: Inventory) -> list[str]:
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
    return "" if (data := store.find(key)) is None else problem_of(data)
