"""Losses on a CPU and on a device, in every format and way: ``python -m tests.benchmarks.correctness``.

Four adapters of the embedded model, the same pictures and draws everywhere. The reference is the CPU in fp32, eager,
nothing recomputed. What must hold is printed with pass or fail, and the exit code is 1 if something fails:
    fp32 on the device      every loss within 1e-3 of the CPU's
    graph                   as far from eager as eager is from a second eager run, since a GPU adds in no fixed order
    checkpointing           likewise
    compiled                every loss within 1e-3 of eager's in fp32; in half formats the mean loss within 5 %
    fp16, bf16              finite, mean loss within 5 % of fp32's; fp16 skips a step only while its loss scale falls
Convolutions in fp32 are exact here: the product leaves cuDNN torch's own choice, TF32, which keeps ten bits of a number
and would hide a fault of this size. What TF32 does to the losses stands beside them, and passes or fails nothing.
Each way of execution has a process of its own: what one compiles, captures or breaks is nothing to the next.
"""

from __future__ import annotations

import argparse
import functools
import math
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from statistics import fmean
from typing import Any

import torch
from torch import nn

from blora.models.model import load_base
from blora.settings.training import TrainSettings
from blora.training.items import TrainItem
from blora.training.train import train
from tests.benchmarks.common import convolutions, parser_of, settings_of, write_figures
from tests.tiny import picture

WAYS = ("eager", "graph", "compiled", "compiled_graph")
AGAIN, TF32 = "eager, again", "eager, TF32"
CLOSE, CLOSE_MEAN, OVER_NOISE, LEAST = 1e-3, 0.05, 10.0, 1e-6
"""Relative distance of losses in fp32; of mean losses in half formats; how many times its own noise; below, equal."""


@dataclass(frozen=True)
class Losses:
    """One training of a pack.

    Attributes:
        device: "cpu", or the device's kind.
        precision: Number format.
        way: Of execution; "eager, again" is eager's second run, "eager, TF32" the one with the product's convolutions.
        checkpointing: "off" or "on".
        losses: Of each adapter, of each step.
        skipped: Steps that were not taken, of all adapters.
    """

    device: str
    precision: str
    way: str
    checkpointing: str
    losses: list[list[float]]
    skipped: int

    @property
    def mean(self) -> float:
        """Mean of all losses; NaN if one is."""
        return fmean(self.flat)

    @property
    def flat(self) -> list[float]:
        """All losses, adapter by adapter."""
        return [loss for adapter in self.losses for loss in adapter]

    def apart(self, other: Losses) -> float:
        """The largest relative distance of two losses."""
        pairs = zip(self.flat, other.flat, strict=True)
        return max((abs(one - two) / abs(two) if math.isfinite(one) else math.inf) for one, two in pairs)


def trained(given: argparse.Namespace, settings: TrainSettings, device: str, way: str, precision: str) -> list[Losses]:
    """Train the pack in one format and way, with and without recomputation; eager twice, to see what it repeats."""
    base = load_base(given.base, device, precision)  # type: ignore[arg-type]
    side = settings.resolution_px
    items = [TrainItem((picture(number, side, side),), str(number)) for number in range(given.pack)]
    found = []
    runs = [(way, "off", False), (way, "on", False)]
    if way == "eager" and device != "cpu":
        runs += [(AGAIN, "off", False), *([(TF32, "off", True)] if precision == "fp32" else [])]
    for name, checkpointing, tf32 in runs:
        changes = {"precision": precision, "execution": way, "checkpointing": checkpointing}
        with convolutions(tf32=tf32):
            results = train(base, items, settings.model_copy(update=changes))
        losses, skipped = [list(result.losses) for result in results], sum(result.skipped_steps for result in results)
        found.append(Losses(torch.device(device).type, precision, name, checkpointing, losses, skipped))
    return found


def in_one_way(given: argparse.Namespace, settings: TrainSettings, way: str) -> list[Losses]:
    """Every format on the device in one way of execution; what fails is said, and the next format tried."""
    if given.threads:
        torch.set_num_threads(given.threads)
    if given.backend:
        whole = nn.Module.compile
        nn.Module.compile = functools.partialmethod(whole, backend=given.backend)  # type: ignore[assignment,method-assign]
    found = []
    for precision in given.precisions:
        try:
            found += trained(given, settings, given.device, way, precision)
        except (RuntimeError, ValueError) as error:  # of which those of torch and of a compiler are some
            print(f"{way}, {precision}: {type(error).__name__}: {str(error)[:500]}", flush=True)
    return found


def verdicts(cpu: Losses, found: Sequence[Losses], wanted: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """What must hold, what was seen, and whether it passes."""
    by = {(one.precision, one.way, one.checkpointing): one for one in found}
    rows: list[dict[str, Any]] = []

    def judge(what: str, seen: float, limit: float) -> None:
        rows.append({"what": what, "seen": seen, "limit": limit, "passes": bool(seen <= limit)})

    for precision, way in wanted:
        for checkpointing in ("off", "on"):
            one, eager = by.get((precision, way, checkpointing)), by.get((precision, "eager", "off"))
            what = f"{precision}, {way}, checkpointing {checkpointing}"
            if one is None or eager is None:
                judge(f"{what}: ran", math.inf, 0)
                continue
            again = by.get((precision, AGAIN, "off"))
            noise = OVER_NOISE * again.apart(eager) if again else 0.0
            if precision == "fp32" and one is eager:
                judge(f"{what}: losses as on the CPU", one.apart(cpu), CLOSE)
            elif one is eager:
                judge(f"{what}: mean loss as in fp32 on the CPU", abs(one.mean / cpu.mean - 1), CLOSE_MEAN)
                lost = sum(not math.isfinite(loss) for loss in one.flat)
                judge(f"{what}: losses that are not finite ({one.skipped} steps skipped)", lost, 0)
            elif way.startswith("compiled"):
                apart = one.apart(eager) if precision == "fp32" else abs(one.mean / eager.mean - 1)
                judge(f"{what}: losses as eager's", apart, CLOSE if precision == "fp32" else CLOSE_MEAN)
            else:
                judge(f"{what}: losses as eager's, within its own noise", one.apart(eager), max(noise, LEAST))
    return rows


def show(cpu: Losses, found: Sequence[Losses], rows: Sequence[dict[str, Any]]) -> None:
    """Print the first adapter's losses side by side, and the verdicts."""
    print(f"{'first adapter, step':38s} {'first':>9s} {'middle':>9s} {'last':>9s}   mean of all   skipped")
    for one in (cpu, *found):
        first = one.losses[0]
        name = f"{one.device} {one.precision} {one.way}, checkpointing {one.checkpointing}"
        some = " ".join(f"{first[step]:9.6f}" for step in (0, len(first) // 2, -1))
        print(f"{name:38s} {some}   {one.mean:11.6f} {one.skipped:9d}")
    for row in rows:
        print(f"{'pass' if row['passes'] else 'FAIL'}  {row['what']}: {row['seen']:.3g}, at most {row['limit']:.3g}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Train everywhere, print, write; 1 if something that must hold does not."""
    parser = parser_of(__doc__)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--pack", type=int, default=4)
    parser.add_argument("--precisions", nargs="+", default=["fp32", "fp16", "bf16"])
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--backend", default="", help="of torch.compile; aot_eager traces, and generates no code")
    given = parser.parse_args(arguments)
    settings = settings_of(given, {"train.steps": given.steps}).train
    (cpu, _) = trained(given, settings, "cpu", "eager", "fp32")
    on_gpu = given.device.startswith("cuda")
    ways = [way for way in given.ways if on_gpu or not way.endswith("graph")]
    found: list[Losses] = []
    rows: list[dict[str, Any]] = []
    base = load_base(given.base, "cpu")
    for way in ways:
        try:
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
                found += alone.submit(in_one_way, given, settings, way).result()
        except RuntimeError as error:  # of which a process that died is one
            print(f"{way}: {type(error).__name__}: {str(error)[:500]}", flush=True)
        rows = verdicts(cpu, found, [(precision, way) for precision in given.precisions for way in ways])
        losses = {f"{one.precision}, {one.way}, {one.checkpointing}": one.losses for one in found}
        write_figures(
            given, base, {"rows": rows, "cpu": cpu.losses, "losses": losses}
        )  # whoever runs out of time has it
    show(cpu, found, rows)
    return int(not all(row["passes"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
