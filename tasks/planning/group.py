"""Adapters in packs and samples in shards, and both as rows of the plan.

Packs and batches keep their membership in every rerun: what the store lacked when the plan was made stands first, so
that old work and new work do not share a pack.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from blora.settings.presets import Settings
from manifests import ids
from manifests.tables.run import PLAN
from tasks.run.inventory import Holdings
from tasks.run.plan import Pack, Plan, PlannedAdapter, PlannedSample, Shard

Item = TypeVar("Item")


def packs_of(adapters: Sequence[PlannedAdapter], held: Holdings, size: int) -> tuple[Pack, ...]:
    """Packs of what is missing, then packs of what is there (a rerun may find it gone), then of what came finished."""
    groups: list[tuple[PlannedAdapter, ...]] = []
    trained, finished = ([a for a in adapters if a.is_finished is kind] for kind in (False, True))
    for there in (False, True):
        groups += _chunks([a for a in trained if (a.adapter_id in held.adapters) is there], size)
    groups += _chunks(finished, size)
    return tuple(Pack(ids.digest("pack", [a.adapter_id for a in g]), i, g) for i, g in enumerate(groups))


def shards_of(samples: Sequence[PlannedSample], held: Holdings, settings: Settings) -> tuple[Shard, ...]:
    """Stretches of one row, cut into batches; what is missing first.

    Further candidates have batches of their own: what is asked for is drawn in the layout, and so with the bytes, that
    it has without them.
    """
    rows: dict[str, list[PlannedSample]] = {}
    for sample in samples:
        rows.setdefault(sample.row, []).append(sample)
    groups: list[tuple[PlannedSample, ...]] = []
    for row in rows.values():
        for there, further in itertools.product((False, True), (False, True)):
            some = [s for s in row if (s.sample_id in held.pictures, s.candidate_of is not None) == (there, further)]
            groups += _chunks(some, settings.shard_size)
    return tuple(
        Shard(ids.digest("shard", [s.sample_id for s in g]), i, tuple(_chunks(g, settings.sample.batch_size)))
        for i, g in enumerate(groups)
    )


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
                "prompt": adapter.prompt or None,
                "source_file": adapter.source_file or None,
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


def _chunks(items: Sequence[Item], size: int) -> list[tuple[Item, ...]]:
    return [tuple(items[start : start + size]) for start in range(0, len(items), size)]
