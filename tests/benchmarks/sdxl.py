"""Everything against the published way, in one run on one machine: ``python -m tests.benchmarks.sdxl``.

On a GPU: SDXL at full size with random weights, 1024 px, rank 64. On a CPU: operation counts of that configuration,
and times of the embedded model. Prints one table and writes JSON.

Baseline: `tests.benchmarks.published` for training; for sampling one diffusers pipeline call a pair, its LoRA loaded
for it. Floor: operations that the mathematics needs (`tests.benchmarks.operations`) at the rate that this device
reaches in a plain matrix product, measured in the same run. Rounds alternate between the sides, medians are shown.
With ``--threads 1`` on a CPU the clock is the process's own computing time, else the wall's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import torch

from blora.settings.resolve import resolve
from tests.benchmarks import operations
from tests.benchmarks.budgets import budgets
from tests.benchmarks.common import parser_of, settings_of
from tests.benchmarks.full_size import FullSize
from tests.benchmarks.versus import Bench
from tests.benchmarks.versus_sampling import decode_flop, sampling

PARTS: Final[dict[str, Callable[[Bench], None]]] = {
    "training": Bench.training,
    "variants": Bench.variants,
    "opt_ins": Bench.opt_ins,
    "sampling": sampling,
    "budgets": budgets,
}


def full_size_counts() -> dict[str, float]:
    """Return TFLOP of SDXL at 1024 px, rank 64, one row, without allocating it."""
    base, settings = FullSize(), resolve("paper")
    train_settings = settings.train
    forward, front = operations.forward_flop(base, 1024), operations.front_flop(base, 1024)
    needed = operations.needed_training_flop(base, 1024, train_settings.rank)
    recomputed = train_settings.model_copy(update={"checkpointing": "on"})
    pooled = train_settings.model_copy(update={"front_pool": 8})
    encode = operations.counted(lambda: base.vae.encode(torch.zeros(1, 3, 1024, 1024, device="meta")))
    counts = {
        "forward": forward,
        "front": front,
        "vae_encode": encode,
        "vae_decode": decode_flop(base, 1024),
        "train_step_needed": needed,
        "train_step_published": operations.training_flop(base, recomputed) + encode,
        "train_step_ours": operations.training_flop(base, train_settings),
        "train_step_ours_pack_of_8": operations.training_flop(base, train_settings, 8),
        "train_step_ours_4_candidates_of_one_image": operations.training_flop(base, train_settings, 4, shared=True),
        "train_step_ours_front_from_a_pool": operations.training_flops(base, pooled, steps=2)[1],
        "sample_step_needed": 2 * forward,
        "sample_step_ours": operations.sampling_flop(base, settings.sample, train_settings.rank, 4),
    }
    return {name: value / 1e12 for name, value in counts.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    parser = parser_of(__doc__)
    parser.add_argument("--steps", type=int, default=8, help="training steps timed, beside warm-up")
    parser.add_argument("--sample-steps", type=int, default=0, help="denoising steps; 0: the preset's")
    parser.add_argument("--packs", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--budgets-gb", type=float, nargs="*", default=[24, 16, 12, 8], help="of the cards to be like")
    parser.add_argument("--only", nargs="+", choices=["counts", *PARTS], help="left out: all, budgets on a GPU alone")
    on_gpu = torch.cuda.is_available()
    parser.set_defaults(
        base="sdxl" if on_gpu else "embedded", preset="paper" if on_gpu else "demo", repetitions=1,
        json=Path("sdxl-benchmark.json"),
    )  # fmt: skip
    given = parser.parse_args(arguments)
    only = given.only or ["counts", *(part for part in PARTS if part != "budgets" or given.device.startswith("cuda"))]
    counts = full_size_counts() if "counts" in only else {}
    if counts:
        print("SDXL at 1024 px, rank 64, TFLOP of one row:")
        print(*(f"  {name:44s} {value:7.3f}" for name, value in counts.items()), sep="\n")
    bench = Bench(given, settings_of(given, {"sample.guidance_from": "adapted"}))  # as diffusers' pipeline does
    bench.counts = counts
    for part, measure in PARTS.items():
        if part in only:
            measure(bench)
    bench.keep()
    bench.show()


if __name__ == "__main__":
    main()
