"""A run and its plan as they lie in the store: ``runs/<run_id>/run.json`` and ``plan.parquet``.

What every other module of this room works from: packs of adapters, shards of samples, and what they are called.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from blora.config import Settings
from manifests import layout
from manifests.faults import Fault
from manifests.store import Missing, Store
from manifests.tables import PLAN, from_parquet_bytes
from tasks.faults import RunNotFound
from tasks.planned import Part, PlannedAdapter, PlannedSample

__all__ = [
    "Pack",
    "Part",
    "Plan",
    "PlannedAdapter",
    "PlannedSample",
    "RunInfo",
    "Shard",
    "load_plan",
    "load_run",
    "plan_rows",
    "scores_key",
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
        body = json.loads(data)
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

    @property
    def adapters(self) -> tuple[PlannedAdapter, ...]:
        """Every adapter, in training order."""
        return tuple(adapter for pack in self.packs for adapter in pack.adapters)

    @property
    def samples(self) -> tuple[PlannedSample, ...]:
        """Every sample, in drawing order."""
        return tuple(sample for shard in self.shards for sample in shard.samples)

    def adapter(self, adapter_id: str) -> PlannedAdapter:
        """The adapter of that id."""
        return next(adapter for adapter in self.adapters if adapter.adapter_id == adapter_id)


def load_run(store: Store, run_id: str) -> RunInfo:
    """Read what a run is.

    Raises:
        RunNotFound: the store has no such run.
    """
    try:
        return RunInfo.from_json(store.read(layout.run_key(run_id, "run.json")))
    except Missing as error:
        known = sorted({key.split("/")[1] for key in store.list(layout.RUNS_PREFIX)})
        raise RunNotFound(
            f"run: received {run_id!r}; the store {store.root} holds: {', '.join(known[-10:]) or 'no run yet'}"
        ) from error


def load_plan(store: Store, run_id: str) -> Plan:
    """Read a published plan.

    Raises:
        RunNotFound: the store has no such run, or its planning did not end.
    """
    run = load_run(store, run_id)
    try:
        table = from_parquet_bytes(store.read(layout.run_key(run_id, "plan.parquet")), PLAN)
    except Missing as error:
        raise RunNotFound(f"run {run_id}: its planning did not end; run the manifest {run.source} again") from error
    packs: dict[str, list[PlannedAdapter]] = {}
    shards: dict[str, dict[int, list[PlannedSample]]] = {}
    for row in table.to_pylist():
        if row["kind"] == "adapter":
            adapter = PlannedAdapter(row["adapter_id"], row["name"], row["word"], tuple(row["image_ids"]))
            packs.setdefault(row["group_id"], []).append(adapter)
        else:
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


def scores_key(plan: Plan, shard: Shard) -> str:
    """Where a shard's scores lie: under the date on which the run was first planned, so that reruns find their part."""
    return layout.scores_part_key(plan.run.created_at.date(), plan.run.run_id, shard.shard_id)


def plan_rows(plan: Plan) -> Iterable[dict[str, Any]]:
    """The plan as rows of the PLAN table."""
    blank: dict[str, Any] = dict.fromkeys(PLAN.names)
    for pack in plan.packs:
        for position, adapter in enumerate(pack.adapters):
            yield blank | {
                "run_id": plan.run.run_id,
                "kind": "adapter",
                "group_id": pack.pack_id,
                "group_index": pack.index,
                "batch_index": 0,
                "position": position,
                "adapter_id": adapter.adapter_id,
                "name": adapter.name,
                "word": adapter.word,
                "image_ids": list(adapter.image_ids),
            }
    for shard in plan.shards:
        for number, batch in enumerate(shard.batches):
            for position, sample in enumerate(batch):
                yield (
                    blank
                    | sample.columns()
                    | {
                        "run_id": plan.run.run_id,
                        "kind": "sample",
                        "group_id": shard.shard_id,
                        "group_index": shard.index,
                        "batch_index": number,
                        "position": position,
                    }
                )
