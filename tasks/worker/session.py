"""What a slot keeps in memory between jobs: the base model, plans, pictures, adapters and scorers.

Everything here can be had again from the store; a slot that dies loses time and nothing else.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from blora.adapters.adapter import Adapter
from blora.adapters.blocks import Half
from blora.adapters.load import load_adapter
from blora.errors import OutOfMemoryError
from blora.metrics.clip import ClipEncoder, load_clip
from blora.metrics.score import Scorer, load_scorer, load_scorers
from blora.models.families.text_encoders import DTYPES
from blora.models.memory import MemoryPlan, plan_memory
from blora.models.model import Base
from blora.probe.plain_unets import PlainBase
from blora.settings.fields import Precision
from blora.settings.judging import ScoreSettings
from blora.settings.sampling import SampleSettings
from blora.settings.training import TrainSettings
from manifests import layout
from manifests.errors import Missing
from manifests.store.store import Store
from tasks.downloads import is_plain, local_scorer, located_base, with_local_weights
from tasks.environment import heartbeat_seconds
from tasks.memory import memory_model
from tasks.messages import Advance
from tasks.pictures import decoded
from tasks.run.plan import Pack, Plan, Shard, load_plan

Pixels = NDArray[np.uint8]

Item = TypeVar("Item", Pack, Shard)


class Session:
    """One device's working set.

    Attributes:
        device: where tensors live, e.g. ``cpu`` or ``cuda:0``.
        store: the store.
        emit: tells whoever watches the slot how far a job is.
        beat: tells the parent that the slot lives, and what it does that has no steps to tell of.
        wait: tells it that the slot waits for somebody else, and until when at most.
    """

    def __init__(
        self,
        device: str,
        store: Store,
        emit: Callable[[Advance], None],
        beat: Callable[[str], None] = lambda doing: None,
        wait: Callable[[str, str], None] = lambda doing, until: None,
    ) -> None:
        """Hold nothing yet; everything is loaded on first use."""
        self.device = device
        self.store = store
        self.emit = emit
        self.beat = beat
        self.wait = wait
        self._loading_seconds = 0.0
        self._base: tuple[tuple[str, str], Base] | None = None
        self._free_bytes: float | None = None  # of a GPU, before the base model came
        self._plain: tuple[tuple[str, str], PlainBase] | None = None
        self._scorers: tuple[ScoreSettings, list[Scorer]] | None = None
        self._further: tuple[str, Scorer] | None = None
        self.clip = lru_cache(maxsize=1)(self._load_clip)
        self.plan = lru_cache(maxsize=4)(partial(load_plan, store))
        self.picture = lru_cache(maxsize=256)(self._read_picture)
        # A batch of a grid shares one content and runs over its styles, so halves come back row after row.
        self.half = lru_cache(maxsize=64)(self._read_half)

    def clock(self) -> float:
        """Seconds of a clock that stands still while models are loaded: what an item takes, it takes each time."""
        return time.monotonic() - self._loading_seconds

    @contextmanager
    def _loading(self) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self._loading_seconds += time.monotonic() - began

    def pack(self, run_id: str, pack_id: str) -> tuple[Plan, Pack]:
        """A pack and its plan.

        Raises:
            RunNotFound: the store has no such run.
            LookupError: its plan has no such pack.
        """
        return self._of_plan(run_id, pack_id, Plan.pack)

    def shard(self, run_id: str, shard_id: str) -> tuple[Plan, Shard]:
        """A shard and its plan.

        Raises:
            RunNotFound: the store has no such run.
            LookupError: its plan has no such shard.
        """
        return self._of_plan(run_id, shard_id, Plan.shard)

    def _of_plan(self, run_id: str, item_id: str, get: Callable[[Plan, str], Item]) -> tuple[Plan, Item]:
        """An item of a plan, which is read anew where the one in memory lacks it: reviews add shards to a plan."""
        try:
            return self.plan(run_id), get(self.plan(run_id), item_id)
        except KeyError:
            self.plan.cache_clear()
        try:
            return self.plan(run_id), get(self.plan(run_id), item_id)
        except KeyError as error:
            raise LookupError(f"run {run_id}: received {item_id!r}; accepted: a pack or shard of its plan") from error

    def base(self, spec: str, precision: Precision) -> Base:
        """The base model, loaded once; another one takes its place."""
        wanted = (spec, precision)
        if self._base is None or self._base[0] != wanted:
            self._base = None  # the old one goes before the new one comes: memory holds one, not two
            self._free_bytes = _free_bytes(self.device)
            with self._loading():
                with self._beating(f"brings {spec} to this machine"):
                    located = located_base(spec, half=precision != "fp32")
                self._base = (wanted, Base(located, self.device, precision))
        return self._base[1]

    def drawing(self, spec: str, settings: SampleSettings) -> SampleSettings:
        """The same settings with no more pictures at once than a GPU's memory holds; the base is told what to do, too.

        Raises:
            OutOfMemoryError: One picture does not fit; the message names the floor.
        """
        plan = self._fit(spec, settings)
        return settings if plan is None else settings.model_copy(update={"batch_size": plan.size})

    def training(self, spec: str, settings: TrainSettings, adapters: int) -> TrainSettings:
        """The same settings, recomputing activations from the start where a GPU holds those of no single adapter.

        Likewise, a pool of fronts is in the CPU's memory where a GPU has no room for one.

        A pack that is too large for the GPU is none of the settings' business: it is trained in parts. Where by the
        model of memory not even one adapter fits, it is tried all the same in the way that takes least.
        """
        try:
            plan = self._fit(spec, settings, adapters)
        except OutOfMemoryError:
            plan = MemoryPlan.leanest(settings)
            self._use(plan)
        changes = {"checkpointing": "on"} if plan and plan.checkpointing else {}
        if plan and plan.fronts_on_host and settings.front_pool:
            changes["front_place"] = "host"
        return settings.model_copy(update=changes) if changes else settings

    def _fit(self, spec: str, work: SampleSettings | TrainSettings, most: int | None = None) -> MemoryPlan | None:
        """Have the loaded base use a GPU's memory as some work asks for; nothing on a CPU, which pages out first."""
        if self._free_bytes is None:
            return None
        plan = plan_memory(self._free_bytes, work, memory_model(spec), most)
        self._use(plan)
        return plan

    def _use(self, plan: MemoryPlan) -> None:
        if self._base is not None:
            self._base[1].save_memory(encoders=plan.encoders, vae_in_tiles=plan.vae_in_tiles)

    def model(self, spec: str, precision: Precision) -> Base | PlainBase:
        """The base model, or one with a single text encoder, which the block probe can use and nothing else."""
        if not is_plain(spec):
            return self.base(spec, precision)
        wanted = (spec, precision)
        if self._plain is None or self._plain[0] != wanted:
            self._base = self._plain = None
            self._plain = (wanted, PlainBase(Path(spec), self.device, precision))
        return self._plain[1]

    def scorers(self, settings: ScoreSettings) -> list[Scorer]:
        """The scorers of these settings, loaded once."""
        if self._scorers is None or self._scorers[0] != settings:
            self._scorers = None
            with self._loading(), self._beating("loads scorers"):
                self._scorers = (settings, load_scorers(with_local_weights(settings), self.device))
        return self._scorers[1]

    def further_scorer(self, asked: str) -> Scorer:
        """A scorer beside those of a run's settings, by its line; another one takes its place."""
        if self._further is None or self._further[0] != asked:
            self._further = None
            with self._beating(f"loads {asked}"):
                self._further = (asked, load_scorer(local_scorer(asked), self.device))
        return self._further[1]

    @contextmanager
    def _beating(self, doing: str) -> Iterator[None]:
        """Say again and again that the slot lives, while many bytes are downloaded or hashed.

        For nothing else: work on a device tells of its steps, so that a device that hangs is found by its silence. What
        is brought over a network has time limits of its own.
        """
        over = threading.Event()

        def beat() -> None:
            self.beat(doing)
            while not over.wait(heartbeat_seconds()):
                self.beat(doing)

        thread = threading.Thread(target=beat, name=f"slot {doing}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _load_clip(self, architecture: str, pretrained: str) -> ClipEncoder:
        with self._beating(f"loads {architecture}"):
            return load_clip(architecture, pretrained, self.device)

    def _read_picture(self, key: str) -> Pixels:
        put_back = "run the run's manifest again, which puts it back" if key.startswith(layout.IMAGES_PREFIX) else ""
        where = f"{self.store.root}/{key}"
        try:
            return np.asarray(decoded(self.store.read(key)))
        except Missing as error:
            raise Missing(f"{where} is gone", hint=put_back or "blora rerun makes it again") from error
        except OSError as error:
            raise OSError(f"{where} cannot be read: {error}; delete it, then {put_back or 'blora rerun'}") from error

    def _read_half(self, adapter_id: str, half: Half, precision: Precision = "fp32") -> Adapter:
        """A half in the number format that it is drawn in, so that threads convert it ahead and once."""
        key = layout.adapter_key(adapter_id, half)
        adapter = load_adapter(self.store.read(key), name=f"{self.store.root}/{key}")
        return adapter if precision == "fp32" else adapter.in_format(DTYPES[precision])


def _free_bytes(device: str) -> float | None:
    """What a GPU has left for this process; None for a CPU, which pages out before it fails."""
    if not device.startswith("cuda"):
        return None
    import torch

    gc.collect()
    torch.cuda.empty_cache()  # what torch keeps of a model that went is free for the next
    return float(torch.cuda.mem_get_info(device)[0])
