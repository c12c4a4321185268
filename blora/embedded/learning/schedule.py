"""Learning rates over a budget, and the average of the weights that they leave."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn


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
