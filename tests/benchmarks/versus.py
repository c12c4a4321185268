"""Both ways measured side by side on one device: the parts of `tests.benchmarks.sdxl`."""

from __future__ import annotations

import argparse
import gc
import platform
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import diffusers
import torch
from diffusers.utils.logging import set_verbosity_error

from blora.errors import BloraError
from blora.models.memory import plan_memory
from blora.models.model import Base, load_base
from blora.settings.presets import Settings
from blora.training.items import TrainItem
from blora.training.train import train
from tests.benchmarks import operations
from tests.benchmarks.full_size import FullSize
from tests.benchmarks.published import half_on_gpu, train_published
from tests.benchmarks.sampling import ours, theirs, write_halves
from tests.tiny import picture

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
        self.rows: list[Row] = []
        self.notes: list[str] = []

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
        a_step = median(late - early for early, late in pairwise(times[WARM_UP_STEPS - 1 :]))
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
                    self.notes.append(f"pack of {count}: {error}")
                    del packs[count]
        one = median(published)
        floor = needed / self.rate
        self.add("train, published recipe", one, recipe.steps * one, one, floor, peaks["published"], recipe.steps)
        for count, found in packs.items():
            a_step, once = (median(values) / count for values in zip(*found, strict=True))
            total = recipe.steps * a_step + once
            self.add(f"train, pack of {count}", a_step, total, one, floor, peaks[str(count)], recipe.steps)
        self.notes.append(f"published recipe with {optimizer}; rows of a step: {recipe.batch_size}")

    def variants(self) -> None:
        """What each way of handing the work to the device gains, for one adapter and for a pack.

        Each is measured in a process of its own: what one compiles, captures or breaks is nothing to the next.
        """
        recipe = self.settings.train
        floor = operations.needed_training_flop(self.base, recipe.resolution_px, recipe.rank) / self.rate
        floor *= recipe.batch_size
        ways: list[tuple[str, dict[str, Any], torch.memory_format]] = [
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
                    self.notes.append(f"{label}: {type(error).__name__}: {str(error)[:300]}")
                    print(self.notes[-1], flush=True)
                    continue
                a_step = found[0] / count
                first = first or a_step
                self.add(label, a_step, recipe.steps * a_step + found[1] / count, first, floor, peak, recipe.steps)

    def sampling(self) -> None:
        """One pipeline call a pair, then batches of different pairs, in rounds."""
        settings = self.settings.sample.model_copy(
            update={"steps": self.given.sample_steps or self.settings.sample.steps}
        )
        pairs = max(self.given.batches)
        flop = 2 * operations.forward_flop(self.base, settings.height_px) * settings.steps
        floor = (flop + decode_flop(self.base, settings.height_px)) / self.rate
        times: dict[int, list[float]] = {size: [] for size in (0, *self.given.batches)}
        peaks: dict[int, float | None] = {}
        pipeline = pipeline_of(self.base, half=self.on_gpu)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_halves(self.base, folder, pairs, self.settings.train.rank)
            few = min(2, pairs)  # a pipeline call does not depend on how many follow
            for _ in range(self.given.repetitions + 1):  # the first round only warms up
                with half_on_gpu(self.base):
                    times[0].append(timed(lambda: theirs(pipeline, folder, few, settings), peaks, 0, self) / few)
                for size in self.given.batches:
                    batch = settings.model_copy(update={"batch_size": size})
                    work = lambda size=size, batch=batch: ours(self.base, folder, size, batch)  # noqa: E731
                    times[size].append(timed(work, peaks, size, self) / size)
        found = {size: median(seconds[1:]) for size, seconds in times.items()}
        self.add("sample, pipeline call a pair", found[0] / settings.steps, found[0], found[0], floor / settings.steps,
                 peaks[0], settings.steps)  # fmt: skip
        for size in self.given.batches:
            self.add(f"sample, batch of {size}", found[size] / settings.steps, found[size], found[0] / settings.steps,
                     floor / settings.steps, peaks[size], settings.steps)  # fmt: skip

    def add(
        self, what: str, a_step: float, total: float, baseline: float, floor: float, peak: float | None, steps: int
    ) -> None:
        """Add a row and print it; sampling's baseline row passes its whole time as its own baseline."""
        ratio = 1.0 if baseline == total else baseline / a_step
        self.rows.append(Row(what, a_step, 3600 / total, ratio, floor / a_step, peak))
        if len(self.rows) == 1:
            print("\n" + "what".ljust(39) + "s a step    per hour   times as fast   share of floor   peak GB")
        peak_gb = "      -" if peak is None else f"{peak:7.2f}"
        print(
            f"{what:38s} {a_step:8.4f} {3600 / total:11.1f} {ratio:15.2f} {floor / a_step:16.1%} {peak_gb:>9s}",
            flush=True,
        )

    def budgets(self) -> None:
        """Train and draw under the limits of small GPUs, as the planner would."""
        total = torch.cuda.get_device_properties(self.device).total_memory
        for limit in self.given.budgets_gb:
            self.base.release_encoders()
            self.base.release_vae()
            gc.collect()
            torch.cuda.empty_cache()
            torch.cuda.set_per_process_memory_fraction(limit * GB / total, self.device)
            try:
                self.notes.append(self._under(limit))
            except BloraError as error:
                self.notes.append(f"budget of {limit} GB: {error}")
            finally:
                torch.cuda.set_per_process_memory_fraction(1.0, self.device)
                self.base.save_memory(encoders="stay", vae_in_tiles=False)

    def _under(self, limit: float) -> str:
        plan = plan_memory(limit * GB, self.settings.train)
        self.base.save_memory(encoders=plan.encoders, vae_in_tiles=plan.vae_in_tiles)
        checkpointing = "on" if plan.checkpointing else "off"
        found, train_peak = self.peak(lambda: self.train_seconds(plan.size, checkpointing=checkpointing))
        drawn = plan_memory(limit * GB, self.settings.sample)
        self.base.save_memory(encoders=drawn.encoders, vae_in_tiles=drawn.vae_in_tiles)
        settings = self.settings.sample.model_copy(update={"steps": 4, "batch_size": drawn.size})
        with tempfile.TemporaryDirectory() as name:
            write_halves(self.base, Path(name), drawn.size, self.settings.train.rank)
            _, sample_peak = self.peak(lambda: ours(self.base, Path(name), drawn.size, settings))
        return (
            f"budget of {limit} GB: pack of {plan.size}, checkpointing {checkpointing}, {found[0] / plan.size:.3f} s a "
            f"step, {train_peak:.2f} GB (model of memory: {plan.needed_bytes / GB:.2f}); batch of {drawn.size}, "
            f"{sample_peak:.2f} GB ({drawn.needed_bytes / GB:.2f}); encoders: {drawn.encoders}, "
            f"tiles: {drawn.vae_in_tiles}"
        )

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
            "rows": [asdict(row) for row in self.rows],
            "notes": self.notes,
        }

    def show(self) -> None:
        """Print on what it was measured, and what else there is to say; rows were printed as they came."""
        print(
            *(f"{name}: {value}" for name, value in self.figures().items() if name not in ("rows", "notes")), sep="\n"
        )
        print(*self.notes, sep="\n")


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


def decode_flop(base: Base, side_px: int) -> float:
    """Count the decoding of one picture."""
    side = side_px // base.vae_scale_factor
    return operations.counted(
        lambda: base.vae.decode(torch.zeros(1, base.latent_channels, side, side, device=base.device))
    )


def timed(work: Callable[[], Any], peaks: dict[int, float | None], key: int, bench: Bench) -> float:
    """Return wall seconds; both ways end with pixels on the CPU."""
    began = bench.clock()
    _, peaks[key] = bench.peak(work)
    return bench.clock() - began


def pipeline_of(base: Base, half: bool) -> Any:
    """Build diffusers' pipeline from the base's own parts.

    Args:
        base: Its UNet is used as it is; the rest is loaded for the pipeline alone.
        half: In fp16, the autoencoder included: the published way decodes with the fp16-fix VAE, which does not
            overflow, and whose configuration tells diffusers not to decode in fp32.
    """
    set_verbosity_error()  # each load says that the text encoders have no LoRA
    (tokenizer, encoder), (tokenizer_2, encoder_2) = base.text_encoders.load()
    schedulers: Any = getattr(diffusers, base.scheduler_config["_class_name"])
    parts = [part.half() if half else part.float() for part in (base.vae, encoder, encoder_2)]
    if half:
        base.vae.register_to_config(force_upcast=False)
    base.release_vae()
    base.release_encoders()  # ours load their own again
    kind: Any = diffusers.StableDiffusionXLPipeline
    pipeline = kind(
        parts[0], parts[1], parts[2], tokenizer, tokenizer_2, base.unet, schedulers.from_config(base.scheduler_config)
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
