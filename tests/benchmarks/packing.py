"""Packed training against one by one: ``python -m tests.benchmarks.packing``.

Both sides train the same K pictures with the library's `train`; one by one is a training of its own for each. Each
packed training is preceded by a single one, so that a ratio compares neighbours in time on a noisy machine; K = 1 shows
the noise. Encoding the picture is included on both sides, loading the base is not.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import median

import torch

from blora.models.model import Base, load_base
from blora.settings.training import TrainSettings
from blora.training.items import TrainItem
from blora.training.train import train
from tests.benchmarks.common import parser_of, settings_of, write_figures
from tests.tiny import picture


def seconds_of(base: Base, count: int, settings: TrainSettings) -> float:
    """Wall seconds of training so many adapters in one pass."""
    side = settings.resolution_px
    items = [TrainItem((picture(number, side, side),), key=str(number)) for number in range(count)]
    _synchronise(base)
    started = time.perf_counter()
    results = train(base, items, settings)
    _synchronise(base)
    assert all(result.adapter for result in results)
    return time.perf_counter() - started


def measure(base: Base, settings: TrainSettings, packs: Sequence[int], repetitions: int) -> list[dict[str, float]]:
    """Return a row for each size of pack: medians over repetitions, sizes alternating within each."""
    seconds_of(base, max(packs), settings.model_copy(update={"steps": 1}))  # first calls allocate and compile
    times: dict[int, list[tuple[float, float]]] = {count: [] for count in packs}
    for _ in range(repetitions):
        for count in packs:
            times[count].append((seconds_of(base, 1, settings), seconds_of(base, count, settings)))
    return [
        {
            "pack": count,
            "one_by_one_seconds": count * median(single for single, _ in pairs),
            "packed_seconds": median(packed for _, packed in pairs),
            "times_as_fast": median(count * single / packed for single, packed in pairs),
            "lowest": min(count * single / packed for single, packed in pairs),
            "highest": max(count * single / packed for single, packed in pairs),
        }
        for count, pairs in times.items()
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table of ratios."""
    parser = parser_of(__doc__)
    parser.add_argument("--steps", type=int, default=5, help="training steps of each training")
    parser.add_argument("--packs", type=int, nargs="+", default=[1, 2, 4, 8], help="adapters in one pass")
    given = parser.parse_args(arguments)
    settings = settings_of(given, {"train.steps": given.steps}).train
    base = load_base(given.base, given.device, settings.precision)
    rows = measure(base, settings, given.packs, given.repetitions)
    print(f"{given.base} on {given.device}: {given.steps} steps, {settings.resolution_px} px, rank {settings.rank}, "
          f"{settings.batch_size} rows an adapter, {settings.precision}, median of {given.repetitions}")  # fmt: skip
    print("pack   one by one     packed   times as fast (lowest to highest)")
    for row in rows:
        print(f"{row['pack']:4.0f} {row['one_by_one_seconds']:10.2f} s {row['packed_seconds']:8.2f} s   "
              f"{row['times_as_fast']:6.2f}   ({row['lowest']:.2f} to {row['highest']:.2f})")  # fmt: skip
    write_figures(given, base, {"settings": settings.model_dump(), "rows": rows})


def _synchronise(base: Base) -> None:
    if base.device.type == "cuda":
        torch.cuda.synchronize(base.device)


if __name__ == "__main__":
    main()
