"""Drawing measured side by side: a diffusers pipeline call a pair, and batches of different pairs, in rounds."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import diffusers
import torch
from diffusers.utils.logging import set_verbosity_error

from blora.models.model import Base
from blora.sampling.denoise import is_guided
from blora.settings.sampling import SampleSettings
from tests.benchmarks import operations
from tests.benchmarks.published import as_published
from tests.benchmarks.sampling import ours, scheduler_of, theirs, write_halves
from tests.benchmarks.versus import Bench


def sampling(bench: Bench) -> None:
    """One pipeline call a pair, then batches of different pairs."""
    base, given = bench.base, bench.given
    settings = bench.settings.sample.model_copy(update={"steps": given.sample_steps or bench.settings.sample.steps})
    steps, pairs = settings.steps, max(given.batches)
    floor = needed_flop(base, settings) / bench.rate / steps
    times: dict[int, list[float]] = {size: [] for size in (0, *given.batches)}
    peaks: dict[int, float | None] = {}
    pipeline = pipeline_of(base, settings, half=bench.on_gpu)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_halves(base, folder, pairs, bench.settings.train.rank)
        few = min(2, pairs)  # a pipeline call does not depend on how many follow
        for _ in range(given.repetitions + 1):  # the first round only warms up
            with as_published(base):
                times[0].append(_timed(lambda: theirs(pipeline, folder, few, settings), peaks, 0, bench) / few)
            for size in given.batches:
                batch = settings.model_copy(update={"batch_size": size})
                work = lambda size=size, batch=batch: ours(base, folder, size, batch)  # noqa: E731
                times[size].append(_timed(work, peaks, size, bench) / size)
    found = {size: median(seconds[1:]) for size, seconds in times.items()}
    one = found[0] / steps
    bench.add("sample, pipeline call a pair", one, found[0], one, floor, peaks[0], steps)
    for size in given.batches:
        bench.add(f"sample, batch of {size}", found[size] / steps, found[size], one, floor, peaks[size], steps)


def needed_flop(base: Base, settings: SampleSettings) -> float:
    """Count what one picture needs: a row of the UNet a step, two where it is guided, and the decoding.

    Where guidance is for some noise levels alone, this is more than it needs.
    """
    rows = 2 if is_guided(base, settings) else 1
    drawn = rows * operations.forward_flop(base, settings.height_px) * settings.steps
    return drawn + decode_flop(base, settings.height_px)


def decode_flop(base: Base, side_px: int) -> float:
    """Count the decoding of one picture."""
    side = side_px // base.vae_scale_factor
    return operations.counted(
        lambda: base.vae.decode(torch.zeros(1, base.latent_channels, side, side, device=base.device))
    )


def pipeline_of(base: Base, settings: SampleSettings, half: bool) -> Any:
    """Build diffusers' pipeline from the base's own parts.

    Args:
        base: Its UNet is used as it is; the rest is loaded for the pipeline alone.
        settings: Of which the scheduler is taken.
        half: In fp16, the autoencoder included: the published way decodes with the fp16-fix VAE, which does not
            overflow, and whose configuration tells diffusers not to decode in fp32.
    """
    set_verbosity_error()  # each load says that the text encoders have no LoRA
    (tokenizer, encoder), (tokenizer_2, encoder_2) = base.text_encoders.load()
    parts = [part.half() if half else part.float() for part in (base.vae, encoder, encoder_2)]
    if half:
        base.vae.register_to_config(force_upcast=False)
    base.release_vae()
    base.release_encoders()  # ours load their own again
    kind: Any = diffusers.StableDiffusionXLPipeline
    scheduler = scheduler_of(base, settings)
    pipeline = kind(parts[0], parts[1], parts[2], tokenizer, tokenizer_2, base.unet, scheduler)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _timed(work: Callable[[], Any], peaks: dict[int, float | None], key: int, bench: Bench) -> float:
    """Return seconds of the bench's clock; both ways end with pixels on the CPU."""
    began = bench.clock()
    _, peaks[key] = bench.peak(work)
    return bench.clock() - began
