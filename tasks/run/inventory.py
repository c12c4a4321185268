"""What the store holds of a plan: the one question behind planning, scheduling, closing and reporting a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from manifests import layout
from manifests.store.backend import Entry
from manifests.store.parallel import in_parallel
from manifests.store.store import Store
from tasks.run.plan import Plan
from tasks.run.scores import RunScores, read_scores


def is_whole(store: Store, adapter_id: str) -> bool:
    """Whether an adapter's marker and both its halves are there."""
    return store.list(layout.adapter_prefix(adapter_id)).keys() >= set(layout.adapter_keys(adapter_id))


@dataclass(frozen=True)
class Holdings:
    """What the store already has of a plan's items.

    Attributes:
        adapters: ids of adapters that are whole.
        pictures: what a listing says of each picture that is there, by sample_id.
    """

    adapters: frozenset[str] = frozenset()
    pictures: Mapping[str, Entry] = field(default_factory=dict)


def holdings(store: Store, adapter_ids: Iterable[str], content_ids: Iterable[str]) -> Holdings:
    """List once what is there.

    An adapter counts when its marker and both halves are there; a sample when its picture is.

    Args:
        store: the store.
        adapter_ids: the adapters asked about.
        content_ids: the rows of samples asked about.
    """
    keys = store.list(layout.ADAPTERS_PREFIX).keys()
    whole = frozenset(adapter_id for adapter_id in adapter_ids if keys >= set(layout.adapter_keys(adapter_id)))
    rows = in_parallel(
        store, lambda content_id: store.list(layout.samples_prefix(content_id)), sorted(set(content_ids))
    )
    pictures = {key.rsplit("/", 1)[1].removesuffix(".png"): entry for row in rows for key, entry in row.items()}
    return Holdings(whole, pictures)


@dataclass(frozen=True)
class Inventory:
    """What is there of a plan.

    Attributes:
        adapters: ids of its adapters that are whole.
        pictures: what a listing says of each of its pictures that is there, by sample_id.
        scores: the scores of its pictures.
        unjudgeable: ids of its pictures that no scorer has anything to compare with: of finished adapters, whose
            pictures nobody has, without words that say what is to be seen.
    """

    adapters: frozenset[str]
    pictures: Mapping[str, Entry]
    scores: RunScores
    unjudgeable: frozenset[str] = frozenset()

    @cached_property
    def scored(self) -> frozenset[str]:
        """Ids of the pictures that have all the scores they can have."""
        return self.scores.sample_ids | self.unjudgeable


def take_inventory(store: Store, plan: Plan, held: Holdings | None = None) -> Inventory:
    """Compare a plan with the store.

    Args:
        store: the store.
        plan: the plan, or a part of one whose pictures need adapters of another part.
        held: what the store has of the whole plan, where that has just been listed.
    """
    if held is None:
        used = {adapter_id for sample in plan.samples for adapter_id in sample.adapter_ids}
        held = holdings(store, used | {a.adapter_id for a in plan.adapters}, [s.content_id for s in plan.samples])
    planned = {sample.sample_id for sample in plan.samples}
    there = {sample_id: entry for sample_id, entry in held.pictures.items() if sample_id in planned}
    finished = {adapter.adapter_id for adapter in plan.adapters if adapter.is_finished}
    unjudgeable = frozenset(s.sample_id for s in plan.samples if finished and not s.text and s.adapter_ids <= finished)
    return Inventory(held.adapters, there, read_scores(store, plan.run, plan.shards), unjudgeable)
