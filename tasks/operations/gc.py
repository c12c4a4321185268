"""Housekeeping: what no run refers to any more, and what was kept long enough. A plan first, deletion second.

Adapters, pictures and inputs are dropped when no run's plan refers to them and they are older than some days. With a
retention of runs, older runs that nobody is at work on go first, their scores with them, and so what only they referred
to. Leases that lapsed long ago and records of nights go by the same age.
The small parts of scores of a run at rest go after a day, for the data set holds their rows (`tasks.run.scores`).

A live lease is never touched, nor what it protects. Deleting goes marker first, so that a reader never sees a marker
without its data. Before every chunk of deletions runs are looked at again: what a plan refers to that was not read
before, or has grown since, stays, and so does an old run in which something has been written. What slips through
between the look and the deletion is missing from that run, which `blora rerun` makes again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from manifests import layout
from manifests.errors import printable_name
from manifests.store.backend import Entry
from manifests.store.store import Store
from tasks.errors import TaskError
from tasks.operations.references import SHARED, References, object_id, planned_runs, references, run_of
from tasks.run.scores import superseded_parts

CHUNK = 200
"""Objects that are deleted between two looks for new runs."""

AT_REST = timedelta(days=1)
"""A run in which nothing was written for so long, and that nobody is at work on, is at rest."""


@dataclass(frozen=True)
class Waste:
    """Objects that nothing needs, in the order of deletion.

    Attributes:
        kind: runs, score parts, adapters, pictures, inputs, leases or nights.
        names: what a person calls them: ids, in the order of the keys.
        keys: object keys with their sizes in bytes.
    """

    kind: str
    names: tuple[str, ...] = ()
    keys: Mapping[str, int] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """What deleting them frees."""
        return sum(self.keys.values())


@dataclass(frozen=True)
class Removable:
    """What may go.

    Attributes:
        waste: by kind, in the order of deletion.
        read: the runs whose plans were read when it was looked for; what they refer to is not in it.
        listing: the objects of all runs as they were before that.
        unreadable: what is wrong with runs that cannot be read, a line each. As they might refer to any adapter,
            picture and input, none of these is waste.
    """

    waste: tuple[Waste, ...]
    read: frozenset[str]
    listing: Mapping[str, Entry]
    unreadable: tuple[str, ...] = ()

    def written_since(self, runs: Mapping[str, Entry]) -> list[str]:
        """Those of the objects of all runs that have been written in the meantime."""
        return [key for key, entry in runs.items() if self.listing.get(key) != entry]


def find_waste(store: Store, older_than: timedelta, runs_older_than: timedelta | None = None) -> Removable:
    """Everything that may go. Deletes nothing.

    Args:
        store: the store.
        older_than: the least age, by the store's clock of writing, of what no run refers to.
        runs_older_than: the age from which runs go themselves; None keeps them all.

    Raises:
        ValueError: an age of less than a day, in which a run may still be being planned.
        TaskError: a link among the runs is not followed, so that what a run there refers to cannot be known.
        StoreError: the store cannot be asked.
    """
    for age in (older_than, runs_older_than):
        if age is not None and age < timedelta(days=1):
            raise ValueError(
                f"gc: received an age of {age}; accepted: a day or more, so that no run being planned is hit"
            )
    now = datetime.now(UTC)
    runs = store.list(layout.RUNS_PREFIX)
    _check_all_runs_are_seen(store)
    old_runs = _old_runs(store, runs, now - runs_older_than) if runs_older_than else frozenset()
    kept = references(store, planned_runs(runs) - old_runs)
    before = now - older_than
    wastes = [
        _runs_waste(store, runs, old_runs),
        _score_parts(store, runs, _old_runs(store, runs, now - AT_REST) - old_runs),
        *(() if kept.unreadable else _unreferred(store, kept, before)),
        _leases(store, before),
    ]
    if runs_older_than:
        nights = store.list(layout.NIGHTS_PREFIX)
        old = {key: entry.size for key, entry in nights.items() if entry.modified < now - runs_older_than}
        wastes.append(Waste("nights", tuple(key.split("/")[1] for key in old), old))
    return Removable(tuple(waste for waste in wastes if waste.keys), kept.runs, runs, kept.unreadable)


def _check_all_runs_are_seen(store: Store) -> None:
    for key, (entry, problem) in store.strays(layout.RUNS_PREFIX).items():
        if entry.problem:
            raise TaskError(
                f"gc: received {printable_name(key)}, {problem}; accepted: runs in the store itself, for what a run "
                "there refers to would be deleted; put the files in its place, or remove it"
            )


def delete_waste(store: Store, removable: Removable) -> Iterator[tuple[str, int]]:
    """Delete what `find_waste` found, less what is needed by now; yields (kind, objects deleted) chunk by chunk."""
    for waste in removable.waste:
        keys = list(waste.keys)
        for start in range(0, len(keys), CHUNK):
            chunk = keys[start : start + CHUNK]
            runs = store.list(layout.RUNS_PREFIX)
            written = removable.written_since(runs)
            in_use = frozenset(map(run_of, written))
            needed = _needed(store, removable, runs, written) if chunk[0].startswith(SHARED) else References()
            deleted = 0
            for key in chunk:
                if run_of(key) not in in_use and not needed.include(key) and not _is_live(store, key):
                    store.delete(key)
                    deleted += 1
            yield waste.kind, deleted


def _needed(store: Store, removable: Removable, runs: Mapping[str, Entry], written: Iterable[str]) -> References:
    """What is referred to by plans that were not read when waste was looked for, or that have grown since."""
    grown = {run_of(key) for key in written if "/redo/" in key}
    return references(store, planned_runs(runs) - (removable.read - grown))


def _old_runs(store: Store, runs: Mapping[str, Entry], before: datetime) -> frozenset[str]:
    """Runs in which nothing was written for so long, and that nobody is at work on."""
    newest: dict[str, datetime] = {}
    for key, entry in runs.items():
        run_id = run_of(key)
        newest[run_id] = max(entry.modified, newest.get(run_id, entry.modified))
    return frozenset(
        run_id
        for run_id, modified in newest.items()
        if modified < before and not _lease_is_live(store, layout.run_lease_key(run_id))
    )


def _runs_waste(store: Store, runs: Mapping[str, Entry], old: frozenset[str]) -> Waste:
    keys = [key for key in runs if run_of(key) in old]
    # plan.parquet is the marker of a run: without it, it is no run to anybody.
    keys.sort(key=lambda key: (run_of(key), not key.endswith("/plan.parquet")))
    sizes = {key: runs[key].size for key in keys}
    if old:
        parts = store.list(layout.SCORES_PREFIX)
        sizes |= {key: entry.size for key, entry in parts.items() if run_of(key) in old}
    return Waste("runs", tuple(sorted(old)), sizes)


def _score_parts(store: Store, runs: Mapping[str, Entry], at_rest: frozenset[str]) -> Waste:
    """Parts of scores whose rows are in the data set."""
    of_run: dict[str, dict[str, Entry]] = {}
    for key, entry in runs.items():
        of_run.setdefault(run_of(key), {})[key] = entry
    sizes: dict[str, int] = {}
    names: list[str] = []
    for run_id in sorted(at_rest):
        if parts := superseded_parts(store, run_id, of_run[run_id]):
            names.append(run_id)
            sizes |= parts
    return Waste("score parts", tuple(names), sizes)


def _unreferred(store: Store, kept: References, before: datetime) -> tuple[Waste, ...]:
    """What no run refers to of what all share."""
    return (
        _adapters(store, kept, before),
        _single(store, "pictures", layout.SAMPLES_PREFIX, kept.samples, before),
        _single(store, "inputs", layout.IMAGES_PREFIX, kept.images, before),
    )


def _adapters(store: Store, kept: References, before: datetime) -> Waste:
    folders: dict[str, dict[str, Entry]] = {}
    for key, entry in store.list(layout.ADAPTERS_PREFIX).items():
        folders.setdefault(key.split("/")[1], {})[key] = entry
    sizes: dict[str, int] = {}
    names: list[str] = []
    for adapter_id, entries in folders.items():
        young = any(entry.modified >= before for entry in entries.values())
        if young or adapter_id in kept.adapters or _lease_is_live(store, layout.lease_key(adapter_id)):
            continue
        names.append(adapter_id)
        marker_first = sorted(entries, key=lambda key: not key.endswith("/adapter.json"))
        sizes |= {key: entries[key].size for key in marker_first}
    return Waste("adapters", tuple(names), sizes)


def _single(store: Store, kind: str, prefix: str, kept: frozenset[str], before: datetime) -> Waste:
    """Objects that are named by their id."""
    sizes = {
        key: entry.size
        for key, entry in store.list(prefix).items()
        if entry.modified < before and object_id(key) not in kept
    }
    return Waste(kind, tuple(object_id(key) for key in sizes), sizes)


def _leases(store: Store, before: datetime) -> Waste:
    """Records of leases that lapsed, or were released, long ago."""
    old = {key: entry.size for key, entry in store.list(layout.LEASES_PREFIX).items() if entry.modified < before}
    sizes = {key: size for key, size in old.items() if not _lease_is_live(store, key)}
    return Waste("leases", tuple(object_id(key) for key in sizes), sizes)


def _is_live(store: Store, key: str) -> bool:
    """Whether somebody has taken the lease of an object, or the lease itself, in the meantime."""
    if key.startswith(layout.ADAPTERS_PREFIX):
        return _lease_is_live(store, layout.lease_key(key.split("/")[1]))
    if run_id := run_of(key):
        return _lease_is_live(store, layout.run_lease_key(run_id))
    return key.startswith(layout.LEASES_PREFIX) and _lease_is_live(store, key)


def _lease_is_live(store: Store, key: str) -> bool:
    held = store.look_at_lease(key)
    return held is not None and held.is_live
