"""How runs stand: counted against the store now (`Outcome`), or as it was recorded when they last ended (`RunRecord`).

What was recorded lies in ``runs/<run_id>/run.json`` and ``faults.parquet``; this is their one reader.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from manifests import layout
from manifests.errors import Damaged, Missing, counted
from manifests.faults import Fault
from manifests.notes import Note
from manifests.store.parallel import in_parallel
from manifests.store.run_folder import RunFolder, damage_told, json_mapping
from manifests.store.store import Store
from manifests.tables.run import FAULTS_FILE, NOTES_FILE
from tasks.errors import RunNotFound
from tasks.run.inventory import Inventory
from tasks.run.plan import Plan

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """How a run stands, by what the store holds.

    Attributes:
        run_id: the run.
        adapters_done: adapters whose marker and halves are there.
        adapters: adapters planned.
        samples_done: pictures that are there.
        samples: pictures planned.
        scored: pictures with scores.
        faults: everything refused or failed, with its reason.
    """

    run_id: str
    adapters_done: int
    adapters: int
    samples_done: int
    samples: int
    scored: int
    faults: tuple[Fault, ...]

    @classmethod
    def of(cls, plan: Plan, inventory: Inventory, faults: Sequence[Fault]) -> Outcome:
        """Count what is there of what was planned."""
        return cls(
            plan.run.run_id,
            len(inventory.adapters),
            len(plan.adapters),
            len(inventory.pictures),
            len(plan.samples),
            len(inventory.scored & inventory.pictures.keys()),
            tuple(faults),
        )

    @property
    def complete(self) -> bool:
        """Whether all that was asked for is there, refused rows included."""
        return self.samples_done == self.samples and self.scored == self.samples and not self.faults

    @property
    def sentence(self) -> str:
        """The outcome in one line, for states, lists and alerts."""
        pictures, adapters = counted(self.samples, "picture"), counted(self.adapters, "adapter")
        text = f"{self.samples_done} of {pictures}, {self.adapters_done} of {adapters}"
        return text + (f", {counted(len(self.faults), 'fault')}" if self.faults else "")


@dataclass(frozen=True)
class RunRecord:
    """What run.json says of a run, of any version: how it was planned, and how it last ended.

    Attributes:
        run_id: the run.
        state: ``planned`` until it has ended; then ``finished``, where all that was asked for was there, or ``faults``.
        created_at: when it was first planned, ISO, UTC.
        base_revision: of its base model.
        settings: its resolved settings, as JSON has them.
        sentence: its outcome in a line; empty until it has ended.
        passed: of how many adapters and pictures how many passed, in a line; empty where none were judged.
        timings: seconds and numbers of items by kind of work, of the last time that something was done.
    """

    run_id: str
    state: str
    created_at: str
    base_revision: str
    settings: Mapping[str, Any]
    sentence: str
    passed: str
    timings: Mapping[str, Any]

    @property
    def planned_at(self) -> str:
        """`created_at` for people, to the second."""
        return f"{self.created_at[:19].replace('T', ' ')} UTC"

    @classmethod
    def of(cls, data: bytes) -> RunRecord:
        """Take it from what a run.json says.

        Raises:
            ValueError, LookupError, TypeError: it is none.
        """
        body = json_mapping(data)
        for name, kind in {"run_id": str, "state": str, "created_at": str, "settings": dict}.items():
            if not isinstance(body[name], kind):
                raise TypeError(f"{name} is no {kind.__name__}")
        return cls(
            run_id=body["run_id"],
            state=body["state"],
            created_at=body["created_at"],
            base_revision=body["base_revision"],
            settings=body["settings"],
            sentence=body.get("sentence", ""),
            passed=(body.get("yield") or {}).get("sentence", ""),
            timings=body.get("timings") or {},
        )

    @property
    def complete(self) -> bool:
        """Whether all that was asked for was there when it last ended."""
        return self.state == "finished"


def read_record(store: Store, run_id: str) -> RunRecord:
    """How a run stood when it last ended, as it was recorded then; nothing is counted again.

    Raises:
        RunNotFound: no such run.
        Damaged: what was recorded cannot be read.
    """
    key = RunFolder(store, run_id).key("run.json")
    try:
        data = store.read(key)
    except Missing as error:
        raise RunNotFound(f"run: received {run_id!r}; the store {store.root} has no such run") from error
    with damage_told(store, key):
        return RunRecord.of(data)


def read_records(store: Store) -> list[RunRecord]:
    """Every run of the store whose record can be read; of the others the log tells."""
    records: list[RunRecord] = []
    for record in find_records(store).values():
        if isinstance(record, Damaged):
            log.warning("%s", record)
        else:
            records.append(record)
    return records


def find_records(store: Store) -> dict[str, RunRecord | Damaged]:
    """Every run of the store, less those that are deleted at this moment, by its id and in the order of ids.

    A run whose record cannot be read has in its place what is wrong with it.
    """
    keys = [key for key in store.list(layout.RUNS_PREFIX) if key.endswith("/run.json") and key.count("/") == 2]
    records: dict[str, RunRecord | Damaged] = {}
    for key, data in zip(keys, in_parallel(store, store.find, keys), strict=True):
        if data is not None:
            try:
                with damage_told(store, key):
                    records[key.split("/")[1]] = RunRecord.of(data)
            except Damaged as error:
                records[key.split("/")[1]] = error
    return records


def recorded_faults(store: Store, run_id: str) -> tuple[Fault, ...]:
    """The faults of a run as it last ended; none if it has not ended yet.

    Raises:
        Damaged: they cannot be read.
    """
    rows = RunFolder(store, run_id).rows(FAULTS_FILE, "blora rerun writes it again")
    return tuple(Fault(**{name: row[name] for name in Fault.__dataclass_fields__}) for row in rows)


def recorded_notes(store: Store, run_id: str) -> tuple[Note, ...]:
    """What there was to know of a run's rows when it was planned."""
    rows = RunFolder(store, run_id).rows(NOTES_FILE)
    return tuple(Note(**{name: row[name] for name in Note.__dataclass_fields__}) for row in rows)
