"""What the plans of runs refer to of what all runs share: adapters, pictures and inputs."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from manifests import layout
from manifests.errors import Damaged
from manifests.store.run_folder import REMEDY
from manifests.store.store import Store
from tasks.errors import RunNotFound
from tasks.run.plan import load_plan

SHARED = (layout.ADAPTERS_PREFIX, layout.SAMPLES_PREFIX, layout.IMAGES_PREFIX)
"""Where that lies."""


@dataclass(frozen=True)
class References:
    """What the plans of some runs refer to.

    Attributes:
        runs: those whose plan could be read.
        adapters: ids of adapters.
        samples: ids of pictures.
        images: ids of inputs.
        unreadable: what is wrong with the plans that could not be read, a line each.
    """

    runs: frozenset[str] = frozenset()
    adapters: frozenset[str] = frozenset()
    samples: frozenset[str] = frozenset()
    images: frozenset[str] = frozenset()
    unreadable: tuple[str, ...] = ()

    def include(self, key: str) -> bool:
        """Whether an object is among it, or may be: a plan that cannot be read might refer to anything."""
        if self.unreadable:
            return key.startswith(SHARED)
        if key.startswith(layout.ADAPTERS_PREFIX):
            return key.split("/")[1] in self.adapters
        if key.startswith(layout.SAMPLES_PREFIX):
            return object_id(key) in self.samples
        return key.startswith(layout.IMAGES_PREFIX) and object_id(key) in self.images


def references(store: Store, run_ids: Collection[str]) -> References:
    """Read the plans of runs; one that has just been deleted refers to nothing."""
    read: set[str] = set()
    unreadable: list[str] = []
    adapters: set[str] = set()
    samples: set[str] = set()
    images: set[str] = set()
    for run_id in run_ids:
        try:
            plan = load_plan(store, run_id)
        except RunNotFound:
            if store.exists(key := layout.run_key(run_id, "plan.parquet")):
                unreadable.append(f"{store.root}/{key} lies without its run.json; {REMEDY}")
            continue
        except Damaged as error:
            unreadable.append(str(error))
            continue
        read.add(run_id)
        adapters |= {adapter.adapter_id for adapter in plan.adapters}
        images |= {image_id for adapter in plan.adapters for image_id in adapter.image_ids}
        samples |= {sample.sample_id for sample in plan.samples}
    return References(frozenset(read), frozenset(adapters), frozenset(samples), frozenset(images), tuple(unreadable))


def planned_runs(keys: Collection[str]) -> frozenset[str]:
    """The runs that have a plan, of the objects of all runs."""
    return frozenset(run_of(key) for key in keys if key.split("/")[2:] == ["plan.parquet"])


def run_of(key: str) -> str:
    """The run that an object belongs to; empty for one that belongs to all."""
    if key.startswith(layout.RUNS_PREFIX):
        return key.split("/")[1]
    return key.split("run=")[1].split("/")[0] if key.startswith(layout.SCORES_PREFIX) else ""


def object_id(key: str) -> str:
    """The id that an object is named by."""
    return key.rsplit("/", 1)[1].rsplit(".", 1)[0]
