"""What is told of each denoising step."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["SampleReport", "StepCounter"]


@dataclass(frozen=True)
class SampleReport:
    """One denoising step of one batch.

    Attributes:
        step: Steps done over all batches, from 1.
        steps: Steps of all batches.
        finished: Pictures whose denoising is done.
        pictures: Pictures in all.
        seconds: Wall seconds of this step.
    """

    step: int
    steps: int
    finished: int
    pictures: int
    seconds: float


class StepCounter:
    """Counts steps over all batches and tells the caller about each.

    Attributes:
        at_once: Pictures in a batch; fewer from now on where a batch was too large and is tried again in parts.
    """

    def __init__(self, pictures: int, at_once: int, tell: Callable[[SampleReport], None] | None) -> None:
        self.at_once = at_once
        self._pictures, self._tell = pictures, tell
        self._done = self._finished = 0  # of batches that are done
        self._began = time.perf_counter()

    def step(self, number: int, steps: int, pictures: int) -> None:
        """Count a step, from 1, of a batch that takes so many steps for so many pictures."""
        now, finished = time.perf_counter(), self._finished + (pictures if number == steps else 0)
        if self._tell:
            to_come = -(-(self._pictures - self._finished - pictures) // self.at_once)
            whole = self._done + steps * (1 + to_come)
            self._tell(SampleReport(self._done + number, whole, finished, self._pictures, now - self._began))
        if number == steps:
            self._done, self._finished = self._done + steps, finished
        self._began = time.perf_counter()
