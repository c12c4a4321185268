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
    """Counts steps over all batches and tells the caller about each."""

    def __init__(self, pictures: int, batches: int, tell: Callable[[SampleReport], None] | None) -> None:
        self._pictures, self._batches, self._tell = pictures, batches, tell
        self._done = self._finished = 0
        self._began = time.perf_counter()

    def step(self, steps: int, pictures: int) -> None:
        """Count one step of a batch that takes so many steps for so many pictures."""
        self._done += 1
        self._finished += pictures if self._done % steps == 0 else 0
        now = time.perf_counter()
        if self._tell:
            report = SampleReport(self._done, steps * self._batches, self._finished, self._pictures, now - self._began)
            self._tell(report)
        self._began = time.perf_counter()
