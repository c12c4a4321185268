"""The training of the embedded model's UNet: what it is told, how it begins, and that a break leaves no trace."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from blora.embedded.drawings.pictures import Pictures
from blora.embedded.training import vae
from blora.embedded.training.batches import ConditionedBatches
from blora.embedded.training.text import TextPair
from blora.embedded.training.train import Trainee, UnetTraining

TINY = {"widths": (8, 8, 128), "heads": (1, 1, 2), "inner": 1}
ARGS = argparse.Namespace(batch=4, first_batch=2, lr=1e-3, ema=0.9)


def _training(folder: Path) -> UnetTraining:
    torch.manual_seed(0)
    text = TextPair(folder / "text", "cpu")
    trainee = Trainee(vae.CHANNELS, 128, text, **TINY)
    batches = ConditionedBatches(Pictures.read(folder), text, trainee.tokens, np.random.default_rng(0), "cpu")
    return UnetTraining(trainee, batches, ARGS)


def test_a_break_leaves_no_trace(prepared: Path, tmp_path: Path) -> None:
    whole = _training(prepared)
    for _ in range(3):
        whole.step(0.1)
    torch.save(whole.state(), tmp_path / "state.pt")
    for _ in range(3):
        whole.step(0.1)
    again = _training(prepared)
    again.resume(torch.load(tmp_path / "state.pt", weights_only=True))
    for _ in range(3):
        again.step(0.1)
    for a, b in zip(whole.averaged.values, again.averaged.values, strict=True):
        assert torch.equal(a, b)
    assert whole.means == again.means
