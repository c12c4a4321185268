"""What the three training scripts share: time budget, checkpoints, reading the pictures."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

SIDE_PX = 64
"""Side of the pictures that the VAE and the UNet work on; the drawings lie on disk at 128 px, for a larger model."""


@dataclass(frozen=True)
class Pictures:
    """The training set as `data.py` left it; arrays are aligned, one entry a picture."""

    data: Path
    thing: np.ndarray
    set: np.ndarray
    look: np.ndarray
    geometry: np.ndarray
    things: list[dict]
    looks: list[dict]

    @classmethod
    def read(cls, data: Path) -> Pictures:
        index = np.load(data / "index.npz")
        things, looks = (json.loads((data / f"{name}.json").read_text()) for name in ("things", "looks"))
        return cls(data, index["thing"], index["set"], index["look"], index["geometry"], things, looks)

    def pixels(self) -> np.ndarray:
        return np.load(self.data / "pictures.npy", mmap_mode="r")

    def held_out_thing(self) -> np.ndarray:
        return np.array([t["held_out"] for t in self.things])[self.thing]

    def held_out_look(self) -> np.ndarray:
        return np.array([k["held_out"] for k in self.looks])[self.look]

    def for_training(self) -> np.ndarray:
        """Rows whose thing and look may both be trained on."""
        return np.flatnonzero(~self.held_out_thing() & ~self.held_out_look())


def to_unit(pixels: np.ndarray) -> torch.Tensor:
    """uint8 (N, H, W, 3) to float (N, 3, SIDE_PX, SIDE_PX) in -1..1, by area."""
    x = torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1
    return F.adaptive_avg_pool2d(x, SIDE_PX)


def learning_rate(peak: float, done: float, step: int, warmup: int = 100) -> float:
    """Warm-up by step, then a cosine over the share of the budget that is spent."""
    return peak * min(1.0, (step + 1) / warmup) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(done, 1.0))))


def save(path: Path, state: dict) -> None:
    """Write a checkpoint so that a reader or a crash never sees half of it."""
    part = path.with_suffix(".part")
    torch.save(state, part)
    part.replace(path)


class Budget:
    """Training time in minutes, counted across resumes."""

    def __init__(self, minutes: float, spent: float = 0.0) -> None:
        self.seconds, self.before, self.start = minutes * 60, spent, time.monotonic()

    @property
    def spent(self) -> float:
        return self.before + time.monotonic() - self.start

    @property
    def done(self) -> float:
        return self.spent / self.seconds
