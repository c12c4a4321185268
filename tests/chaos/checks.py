"""What must hold whatever was killed: whole objects at any time, and in the end what an undisturbed run leaves."""

from __future__ import annotations

import io
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import psutil
import pyarrow.parquet as pq

from manifests import layout
from manifests.errors import Missing
from manifests.store.store import Store
from manifests.tables.parquet import from_parquet_bytes
from manifests.tables.run import SCORES

FIXED = ("adapters/", "samples/", "images/")
"""Prefixes of objects whose bytes follow from their keys; adapter.json apart, which says when and where."""


@dataclass(frozen=True)
class Truth:
    """What an undisturbed run of the manifest leaves.

    Attributes:
        run_id: of the manifest, from its content.
        objects: images, halves of adapters and pictures by key.
        scores: rows of the score data set, without the time at which they were scored.
    """

    run_id: str
    objects: Mapping[str, bytes]
    scores: tuple[tuple[Any, ...], ...]


def read_truth(store: Store) -> Truth:
    """Take down what a run has left in a store that holds nothing else."""
    (run_id,) = {key.split("/")[1] for key in store.list(layout.RUNS_PREFIX)}
    return Truth(run_id, fixed_objects(store), score_rows(store))


def fixed_objects(store: Store) -> dict[str, bytes]:
    """Every object whose bytes follow from its key."""
    return {key: store.read(key) for prefix in FIXED for key in store.list(prefix) if not key.endswith(".json")}


def score_rows(store: Store) -> tuple[tuple[Any, ...], ...]:
    """The rows of the whole score data set, sorted, without the time."""
    rows: list[tuple[Any, ...]] = []
    for key in store.list(layout.SCORES_PREFIX):
        table = from_parquet_bytes(store.read(key), SCORES).drop_columns(["scored_at"])
        rows += [tuple(row.values()) for row in table.to_pylist()]
    return tuple(sorted(rows, key=repr))


@dataclass
class Watch:
    """Looks again and again at what a reader sees in a store; remembers what never changes again."""

    store: Store
    truth: Truth
    checked: set[str] = field(default_factory=set)
    finished: dict[str, datetime] = field(default_factory=dict)
    """When markers of adapters were written, as first seen."""

    def look(self) -> list[str]:
        """What is visible and should not be: partial objects, other bytes, markers without their data."""
        listed = self.store.list("")
        faults = [
            f"{key}: visible without {needed}" for key in listed for needed in _needed(key) if needed not in listed
        ]
        for key in listed:
            if key.endswith("/adapter.json"):
                written = listed[key].modified
                if written != self.finished.setdefault(key, written):
                    faults.append(f"{key}: trained again, although it was finished")
        for key in listed.keys() - self.checked:
            try:
                data = self.store.read(key)
            except Missing:
                continue  # a checkpoint or a lease that went between the listing and the reading
            faults += [f"{key}: {fault}" for fault in self._faults(key, data)]
            if key.startswith(FIXED):
                self.checked.add(key)
        return faults

    def _faults(self, key: str, data: bytes) -> list[str]:
        if key.startswith(FIXED) and not key.endswith(".json"):
            expected = self.truth.objects.get(key)
            if expected is None:
                return ["no undisturbed run makes it"]
            return [] if data == expected else [f"{len(data)} bytes that differ from the undisturbed {len(expected)}"]
        try:
            if key.endswith(".parquet"):
                pq.read_table(io.BytesIO(data))
            elif key.endswith(".json"):
                json.loads(data)
            elif key.endswith(".jsonl"):
                [json.loads(line) for line in data.splitlines()]
        except (ValueError, OSError) as error:
            return [f"cannot be read: {error}"]
        return []

    def compare(self) -> list[str]:
        """What differs from an undisturbed run, once the run has ended."""
        faults = self.look()
        found = fixed_objects(self.store)
        faults += [f"{key}: missing" for key in self.truth.objects.keys() - found.keys()]
        scores = score_rows(self.store)
        if scores != self.truth.scores:
            faults.append(f"scores/: {len(scores)} rows differ from the undisturbed {len(self.truth.scores)}")
        run = json.loads(self.store.read(layout.run_key(self.truth.run_id, "run.json")))
        if run["state"] != "finished":
            faults.append(f"run.json: state {run['state']}, {run.get('sentence')}")
        return faults


def _needed(key: str) -> tuple[str, ...]:
    """What must be visible where `key` is: a marker is written last."""
    if key.startswith(layout.ADAPTERS_PREFIX) and key.endswith("/adapter.json"):
        return layout.adapter_keys(key.split("/")[1])
    if key.startswith(layout.RUNS_PREFIX) and key.endswith("/plan.parquet"):
        run_id = key.split("/")[1]
        return tuple(layout.run_key(run_id, name) for name in ("run.json", "manifest.json"))
    return ()


def leases(store: Store) -> dict[str, tuple[str, float]]:
    """Holder and end of every lease that binds somebody now."""
    found = {key: store.look_at_lease(key) for key in store.list(layout.LEASES_PREFIX)}
    return {key: (held.holder, held.expires_at) for key, held in found.items() if held is not None and held.is_live}


def held_by_the_living(store: Store) -> list[str]:
    """Leases of processes of this machine that live on. Those of killed ones lapse by themselves, and do not count."""
    faults: list[str] = []
    for key, (holder, _) in leases(store).items():
        named = re.search(r"process (\d+)", holder)
        if named is None or psutil.pid_exists(int(named[1])):
            faults.append(f"{key}: still held by {holder}")
    return faults


def wait_until_lapsed(store: Store, most_seconds: float) -> list[str]:
    """Wait until every lease has lapsed; those that do not are renewed by somebody, or never end."""
    deadline = time.time() + most_seconds
    while (live := leases(store)) and time.time() < deadline:
        time.sleep(0.2)
    return [f"{key}: lease of {holder} did not lapse" for key, (holder, _) in live.items()]
