"""Opt-in ways of training against the plain one: ``python -m tests.benchmarks.opt_ins``.

A way is another recipe: it is to be cheaper, and to teach as much. Each training of a way follows a plain one of the
same pack, so that a ratio compares neighbours in time on a noisy machine; "plain" among the ways shows the noise.
Taught: the mean loss, after training, on draws that no training saw, the same for all ways; and, so that it can be
judged, the same before training. On a GPU the most memory that was allocated stands beside.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import mean, median
from typing import Any, Final

import torch

from blora.models.fp8 import held_in_fp8
from blora.models.model import Base, load_base
from blora.settings.training import TrainSettings
from blora.training.items import TrainItem, TrainResult
from blora.training.noise import draw_noise, seeded
from blora.training.optim import FlatFactors
from blora.training.photos import prepare_photos
from blora.training.stepper import Stepper
from blora.training.train import train
from tests.benchmarks.common import parser_of, settings_of, write_figures
from tests.benchmarks.operations import both_halves, unet_inputs
from tests.tiny import picture

WAYS: Final[dict[str, dict[str, Any]]] = {
    "plain": {},
    "front pool of 8, 2 uses": {"front_pool": 8, "front_uses": 2},
    "front pool of 8, 4 uses": {"front_pool": 8, "front_uses": 4},
    "front pool of 16, 8 uses": {"front_pool": 16, "front_uses": 8},
    "frozen weights in fp8": {"frozen": "fp8"},
}
_TIMESTEPS: Final = (20, 500, 950)
_UNSEEN: Final = 64
"""Draws that the loss is measured on, for each adapter."""


def unseen_loss(base: Base, items: Sequence[TrainItem], results: Sequence[TrainResult | None], plain: Any) -> float:
    """Mean loss of a pack on draws that no training saw; of a result that is None, without an adapter."""
    settings = TrainSettings(**plain.model_dump() | {"batch_size": 8})
    photos = [prepare_photos(base, item.images, settings) for item in items]
    factors = FlatFactors(both_halves(base), len(items), settings.rank, base.device, base.dtype)
    with torch.no_grad():
        for index, result in enumerate(results):
            for name, half in (result.adapter.layers if result and result.adapter else {}).items():
                down, up = factors.exact[name]
                down[index], up[index] = half.down / settings.scale, half.up
    losses: list[float] = []
    with Stepper(base, photos, factors, settings) as stepper:
        for start in range(0, _UNSEEN, settings.batch_size):
            sources = [seeded(f"unseen {item.key}", start) for item in items]
            draws = [
                draw_noise(source, seen, 0, settings, stepper.timesteps, "")
                for source, seen in zip(sources, photos, strict=True)
            ]
            losses += stepper.run(draws, [1.0] * len(items))[0].tolist()
    return mean(losses)


def fp8_errors(base: Base, side_px: int) -> dict[int, float]:
    """By timestep, how far one pass with frozen weights in eight bits is from that with whole ones, relatively."""
    inputs = unet_inputs(base, side_px)
    source = torch.Generator().manual_seed(0)
    inputs["sample"] = torch.randn(inputs["sample"].shape, generator=source).to(base.device, base.dtype)
    inputs["encoder_hidden_states"] = base.encode_prompts(["A [v]"]).hidden
    found = {}
    for timestep in _TIMESTEPS:
        inputs["timestep"] = torch.tensor([timestep], device=base.device)
        with torch.no_grad():
            whole = base.unet(**inputs).sample.float()
            with held_in_fp8(base.unet, both_halves(base)):
                coarse = base.unet(**inputs).sample.float()
        found[timestep] = float((coarse - whole).norm() / whole.norm())
    return found


def timed(base: Base, items: Sequence[TrainItem], settings: TrainSettings) -> tuple[float, list[TrainResult], float]:
    """Seconds of a training, what came of it, and the most bytes that were allocated on a GPU."""
    on_gpu = base.device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(base.device)
        torch.cuda.synchronize(base.device)
    # On a CPU that others use, too, the time of one thread is what it computed.
    clock = time.process_time if not on_gpu and torch.get_num_threads() == 1 else time.perf_counter
    began = clock()
    results = train(base, items, settings)
    if on_gpu:
        torch.cuda.synchronize(base.device)
    return clock() - began, results, float(torch.cuda.max_memory_allocated(base.device)) if on_gpu else 0.0


def measure(base: Base, settings: TrainSettings, pack: int, repetitions: int) -> list[dict[str, Any]]:
    """Return a row for each way."""
    side = settings.resolution_px
    items = [TrainItem((picture(number, side, side),), key=str(number)) for number in range(pack)]
    train(base, items, settings.model_copy(update={"steps": 1}))  # first calls allocate
    before = unseen_loss(base, items, [None] * pack, settings)
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in WAYS}
    taught: dict[str, float] = {}
    for _ in range(repetitions):
        for name, changes in WAYS.items():
            plain, _results, _bytes = timed(base, items, settings)
            seconds, results, peak = timed(base, items, TrainSettings(**settings.model_dump() | changes))
            found[name].append((plain, seconds, peak))
            if name not in taught:
                taught[name] = unseen_loss(base, items, results, settings)
    return [
        {
            "way": name,
            "plain_seconds": median(plain for plain, _, _ in rows),
            "seconds": median(seconds for _, seconds, _ in rows),
            "times_as_fast": median(plain / seconds for plain, seconds, _ in rows),
            "loss_before": before,
            "loss": taught[name],
            "peak_gb": max(peak for _, _, peak in rows) / 1e9,
        }
        for name, rows in found.items()
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table of ratios."""
    parser = parser_of(__doc__)
    parser.add_argument("--steps", type=int, default=64, help="training steps of each training")
    parser.add_argument("--pack", type=int, default=2, help="adapters in one pass")
    given = parser.parse_args(arguments)
    settings = settings_of(given, {"train.steps": given.steps}).train
    base = load_base(given.base, given.device, settings.precision)
    rows = measure(base, settings, given.pack, given.repetitions)
    print(f"{given.base} on {given.device}: {given.steps} steps, {settings.resolution_px} px, rank {settings.rank}, "
          f"{settings.batch_size} rows an adapter, pack of {given.pack}, {settings.precision}, "
          f"median of {given.repetitions}")  # fmt: skip
    errors = fp8_errors(base, settings.resolution_px)
    print("one pass with frozen weights in fp8 is off by " + ", ".join(
        f"{error:.1%} at timestep {timestep}" for timestep, error in errors.items()
    ))  # fmt: skip
    print(f"loss on unseen draws before training: {rows[0]['loss_before']:.5f}")
    print("way                            plain   this way   times as fast   loss on unseen draws   peak GB")
    for row in rows:
        peak = f"{row['peak_gb']:9.2f}" if row["peak_gb"] else "        -"
        print(f"{row['way']:26s} {row['plain_seconds']:7.1f} s {row['seconds']:8.1f} s "
              f"{row['times_as_fast']:15.2f} {row['loss']:22.5f} {peak}")  # fmt: skip
    write_figures(given, base, {"settings": settings.model_dump(), "fp8_errors": errors, "rows": rows})


if __name__ == "__main__":
    main()
