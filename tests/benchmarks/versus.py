"""Both ways of training measured side by side on one device, and the table of `tests.benchmarks.sdxl`."""

from __future__ import annotations

import argparse
import gc
import json
import platform
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from multiprocessing import get_context
from statistics import mean, median
from typing import Any

import diffusers
import torch

from blora.errors import BloraError
from blora.models.model import Base, load_base
from blora.settings.presets import Settings
from blora.training.items import TrainItem
from blora.training.train import train
from tests.benchmarks import operations
from tests.benchmarks.full_size import FullSize
from tests.benchmarks.published import train_published
from tests.tiny import picture

Way = tuple[str, dict[str, Any], torch.memory_format]
"""A way of training: its name, what it changes in the settings, and how tensors of pictures lie in memory."""
WARM_UP_STEPS = 3
GB = 10**9


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        what: What was measured.
        seconds: Seconds of the clock a step (training: of one adapter; sampling: of one picture).
        per_hour: Adapters or pictures an hour.
        ratio: How many times the baseline's.
        floor_share: The floor's seconds over these.
        peak_gb: Most memory allocated on the GPU, 10^9 bytes.
    """

    what: str
    seconds: float
    per_hour: float
    ratio: float
    floor_share: float
    peak_gb: float | None


class Bench:
    """One device, one model, one table."""

    def __init__(self, given: argparse.Namespace, settings: Settings) -> None:
        """Load the model and measure the matrix rate."""
        self.given, self.on_gpu = given, given.device.startswith("cuda")
        self.device = torch.device(given.device)
        self.settings = settings
        precision = settings.train.precision
        load: Callable[..., Base] = FullSize if given.base == "sdxl" else partial(load_base, given.base)
        self.base = load(given.device, precision)
        # On a CPU that others use, too, the time of one thread is what it computed; the wall clock is what others left.
        self.clock = time.process_time if not self.on_gpu and torch.get_num_threads() == 1 else time.perf_counter
        self.rate = matrix_rate(self.device, self.base.dtype, self.clock)
        self.counts: dict[str, float] = {}
        self.rows: list[Row] = []
        self.notes: list[str] = []
        self.budgets: list[dict[str, Any]] = []

    def synchronise(self) -> None:
        """Wait for the device."""
        if self.on_gpu:
            torch.cuda.synchronize(self.device)

    def peak(self, work: Callable[[], Any]) -> tuple[Any, float | None]:
        """Do something; return its result and the most memory that was allocated meanwhile."""
        if not self.on_gpu:
            return work(), None
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self.device)
        result = work()
        self.synchronise()
        return result, torch.cuda.max_memory_allocated(self.device) / GB

    def train_seconds(self, count: int, **changes: Any) -> tuple[float, float]:
        """Return seconds a step of a whole pack, and seconds once a training, in this package."""
        steps = WARM_UP_STEPS + self.given.steps
        settings = self.settings.train.model_copy(update={"steps": steps, **changes})
        side, times = settings.resolution_px, []
        items = [TrainItem((picture(number, side, side),), key=str(number)) for number in range(count)]
        began = self.clock()
        train(self.base, items, settings, on_step=lambda report: times.append(self.clock()))
        self.synchronise()
        ended = self.clock()
        middle = mean if settings.front_pool else median  # with a pool, steps are of two kinds
        a_step = middle(late - early for early, late in pairwise(times[WARM_UP_STEPS - 1 :]))
        return a_step, ended - began - a_step * steps

    def training(self) -> None:
        """The published recipe, then packs, in rounds."""
        recipe, rank = self.settings.train, self.settings.train.rank
        needed = operations.needed_training_flop(self.base, recipe.resolution_px, rank) * recipe.batch_size
        side, steps = recipe.resolution_px, WARM_UP_STEPS + self.given.steps
        # The published recipe has one row a step. A recipe of more rows is, for it, that many steps.
        published: list[float] = []
        packs: dict[int, list[tuple[float, float]]] = {count: [] for count in self.given.packs}
        peaks: dict[str, float | None] = {}
        optimizer = ""
        for _ in range(self.given.repetitions):
            (seconds, optimizer), peaks["published"] = self.peak(
                lambda: train_published(self.base, picture(0, side, side), recipe, steps, self.clock)
            )
            published.append(median(seconds[WARM_UP_STEPS:]) * recipe.batch_size)
            for count in list(packs):
                try:
                    found, peaks[str(count)] = self.peak(lambda count=count: self.train_seconds(count))
                    packs[count].append(found)
                except BloraError as error:
                    self.note(f"pack of {count}: {error}")
                    del packs[count]
        one = median(published)
        floor = needed / self.rate
        self.add("train, published recipe", one, recipe.steps * one, one, floor, peaks["published"], recipe.steps)
        for count, found in packs.items():
            a_step, once = (median(values) / count for values in zip(*found, strict=True))
            total = recipe.steps * a_step + once
            self.add(f"train, pack of {count}", a_step, total, one, floor, peaks[str(count)], recipe.steps)
        self.note(f"published recipe with {optimizer}; rows of a step: {recipe.batch_size}")

    def variants(self) -> None:
        """What each way of handing the work to the device gains, for one adapter and for a pack."""
        ways: list[Way] = [
            ("eager", {}, torch.contiguous_format),
            ("checkpointing", {"checkpointing": "on"}, torch.contiguous_format),
            ("channels last", {}, torch.channels_last),
        ]
        if self.on_gpu:
            ways += [
                (name, {"execution": name}, layout)
                for name, layout in (
                    ("graph", torch.contiguous_format),
                    ("compiled", torch.contiguous_format),
                    ("compiled_graph", torch.contiguous_format),
                    ("compiled_graph", torch.channels_last),
                )
            ]
        self._compare(ways)

    def opt_ins(self) -> None:
        """What recipes that are cheaper than the published one gain, for one adapter and for a pack.

        A pool of fronts is timed over whole cycles of eight steps, of which two make a new draw.
        """
        pool = {"front_pool": 2, "front_uses": 4}
        ways: list[Way] = [
            ("plain", {}, torch.contiguous_format),
            ("front pool", pool, torch.contiguous_format),
            ("frozen in fp8", {"frozen": "fp8"}, torch.contiguous_format),
        ]
        if self.on_gpu:
            ways += [
                ("front pool on the host", pool | {"front_place": "host"}, torch.contiguous_format),
                ("front pool, graph", pool | {"execution": "graph"}, torch.contiguous_format),
                ("both", pool | {"frozen": "fp8"}, torch.contiguous_format),
            ]
        self._compare(ways)

    def _compare(self, ways: Sequence[Way]) -> None:
        """Measure ways of training against the first of them.

        Each in a process of its own: what one compiles, captures or breaks is nothing to the next.
        """
        recipe = self.settings.train
        floor = operations.needed_training_flop(self.base, recipe.resolution_px, recipe.rank) / self.rate
        floor *= recipe.batch_size
        for count in sorted({min(self.given.packs), max(self.given.packs)}):
            first = 0.0
            for name, changes, layout in ways:
                label = f"pack of {count}, {name}" + (
                    ", channels last" * (layout == torch.channels_last and bool(changes))
                )
                try:
                    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
                        found, peak = alone.submit(_variant, self.given, self.settings, count, changes, layout).result()
                except (BloraError, RuntimeError) as error:  # of which a process that died is one
                    self.note(f"{label}: {type(error).__name__}: {str(error)[:300]}")
                    continue
                a_step = found[0] / count
                first = first or a_step
                self.add(label, a_step, recipe.steps * a_step + found[1] / count, first, floor, peak, recipe.steps)

    def add(
        self, what: str, a_step: float, total: float, baseline: float, floor: float, peak: float | None, steps: int
    ) -> None:
        """Add a row and print it; `baseline` is the other side's seconds a step."""
        ratio = baseline / a_step
        self.rows.append(Row(what, a_step, 3600 / total, ratio, floor / a_step, peak))
        if len(self.rows) == 1:
            print("\n" + "what".ljust(39) + "s a step    per hour   times as fast   share of floor   peak GB")
        peak_gb = "      -" if peak is None else f"{peak:7.2f}"
        print(
            f"{what:38s} {a_step:8.4f} {3600 / total:11.1f} {ratio:15.2f} {floor / a_step:16.1%} {peak_gb:>9s}",
            flush=True,
        )
        self.keep()

    def note(self, text: str) -> None:
        """Say something that is no row of the table."""
        self.notes.append(text)
        print(text, flush=True)
        self.keep()

    def keep(self) -> None:
        """Write what was measured so far: whoever runs out of time loses nothing."""
        if self.given.json:
            self.given.json.write_text(json.dumps(self.figures(), indent=2))

    def figures(self) -> dict[str, Any]:
        """Return what was measured so far, and on what."""
        return {
            "device": torch.cuda.get_device_name(self.device) if self.on_gpu else platform.processor() or "cpu",
            "model": self.base.name,
            "torch": torch.__version__,
            "diffusers": diffusers.__version__,
            "python": platform.python_version(),
            "threads": torch.get_num_threads(),
            "clock": self.clock.__name__,
            "precision": self.base.precision,
            "matrix_tflop_per_second": self.rate / 1e12,
            "counts_tflop": self.counts,
            "rows": [asdict(row) for row in self.rows],
            "budgets": self.budgets,
            "notes": self.notes,
        }

    def show(self) -> None:
        """Print on what it was measured; rows and notes were printed as they came."""
        told = {name: value for name, value in self.figures().items() if not isinstance(value, list | dict)}
        print(*(f"{name}: {value}" for name, value in told.items()), sep="\n")


def _variant(
    given: argparse.Namespace, settings: Settings, count: int, changes: dict[str, Any], layout: torch.memory_format
) -> tuple[tuple[float, float], float | None]:
    """Measure one way of training in this process: seconds a step and once, and the peak in 10^9 bytes."""
    if given.threads:
        torch.set_num_threads(given.threads)
    bench = Bench(given, settings)
    bench.base.unet.to(memory_format=layout)
    seconds, peak = bench.peak(lambda: bench.train_seconds(count, **changes))
    return seconds, peak


def matrix_rate(device: torch.device, dtype: torch.dtype, clock: Callable[[], float]) -> float:
    """Return the floating-point operations a second of a plain matrix product: the best of several."""
    side = 8192 if device.type == "cuda" else 1024
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(12):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        began = clock()
        torch.mm(left, right)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, clock() - began)
    return 2 * side**3 / best
