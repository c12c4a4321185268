"""How a long training spends its time: a budget, checkpoints that survive a kill, averaged weights, a log."""

from __future__ import annotations

import argparse
import json
import math
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Protocol, Self

import numpy as np
import torch
from PIL import Image
from torch import nn


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
    return parser


def parsed(parser: argparse.ArgumentParser, given: list[str] | None) -> argparse.Namespace:
    """Read what was given, and compute in as many threads as it says."""
    args = parser.parse_args(given)
    torch.set_num_threads(args.threads)
    return args


class Budget:
    """Minutes a training may use, counted across resumes.

    On a CPU these are minutes of the processor (all threads), so that a training which is paused, or shares the
    machine, neither ends early nor skips a part of its schedule; on a GPU they are minutes of the clock.
    """

    def __init__(self, minutes: float, spent: float = 0.0, device: str = "cpu") -> None:
        """Start counting now; `spent` are the seconds of the parts before."""
        self.seconds, self.before = minutes * 60, spent
        self.clock: Callable[[], float] = time.process_time if device == "cpu" else time.monotonic
        self.start = self.clock()

    @property
    def spent(self) -> float:
        """Seconds used, those before the last resume included."""
        return self.before + self.clock() - self.start

    @property
    def done(self) -> float:
        """Share of the budget used; 1 or more at its end."""
        return self.spent / self.seconds if self.seconds else 1.0


class Stop:
    """Becomes true on SIGTERM or SIGINT inside a `with`, so that a step ends and is saved in place of being lost."""

    def __init__(self) -> None:
        self.asked = False
        self.before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self.before = {number: signal.signal(number, self._ask) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True

    def __bool__(self) -> bool:
        return self.asked


class Every:
    """True once in each stretch of seconds of one clock."""

    def __init__(self, seconds: float, now: float) -> None:
        """The first stretch begins at `now`."""
        self.seconds, self.last = seconds, now

    def due(self, now: float) -> bool:
        """Whether a stretch has passed since the last time."""
        if now - self.last < self.seconds:
            return False
        self.last = now
        return True


class Averaged:
    """An exponential average of some parameters, which draws better pictures than the parameters of any one step."""

    def __init__(self, parameters: Iterable[nn.Parameter], keep: float) -> None:
        """Begin with the values of now; `keep` is the share of the average that stays at each step."""
        self.parameters, self.keep = list(parameters), keep
        self.values = [q.detach().clone() for q in self.parameters]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the parameters; early in training the average follows faster."""
        keep = min(self.keep, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.values, [q.detach() for q in self.parameters], 1 - keep)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange average and parameters; a second call undoes it."""
        for q, value in zip(self.parameters, self.values, strict=True):
            kept = q.detach().clone()
            q.copy_(value)
            value.copy_(kept)

    @torch.no_grad()
    def load(self, values: list[torch.Tensor]) -> None:
        """Go on from a checkpoint's average."""
        for own, value in zip(self.values, values, strict=True):
            own.copy_(value)


def grid(lines: Sequence[np.ndarray]) -> np.ndarray:
    """One picture of lines of pictures (N, side, side, 3), each line from left to right."""
    return np.concatenate([np.concatenate(list(line), 1) for line in lines], 0)


def cosine(done: float, step: int, warmup: int = 50, least: float = 0.02) -> float:
    """Factor of the peak learning rate: a warm-up by step, then half a cosine over the budget."""
    return min(1.0, (step + 1) / warmup) * (least + (1 - least) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0))))


def flat_then_down(done: float, step: int, warmup: int = 100, down: float = 0.25) -> float:
    """Factor of the peak learning rate: a warm-up, a long flat stretch, and a line to zero over the last part.

    Unlike a cosine this can be cut short at any time: a smaller budget begins the way down at once, a larger one
    goes on as if nothing had been planned otherwise.
    """
    return min(1.0, (step + 1) / warmup) * max(0.0, min(1.0, (1 - done) / down))


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """One learning rate for all groups."""
    for group in optimiser.param_groups:
        group["lr"] = rate


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
