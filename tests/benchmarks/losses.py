"""Loss curves at full size, ours in half precision against plain PEFT in fp32: ``python -m tests.benchmarks.losses``.

SDXL's configuration with random weights; both sides start from the same adapter and see the same pictures, timesteps
and noise, so that the curves differ by arithmetic alone. What the difference is measured against is how much the loss
itself differs from step to step. On a CPU a small picture, since a step at 1024 px takes minutes there.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev

import torch

from blora.models.model import load_base
from blora.training.items import TrainItem
from blora.training.train import train
from tests.benchmarks.common import parser_of, settings_of, write_figures
from tests.benchmarks.full_size import FullSize
from tests.plain_peft import train_with_peft
from tests.tiny import RESOLUTION_PX, picture, save_tiny_base


def curve(losses: Sequence[float], expected: Sequence[float]) -> dict[str, float]:
    """Return how far two curves are apart, as shares of the expected one's scatter and size."""
    apart = [abs(one - other) for one, other in zip(losses, expected, strict=True)]
    return {
        "mean_difference": fmean(apart),
        "largest_difference": max(apart),
        "scatter_of_loss": stdev(expected),
        "mean_difference_over_scatter": fmean(apart) / stdev(expected),
        "mean_difference_over_loss": fmean(apart) / fmean(expected),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Print both curves and what separates them."""
    parser = parser_of(__doc__)
    parser.add_argument("--steps", type=int, default=200 if torch.cuda.is_available() else 20)
    parser.add_argument("--pack", type=int, default=2, help="adapters in our pass; the first is compared")
    parser.add_argument("--tiny", action="store_true", help="a dry run: whether it runs, no figures")
    on_gpu = torch.cuda.is_available()
    parser.set_defaults(base="sdxl", preset="paper", json=Path("losses-benchmark.json"))
    if not on_gpu:
        parser.set_defaults(set=["train.resolution_px=128", "train.learning_rate=1e-3"])
    given = parser.parse_args(arguments)
    fixed: dict[str, object] = {"train.steps": given.steps}
    if given.tiny:
        fixed |= {"train.resolution_px": RESOLUTION_PX, "train.rank": 4}
    settings = settings_of(given, fixed).train
    side = settings.resolution_px
    items = [TrainItem((picture(number, side, side),), str(number)) for number in range(given.pack)]
    scratch = tempfile.TemporaryDirectory()  # until the end: parts come when they are first used
    base = (
        load_base(save_tiny_base(Path(scratch.name) / "tiny"), given.device, settings.precision)
        if given.tiny
        else FullSize(given.device, settings.precision)
    )
    ours = train(base, items, settings, on_step=lambda report: print(f"ours {report.step}", end="\r", flush=True))[0]
    expected: list[float] = []
    whole = base.unet.float()  # the very same weights
    train_with_peft(base, whole, items[0], settings.model_copy(update={"precision": "fp32"}), expected.append)
    found = curve(ours.losses, expected)
    print(f"{base.name} on {given.device}: {side} px, rank {settings.rank}, learning rate {settings.learning_rate}")
    print(f"ours: pack of {given.pack} in {settings.precision}; plain PEFT: fp32")
    print("step   plain PEFT   ours       difference")
    for step in range(0, len(expected), max(1, len(expected) // 20)):
        one, other = ours.losses[step], expected[step]
        print(f"{step + 1:4d} {other:12.5f} {one:8.5f} {one - other:+12.5f}")
    print(json.dumps(found, indent=2))
    write_figures(given, base, {"settings": settings.model_dump(), "plain": expected, "ours": ours.losses, **found})


if __name__ == "__main__":
    main()
