"""Shared by the tests of training: a cheap recipe, comparisons, and a poison."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from blora.adapters.adapter import Adapter
from blora.models.model import Base
from blora.settings.training import TrainSettings
from blora.training.checkpoint import Checkpoint
from blora.training.items import TrainItem, TrainResult
from tests.tiny import RESOLUTION_PX, picture

SETTINGS = TrainSettings(resolution_px=RESOLUTION_PX, rank=4, learning_rate=1e-3, steps=3, batch_size=1)
"""A few cheap steps of the tiny base."""


def recipe(**changes: Any) -> TrainSettings:
    return TrainSettings(**{**SETTINGS.model_dump(), **changes})


def item(number: int, height_px: int = 40, width_px: int = 32) -> TrainItem:
    return TrainItem((picture(number, height_px, width_px),), f"item {number}")


def weights(result: TrainResult | Adapter) -> torch.Tensor:
    """Return all weight deltas as one vector."""
    adapter = result.adapter if isinstance(result, TrainResult) else result
    assert adapter is not None
    return torch.cat([adapter.layers[name].delta.flatten() for name in sorted(adapter.layers)])


def distance(first: TrainResult | Adapter, second: TrainResult | Adapter) -> float:
    return float((weights(first) - weights(second)).norm() / weights(first).norm())


def bit_equal(first: TrainResult, second: TrainResult) -> bool:
    assert first.adapter is not None and second.adapter is not None
    return np.array_equal(first.losses, second.losses, equal_nan=True) and all(
        torch.equal(factors.down, second.adapter.layers[name].down)
        and torch.equal(factors.up, second.adapter.layers[name].up)
        for name, factors in first.adapter.layers.items()
    )


@contextmanager
def poisoned(base: Base, rows: dict[int, set[int]]) -> Iterator[None]:
    """Turn rows of the UNet's input to NaN in chosen forward passes: by row, the numbers of the passes."""
    calls = iter(range(10**6))

    def poison(module: Any, args: tuple[torch.Tensor, ...]) -> tuple[Any, ...]:
        call, sample = next(calls), args[0].clone()
        for row, passes in rows.items():
            if call in passes:
                sample[row] = torch.nan
        return (sample, *args[1:])

    handle = base.unet.register_forward_pre_hook(poison)
    try:
        yield
    finally:
        handle.remove()


class SavedCheckpoints(list[Path]):
    """Checkpoints as files of a folder, in the order in which a training hands them out."""

    def __init__(self, folder: Path) -> None:
        """Hold none yet."""
        super().__init__()
        self.folder = folder

    def __call__(self, checkpoint: Checkpoint) -> None:
        """Save one."""
        self.append(self.folder / f"{len(self)}.safetensors")
        checkpoint.save(self[-1])
