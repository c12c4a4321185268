"""A long training from start to end: what it is asked, checkpoints that survive a kill, a log, a sheet."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image

from blora.embedded.learning.budget import Budget, Every, Stop


def arguments(
    said: str | None, *, minutes: float, batch: int, lr: float, save_minutes: float
) -> argparse.ArgumentParser:
    """What every training is asked, with its own defaults; `said` is the docstring of its module."""
    parser = argparse.ArgumentParser(description=(said or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument(
        "--minutes", type=float, default=minutes, help="of the processor on a CPU, of the clock on a GPU"
    )
    parser.add_argument("--batch", type=int, default=batch)
    parser.add_argument("--lr", type=float, default=lr)
    parser.add_argument("--save-minutes", type=float, default=save_minutes, help="of the clock")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--half", action=argparse.BooleanOptionalAction, default=has_fast_half())
    return parser


def has_fast_half() -> bool:
    """Whether this machine multiplies matrices in bfloat16 faster than in float32: a GPU, or a CPU with AMX."""
    return torch.cuda.is_available() or bool(torch.cpu.get_capabilities().get("amx_bf16", False))


def passes(args: argparse.Namespace) -> torch.autocast:
    """What a pass is computed under: bfloat16 where `args.half` says so; weights and optimisers stay in float32.

    Measured on one core with AMX: the UNet's pass and gradient 1.75 times as fast (36.8 pictures a second against
    21.1), stage 0's 1.67 times. Only without the fused attention, whose gradient in bfloat16 takes twice as long as
    this one's.
    """
    return torch.autocast(args.device.split(":")[0], torch.bfloat16, enabled=args.half)


def parsed(parser: argparse.ArgumentParser, given: list[str] | None) -> argparse.Namespace:
    """Read what was given, and compute in as many threads as it says."""
    args = parser.parse_args(given)
    torch.set_num_threads(args.threads)
    return args


def grid(lines: Sequence[np.ndarray]) -> np.ndarray:
    """One picture of lines of pictures (N, side, side, 3), each line from left to right."""
    return np.concatenate([np.concatenate(list(line), 1) for line in lines], 0)


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint so that a reader or a crash never sees half of it."""
    part = path.with_name(path.name + ".part")
    torch.save(state, part)
    part.replace(path)


def load(path: Path, device: str = "cpu") -> dict[str, Any] | None:
    """The checkpoint, or None where there is none yet."""
    return torch.load(path, map_location=device, weights_only=True) if path.exists() else None


def log(path: Path, **values: object) -> None:
    """Append one JSON line and show it."""
    line = json.dumps({k: round(v, 5) if isinstance(v, float) else v for k, v in values.items()})
    with path.open("a") as file:
        file.write(line + "\n")
    print(line, flush=True)


class Training(Protocol):
    """What `spend` needs of a training.

    Attributes:
        seen: Pictures so far.
    """

    seen: int

    def step(self, done: float) -> float:
        """One batch, at the given share of the budget; returns its loss."""

    def measure(self) -> dict[str, float]:
        """How good it is, on what it is not trained on."""

    def sheet(self) -> np.ndarray | None:
        """Pictures that show the same, as one; None where there is nothing to see."""

    def state(self) -> dict[str, Any]:
        """All that going on needs."""

    def resume(self, state: dict[str, Any]) -> None:
        """Go on from such a state."""


def spend(training: Training, path: Path, minutes: float, save_minutes: float, device: str) -> None:
    """Train until the budget or a signal ends it, from the checkpoint at `path` if there is one.

    The checkpoint is written every `save_minutes` of the clock, so that a kill loses no more; the log and the sheet
    beside it every `save_minutes` of the budget, so that a training which hardly gets a turn does not measure only.
    """
    before = load(path, device)
    if before:
        training.resume(before)
    budget = Budget(minutes, before["spent"] if before else 0, device)
    mean = None
    saves, reports = Every(save_minutes * 60, time.monotonic()), Every(save_minutes * 60, budget.spent)

    def report() -> None:
        found = training.measure()
        log(path.with_suffix(".jsonl"), seconds=budget.spent, pictures=training.seen, loss=mean, **found)
        sheet = training.sheet()
        if sheet is not None:
            Image.fromarray(sheet).save(path.with_suffix(".png"))

    with Stop() as stop:
        while budget.done < 1 and not stop:
            loss = training.step(budget.done)
            mean = loss if mean is None else 0.98 * mean + 0.02 * loss
            if reports.due(budget.spent):
                report()
            if saves.due(time.monotonic()):
                save(path, training.state() | {"spent": budget.spent})
    if not stop:
        report()
    save(path, training.state() | {"spent": budget.spent})
