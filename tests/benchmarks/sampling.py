"""Different pairs drawn in one batch against one by one: ``python -m tests.benchmarks.sampling``.

Three ways to the same pictures, each from files to uint8 pixels, the base already loaded:
    batched      all pairs in one batch of `blora.sampling.sample.sample`
    one by one   the same function, a batch for each pair
    diffusers    StableDiffusionXLPipeline, for each pair: load_lora_weights of both halves, call, unload
Rounds alternate between the three, so that a ratio compares neighbours in time on a noisy machine. That all draw the
same pictures is checked and shown.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers.utils.logging import set_verbosity_error
from numpy.typing import NDArray
from safetensors.torch import load_file

from blora.adapters.adapter import Adapter
from blora.adapters.blocks import target_layers
from blora.adapters.factors import Factors
from blora.adapters.load import load_adapter
from blora.bases.locate import locate_base
from blora.models.model import Base, load_base
from blora.sampling.draw import Draw
from blora.sampling.sample import sample
from blora.sampling.scheduler import SHORT_NAMES
from blora.settings.sampling import SampleSettings
from tests.benchmarks.common import parser_of, settings_of, write_figures

Pictures = list[NDArray[np.uint8]]
PROMPT = "A [c] in [s] style"


def write_halves(base: Base, folder: Path, count: int, rank: int) -> None:
    """Write so many adapters with small random weights; time does not depend on their values."""
    for number in range(count):
        draw = torch.Generator().manual_seed(number)
        for half in ("content", "style"):
            layers = {}
            for name in target_layers(base.unet, half):
                out, inner = base.unet.get_parameter(f"{name}.weight").shape
                down = torch.randn(rank, inner, generator=draw) / rank
                layers[name] = Factors(down, torch.randn(out, rank, generator=draw) * 0.02)
            Adapter(layers).save_half(folder / f"{half}{number}.safetensors")


def ours(base: Base, folder: Path, count: int, settings: SampleSettings) -> Pictures:
    """Load both halves of each pair and draw all pairs, as many at once as the settings say."""
    halves = [
        [load_adapter(folder / f"{half}{n}.safetensors", base.unet) for n in range(count)]
        for half in ("content", "style")
    ]
    draws = [Draw(halves[0][n], halves[1][(n + 1) % count], PROMPT, seed=n) for n in range(count)]
    return sample(base, draws, settings)


def theirs(pipeline: Any, folder: Path, count: int, settings: SampleSettings) -> Pictures:
    """Do the same as one writes it with diffusers; both halves in one go, as the reference implementation does."""
    pictures = []
    for number in range(count):
        files = (folder / f"content{number}.safetensors", folder / f"style{(number + 1) % count}.safetensors")
        pipeline.load_lora_weights({key: value for file in files for key, value in load_file(file).items()})
        output = pipeline(
            PROMPT, num_inference_steps=settings.steps, guidance_scale=settings.guidance_scale,
            height=settings.height_px, width=settings.width_px, generator=torch.Generator().manual_seed(number),
        )  # fmt: skip
        pictures.append(np.asarray(output.images[0]))
        pipeline.unload_lora_weights()
    return pictures


def scheduler_of(base: Base, settings: SampleSettings) -> Any:
    """Build the scheduler of the settings as one does with diffusers."""
    name = SHORT_NAMES.get(settings.scheduler, settings.scheduler)
    kind: Any = getattr(diffusers, base.scheduler_config["_class_name"] if name == "base" else name)
    return kind.from_config(base.scheduler_config, **settings.scheduler_options)


def measure(ways: dict[str, Callable[[], Pictures]], repetitions: int) -> tuple[dict[str, list[float]], dict[str, int]]:
    """Return wall seconds of each way in each round, and its largest difference from the first way in levels of 256."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    pictures: dict[str, Pictures] = {name: way() for name, way in ways.items()}  # first calls allocate and compile
    for _ in range(repetitions):
        for name, way in ways.items():
            started = time.perf_counter()
            way()  # ends with pixels on the CPU, so nothing is still under way on a GPU
            times[name].append(time.perf_counter() - started)
    first = np.stack(next(iter(pictures.values()))).astype(int)
    return times, {name: int(np.abs(np.stack(drawn) - first).max()) for name, drawn in pictures.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table of ratios."""
    parser = parser_of(__doc__)
    parser.add_argument("--pairs", type=int, default=8, help="different pairs")
    given = parser.parse_args(arguments)
    chosen = settings_of(given, {"sample.batch_size": given.pairs})
    settings = chosen.sample.model_copy(update={"guidance_from": "adapted"})  # what diffusers' pipeline does
    alone = settings.model_copy(update={"batch_size": 1})
    base = load_base(given.base, given.device, settings.precision)
    set_verbosity_error()  # each load says that the text encoders have no LoRA
    kind: Any = diffusers.StableDiffusionXLPipeline
    pipeline = kind.from_pretrained(locate_base(given.base).folder, torch_dtype=base.dtype).to(given.device)
    pipeline.scheduler = scheduler_of(base, settings)
    pipeline.set_progress_bar_config(disable=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_halves(base, folder, given.pairs, chosen.train.rank)
        ways: dict[str, Callable[[], Pictures]] = {
            "batched": lambda: ours(base, folder, given.pairs, settings),
            "one by one": lambda: ours(base, folder, given.pairs, alone),
            "diffusers": lambda: theirs(pipeline, folder, given.pairs, settings),
        }
        times, differences = measure(ways, given.repetitions)
    what = f"{settings.steps} steps, {settings.width_px} x {settings.height_px} px, rank {chosen.train.rank}"
    print(f"{given.base} on {given.device}: {given.pairs} different pairs, {what}, {settings.precision}, "
          f"median of {given.repetitions}")  # fmt: skip
    print("way          seconds a picture   batched is times as fast (lowest to highest)   largest difference")
    for way, seconds in times.items():
        ratios = [other / batched for other, batched in zip(seconds, times["batched"], strict=True)]
        print(f"{way:12s} {median(seconds) / given.pairs:17.3f}   {median(ratios):24.2f}   ({min(ratios):.2f} to "
              f"{max(ratios):.2f})           {differences[way]:9d} of 255")  # fmt: skip
    figures = {"settings": settings.model_dump(), "seconds": times, "largest_difference_levels": differences}
    write_figures(given, base, figures)


if __name__ == "__main__":
    main()
