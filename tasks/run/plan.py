"""A run and its plan as they lie in the store: ``runs/<run_id>/run.json`` and ``plan.parquet``.

Packs of adapters and shards of samples, what they are called, and how they are read; the inventory, the scores and the
outcome of a run start from here.
"""

from __future__ import annotations

import gc
import itertools
import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from blora.settings.presets import Settings
from manifests import layout
from manifests.errors import Missing
from manifests.faults import Fault
from manifests.store.run_folder import RunFolder, damage_told, json_mapping
from manifests.store.store import Store
from manifests.tables.parquet import read_rows
from manifests.tables.run import PLAN_FILE, REDO_FILES
from tasks.errors import RunNotFound
from tasks.run.items import PlannedAdapter, PlannedSample, SidePart

__all__ = [
    "Pack",
    "Plan",
    "PlannedAdapter",
    "PlannedSample",
    "RunInfo",
    "Shard",
    "SidePart",
    "load_plan",
    "load_run",
    "published_scores_key",
    "scores_key",
    "uncollected",
]

RUN_FORMAT = 1  # of run.json


@dataclass(frozen=True)
class RunInfo:
    """What a run is, as kept in ``runs/<run_id>/run.json``.

    Attributes:
        run_id: its id, from its content.
        name: the manifest's name.
        source: where the manifest was read from.
        base: the base model as the manifest names it.
        base_revision: its pinned revision.
        settings: the resolved settings.
        strength_reading: ``linear``, or ``reference`` for the squared reading of the reference code.
        on_fault: ``record`` or ``stop``.
        created_at: when it was first planned, UTC.
        faults: refused rows of the manifest, found while planning.
    """

    run_id: str
    name: str
    source: str
    base: str
    base_revision: str
    settings: Settings
    strength_reading: str
    on_fault: str
    created_at: datetime
    faults: tuple[Fault, ...] = ()

    @property
    def precisions(self) -> frozenset[str]:
        """In which the base is needed, by training and drawing."""
        return frozenset({self.settings.train.precision, self.settings.sample.precision})

    def to_json(self, **outcome: Any) -> bytes:
        """The content of run.json; `outcome` holds what is known at the end."""
        body = {
            "format": RUN_FORMAT,
            "run_id": self.run_id,
            "name": self.name,
            "source": self.source,
            "base": self.base,
            "base_revision": self.base_revision,
            "settings": self.settings.model_dump(mode="json"),
            "strength_reading": self.strength_reading,
            "on_fault": self.on_fault,
            "created_at": self.created_at.isoformat(),
            "faults": [vars(fault) for fault in self.faults],
            **outcome,
        }
        return json.dumps(body, indent=2, ensure_ascii=False).encode()

    @classmethod
    def from_json(cls, data: bytes) -> RunInfo:
        """Read back what `to_json` wrote."""
        body = json_mapping(data)
        return cls(
            settings=Settings.model_validate(body["settings"]),
            created_at=datetime.fromisoformat(body["created_at"]),
            faults=tuple(Fault(**fault) for fault in body["faults"]),
            **{
                key: body[key]
                for key in ("run_id", "name", "source", "base", "base_revision", "strength_reading", "on_fault")
            },
        )


@dataclass(frozen=True)
class Pack:
    """Adapters trained in one pass."""

    pack_id: str
    index: int
    adapters: tuple[PlannedAdapter, ...]


@dataclass(frozen=True)
class Shard:
    """A stretch of one row: samples that share a content, or a style where prompts say the contents.

    Drawn by one task run, in batches of fixed membership.
    """

    shard_id: str
    index: int
    batches: tuple[tuple[PlannedSample, ...], ...]

    @property
    def samples(self) -> tuple[PlannedSample, ...]:
        """All samples, in drawing order."""
        return tuple(sample for batch in self.batches for sample in batch)

    @property
    def adapter_ids(self) -> frozenset[str]:
        """Every adapter that must exist before all of the shard can be drawn."""
        return frozenset(adapter_id for sample in self.samples for adapter_id in sample.adapter_ids)


@dataclass(frozen=True)
class Plan:
    """A run and its work, grouped."""

    run: RunInfo
    packs: tuple[Pack, ...]
    shards: tuple[Shard, ...]

    # A plan may hold hundreds of thousands of items, and is asked for one of them at a time: each is worked out once.
    @cached_property
    def adapters(self) -> tuple[PlannedAdapter, ...]:
        """Every adapter, in training order."""
        return tuple(adapter for pack in self.packs for adapter in pack.adapters)

    @cached_property
    def samples(self) -> tuple[PlannedSample, ...]:
        """Every sample, in drawing order."""
        return tuple(sample for shard in self.shards for sample in shard.samples)

    def part(self, pack_ids: Collection[str], shard_ids: Collection[str]) -> Plan:
        """The same run with some of its packs and shards, and all adapters that are not trained."""
        packs = tuple(p for p in self.packs if p.pack_id in pack_ids or all(a.is_finished for a in p.adapters))
        return Plan(self.run, packs, tuple(shard for shard in self.shards if shard.shard_id in shard_ids))

    def adapter(self, adapter_id: str) -> PlannedAdapter:
        """The adapter of that id."""
        return self._adapters[adapter_id]

    def pack(self, pack_id: str) -> Pack:
        """The pack of that id."""
        return self._packs[pack_id]

    def shard(self, shard_id: str) -> Shard:
        """The shard of that id."""
        return self._shards[shard_id]

    @cached_property
    def _adapters(self) -> dict[str, PlannedAdapter]:
        return {adapter.adapter_id: adapter for adapter in self.adapters}

    @cached_property
    def _packs(self) -> dict[str, Pack]:
        return {pack.pack_id: pack for pack in self.packs}

    @cached_property
    def _shards(self) -> dict[str, Shard]:
        return {shard.shard_id: shard for shard in self.shards}


@contextmanager
def uncollected() -> Iterator[None]:
    """Put off the collector of cyclic garbage while much is made that stays: it would go through all of it for nothing.

    For plain data alone, and briefly: what has cycles, such as an open picture, piles up meanwhile.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def load_run(store: Store, run_id: str) -> RunInfo:
    """Read what a run is.

    Raises:
        RunNotFound: the store has no such run.
        Damaged: what is there cannot be read.
    """
    key = RunFolder(store, run_id).key("run.json")
    try:
        data = store.read(key)
    except Missing as error:
        known = sorted({key.split("/")[1] for key in store.list(layout.RUNS_PREFIX)})
        raise RunNotFound(
            f"run: received {run_id!r}; the store {store.root} holds: {', '.join(known[-10:]) or 'no run yet'}"
        ) from error
    with damage_told(store, key):
        return RunInfo.from_json(data)


@uncollected()
def load_plan(store: Store, run_id: str) -> Plan:
    """Read a published plan, and what reviews have added to it since.

    Raises:
        RunNotFound: the store has no such run, or its planning did not end.
        Damaged: what is there of it cannot be read.
    """
    run, folder = load_run(store, run_id), RunFolder(store, run_id)
    try:
        table = folder.read(PLAN_FILE)
    except Missing as error:
        raise RunNotFound(f"run {run_id}: its planning did not end; run the manifest {run.source} again") from error
    packs: dict[str, list[PlannedAdapter]] = {}
    shards: dict[str, dict[int, list[PlannedSample]]] = {}
    redone = map(folder.read, folder.files(REDO_FILES))
    seen: set[str] = set()
    for row in itertools.chain.from_iterable(map(read_rows, (table, *redone))):
        if row["kind"] == "adapter":
            said = tuple(row["image_ids"]), row["prompt"] or "", row["source_file"] or ""
            adapter = PlannedAdapter(row["adapter_id"], row["name"], row["word"], *said)
            packs.setdefault(row["group_id"], []).append(adapter)
        elif row["sample_id"] not in seen:  # two reviews at once may ask for the same picture
            seen.add(row["sample_id"])
            sample = PlannedSample.of(row)
            shards.setdefault(row["group_id"], {}).setdefault(row["batch_index"], []).append(sample)
    return Plan(
        run,
        tuple(Pack(group, index, tuple(members)) for index, (group, members) in enumerate(packs.items())),
        tuple(
            Shard(group, index, tuple(tuple(batches[number]) for number in sorted(batches)))
            for index, (group, batches) in enumerate(shards.items())
        ),
    )


def scores_key(run: RunInfo, shard: Shard) -> str:
    """Where a shard's scores lie, for as long as `tasks.run.scores` leaves them there."""
    return layout.shard_scores_key(run.run_id, shard.shard_id)


def published_scores_key(run: RunInfo) -> str:
    """Where all scores of a run lie once it was closed: under the date on which it was first planned."""
    return layout.scores_part_key(run.created_at.date(), run.run_id, "0")
