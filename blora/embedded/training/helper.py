"""Low-priority helper processes on the CPU that add gradients when they have one, and never make the trainer wait.

A helper shares the trainer's weights in memory, computes the gradient of a batch of its own, and leaves it in a shared
buffer. The trainer averages in whatever lies there. Such a gradient is a step or two old, which does no harm here,
while waiting for a busy core at every step would.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as multiprocessing


def _work(
    number: int, size: int, data: Path, weights: list[torch.Tensor], grads: list[torch.Tensor], ready: torch.Tensor
) -> None:
    from blora.embedded.training.unet import Trainee

    os.setsid()  # Linux shares processors between sessions first; in one with the trainer, it would slow that down
    os.nice(5)
    torch.set_num_threads(1)
    seed = int.from_bytes(os.urandom(4), "big")
    torch.manual_seed(seed)
    trainee = Trainee(data, seed, "cpu")
    own = trainee.trained()
    parent = os.getppid()
    for q, value in zip(own, weights, strict=True):
        q.data = value
    while os.getppid() == parent:
        trainee.loss(size)[1].backward()
        while int(ready[number]) and os.getppid() == parent:
            time.sleep(0.005)
        for q, g in zip(own, grads, strict=True):
            g.zero_() if q.grad is None else g.copy_(q.grad)
            q.grad = None
        ready[number] = 1


class Helpers:
    """A pool of helpers; with count 0 it does nothing."""

    def __init__(self, trainee: Any, trained: list[torch.nn.Parameter], count: int, size: int, data: Path) -> None:
        self.ready = torch.zeros(max(count, 1), dtype=torch.int64).share_memory_()
        self.grads = [[torch.zeros_like(q.data).share_memory_() for q in trained] for _ in range(count)]
        for q in trained if count else ():
            q.data = q.data.share_memory_()
        context = multiprocessing.get_context("spawn")
        self.processes = [
            context.Process(
                target=_work, args=(n, size, data, [q.data for q in trained], self.grads[n], self.ready), daemon=True
            )
            for n in range(count)
        ]
        for process in self.processes:
            process.start()

    def add(self, trained: list[torch.nn.Parameter]) -> int:
        """Average finished gradients into those of the trainer; returns how many there were."""
        done = [n for n in range(len(self.processes)) if int(self.ready[n])]
        for n in done:
            for q, g in zip(trained, self.grads[n], strict=True):
                q.grad = g.clone() if q.grad is None else q.grad.add_(g)
            self.ready[n] = 0
        for q in trained if done else ():
            q.grad.mul_(1 / (1 + len(done)))
        return len(done)

    def stop(self) -> None:
        for process in self.processes:
            process.terminate()
