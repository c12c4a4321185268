"""What the store holds of a plan: the one question behind planning, scheduling, closing and reporting a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from manifests import layout
from manifests.store import Entry, Missing, Store
from manifests.tables import SCORES, from_parquet_bytes
from tasks.runs import Plan, published_scores_key, scores_key

Answer = TypeVar("Answer")

REQUESTS_AT_ONCE = 16
"""Questions to the store at once; below the connections that it keeps."""


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
    pictures = list_pictures(store, content_ids)
    return Holdings(whole, frozenset(key.rsplit("/", 1)[1].removesuffix(".png") for key in pictures))


def list_pictures(store: Store, content_ids: Iterable[str]) -> dict[str, Entry]:
    """Every picture of some contents' rows, by key."""
    rows = in_parallel(lambda content_id: store.list(layout.samples_prefix(content_id)), sorted(set(content_ids)))
    return {key: entry for row in rows for key, entry in row.items()}


def in_parallel(ask: Callable[[str], Answer], subjects: Sequence[str]) -> list[Answer]:
    """Ask the store about many things, some at a time; a bucket answers each in milliseconds, but answers many at once.

    Raises:
        StoreError: one of the questions failed; which ones were asked besides is left open.
    """
    with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
        return list(pool.map(ask, subjects))


def read_scores(store: Store, plan: Plan) -> list[dict[str, Any]]:
    """All score rows of a run: of its shards' parts, and of its published object what no part has (any more).

    In this order: the object is written before parts are deleted (`tasks.compaction`), so it has what they had. Scores
    by a scorer that came later are in the object alone (`tasks.added_scores`).
    """

    def read(key: str) -> list[dict[str, Any]] | None:
        try:
            return from_parquet_bytes(store.read(key), SCORES).to_pylist()
        except Missing:
            return None

    parts = in_parallel(read, [scores_key(plan, shard) for shard in plan.shards])
    rows = [row for part in parts for row in part or ()]
    there = {(row["sample_id"], row["score"]) for row in rows}
    published = read(published_scores_key(plan.run)) or ()
    return rows + [row for row in published if (row["sample_id"], row["score"]) not in there]


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
    """Compare a plan, or a part of one whose pictures need adapters of another part, with the store, now."""
    used = {adapter_id for sample in plan.samples for adapter_id in sample.adapter_ids}
    held = holdings(store, used | {a.adapter_id for a in plan.adapters}, [s.content_id for s in plan.samples])
    planned = {sample.sample_id for sample in plan.samples}
    return Stock(held.adapters, held.samples & planned, read_scores(store, plan))
