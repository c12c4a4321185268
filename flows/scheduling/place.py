"""Where items are handed over, and what comes back: what the slots of this machine and the work pool have in common."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

from flows.scheduling.refusals import Refusal
from manifests.errors import listed
from manifests.faults import Fault
from tasks.dispatch.prefect_tasks import ItemError
from tasks.run.plan import Pack, Shard

Job: TypeAlias = Literal["train", "generate", "score"]


@dataclass(frozen=True)
class Batch:
    """Items that are handed over together.

    Attributes:
        job: what is to be done with them.
        items: packs to train, or shards to draw or to score.
        only: ids of the adapters or pictures that are wanted of them; None: all.
    """

    job: Job
    items: tuple[Pack | Shard, ...]
    only: tuple[str, ...] | None = None

    @property
    def names(self) -> str:
        """What a person calls them."""
        names = [adapter.name for pack in self.items if isinstance(pack, Pack) for adapter in pack.adapters]
        for shard in self.items:
            if isinstance(shard, Shard):
                styles = join(list(dict.fromkeys(sample.style_name for sample in shard.samples)))
                names.append(f"{shard.samples[0].content_name} x {styles}")
        return join(names)


@dataclass(frozen=True)
class Answer:
    """What came of a batch.

    Attributes:
        spent: by slot, its seconds and the items it made, by kind of work; with ``wall_seconds`` where a slot elsewhere
            was at the batch's disposal for so long.
        faults: failures of single items.
        failed_items: why items failed for good, by their ids, where the others did not.
        failed: why the whole batch failed; empty if it did not.
        transient: whether another try can help, now or some other time, if it failed.
        lost: whether whoever had it is gone, so that another is to take it.
        refused: who could not begin any of it, and why, so that another is to take it.
        elsewhere: whether it was done on another machine, where drawing includes scoring and nobody here saw the steps.
    """

    spent: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    faults: tuple[Fault, ...] = ()
    failed_items: Mapping[str, ItemError] = field(default_factory=dict)
    failed: str = ""
    transient: bool = False
    lost: bool = False
    refused: Refusal | None = None
    elsewhere: bool = False


Finish: TypeAlias = Callable[[], Answer]


class Place(Protocol):
    """Somewhere that batches can be handed over to."""

    def has_room(self, job: Job, in_flight: Counter[Job]) -> bool:
        """Whether another batch of a job is taken while so many of each are in flight."""

    def size(self, waiting: int) -> int:
        """How many items to hand over together when so many of one kind wait."""

    def submit(self, batch: Batch, ended: Callable[[Finish], None]) -> None:
        """Hand over a batch; `ended` is called from any thread with what gives the answer."""

    def going_on(self) -> Mapping[str, frozenset[str]]:
        """Batches that an earlier parent handed over and that go on: ids of their items by a name for `watch`."""

    def watch(self, name: str, ended: Callable[[Finish], None]) -> None:
        """Have the answer of a batch that goes on, as `submit` does."""


def item_id(item: Pack | Shard) -> str:
    """The id of a pack or shard."""
    return item.pack_id if isinstance(item, Pack) else item.shard_id


def members(item: Pack | Shard) -> list[str]:
    """Ids of the adapters of a pack, or of the pictures of a shard."""
    if isinstance(item, Pack):
        return [adapter.adapter_id for adapter in item.adapters]
    return [sample.sample_id for sample in item.samples]


def join(names: Sequence[str], most: int = 4) -> str:
    """Some names for a person, the first few and how many there are beyond."""
    return listed([name if len(name) <= 32 else name[:31] + "…" for name in names], most)
