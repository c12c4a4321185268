"""What the store holds of a plan: the one question behind planning, scheduling, closing and reporting a run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from manifests import layout
from manifests.store import Missing, Store
from manifests.tables import SCORES, from_parquet_bytes
from tasks.runs import Plan, scores_key


def is_whole(store: Store, adapter_id: str) -> bool:
    """Whether an adapter's marker and both its halves are there."""
    return store.list(layout.adapter_prefix(adapter_id)).keys() >= set(layout.adapter_keys(adapter_id))


@dataclass(frozen=True)
class Holdings:
    """What the store already has of a plan's items."""

    adapters: frozenset[str]
    samples: frozenset[str]


def holdings(store: Store, adapter_ids: Iterable[str], content_ids: Iterable[str]) -> Holdings:
    """List once what is there.

    An adapter counts when its marker and both halves are there; a sample when its picture is.

    Args:
        store: the store.
        adapter_ids: the adapters asked about.
        content_ids: the rows of samples asked about.
    """
    keys = store.list(layout.ADAPTERS_PREFIX).keys()
    whole = frozenset(one for one in adapter_ids if keys >= set(layout.adapter_keys(one)))
    pictures = (key for content_id in sorted(set(content_ids)) for key in store.list(layout.samples_prefix(content_id)))
    return Holdings(whole, frozenset(key.rsplit("/", 1)[1].removesuffix(".png") for key in pictures))


def read_scores(store: Store, plan: Plan) -> list[dict[str, Any]]:
    """All score rows of a run, from the parts of its shards."""
    rows: list[dict[str, Any]] = []
    for shard in plan.shards:
        try:
            rows += from_parquet_bytes(store.read(scores_key(plan, shard)), SCORES).to_pylist()
        except Missing:
            continue
    return rows


@dataclass(frozen=True)
class Stock:
    """What is there of a plan.

    Attributes:
        adapters: ids of its adapters that are whole.
        samples: ids of its pictures that are there.
        scores: every score row of its pictures.
    """

    adapters: frozenset[str]
    samples: frozenset[str]
    scores: list[dict[str, Any]]

    @cached_property
    def scored(self) -> frozenset[str]:
        """Ids of the pictures that have scores."""
        return frozenset(row["sample_id"] for row in self.scores)


def take_stock(store: Store, plan: Plan) -> Stock:
    """Compare a plan with the store, now."""
    held = holdings(store, [a.adapter_id for a in plan.adapters], [s.content_id for s in plan.samples])
    planned = {sample.sample_id for sample in plan.samples}
    return Stock(held.adapters, held.samples & planned, read_scores(store, plan))
