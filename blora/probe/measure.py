"""The paper's block probe, on any UNet with cross-attention and on FLUX: which block listens to which part of a prompt.

For a pair of prompts (p, q) the text q goes into the cross-attention of one block, p into all the others; the picture
is compared with q by CLIP. A transformer's blocks read the prompt by joint attention and hand it on, and a stretch of
them is told q (`blora.models.passes.two_prompts` says how); its pooled prompt is p, as a UNet's is. A block that
answers to objects scores high where p and q differ in the object, one that answers to colours where they differ in the
look. Every picture of a pair starts from the same noise.

    readings = measure(base, clip, pairs, settings.sample, probed_blocks(base.unet))
    summary = summarize(pairs, readings, seed=0)          # proposal.py

Source: arXiv 2403.14572, section 4.1. Two pictures a pair are added to the paper's: p in all blocks, and q in all
blocks. They are what a block's picture is measured against: some q score high whatever is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from blora.errors import BloraError, SettingsError
from blora.metrics.lite0 import Features
from blora.probe.readings import BlockReading, ProbePair
from blora.sampling.denoise import Model, beside, denoise, fits_device, model_faults
from blora.settings.sampling import SampleSettings

__all__ = ["JointEncoder", "measure"]

_NOWHERE: Final = ""
_EVERYWHERE: Final = "*"


class JointEncoder(Protocol):
    """Pictures and texts in one space; `blora.metrics.clip.ClipEncoder` is one."""

    def extract(self, pictures: Sequence[NDArray[np.uint8]]) -> Features:
        """Return unit-length features, of which `content` is used."""
        ...

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Return unit-length embeddings (texts, c) on the CPU."""
        ...


@dataclass(frozen=True)
class _Drawing:
    """One picture to draw: where q goes."""

    pair: int
    seed: int
    where: str


def measure(
    model: Model,
    judge: JointEncoder,
    pairs: Sequence[ProbePair],
    settings: SampleSettings,
    blocks: Sequence[str],
    *,
    on_step: Callable[[int, int], None] | None = None,
) -> list[BlockReading]:
    """Draw and score every pair for every block; ``settings.batch_size`` pictures go through the UNet in one pass.

    With a batch size of the number of blocks + 2, one pass holds all pictures of a pair. A picture depends on the
    batch size only within rounding.

    Args:
        model: What draws.
        judge: What compares pictures and texts.
        pairs: Prompts and seeds.
        settings: How to draw; guidance leads away from the negative prompt in all blocks alike.
        blocks: Names as `probed_blocks` gives them, no block in two of them.
        on_step: Called after each denoising step with the number of pictures finished, and of all.

    Returns:
        One reading for each pair, seed and block, in that order.

    Raises:
        SettingsError: The settings do not fit the model.
        OutOfMemoryError: A batch does not fit on the device.
        BloraError: A score came out not finite.
    """
    faults = model_faults(model, settings, "model")
    if faults:
        raise SettingsError(faults)
    rows = [
        _Drawing(number, seed, where)
        for number, pair in enumerate(pairs)
        for seed in pair.seeds
        for where in (_NOWHERE, _EVERYWHERE, *blocks)
    ]
    scores: dict[_Drawing, float] = {}
    for start in range(0, len(rows), settings.batch_size):
        batch = rows[start : start + settings.batch_size]

        def step(number: int, steps: int, start: int = start, size: int = len(batch)) -> None:
            if on_step:
                on_step(start + size * (number == steps), len(rows))

        with fits_device("the probe", len(batch), settings):
            pictures = model.decode(_draw(model, pairs, batch, settings, step))
        texts = judge.embed_texts([pairs[row.pair].q for row in batch])
        values = (judge.extract(list(pictures)).content * texts).sum(dim=1)
        scores |= zip(batch, values.tolist(), strict=True)
    bad = [row for row, value in scores.items() if not np.isfinite(value)]
    if bad:
        finer = {"fp16": "bf16 or fp32", "bf16": "fp32"}.get(settings.precision)
        hint = f"precision is {settings.precision}: " + (
            f"use {finer}" if finer else "look at the base model's weights"
        )
        raise BloraError("scores are not finite", f"{len(bad)} of {len(rows)}", "finite scores", str(bad[0]), hint)
    return [
        BlockReading(
            row.pair,
            row.seed,
            row.where,
            score,
            scores[_Drawing(row.pair, row.seed, _NOWHERE)],
            scores[_Drawing(row.pair, row.seed, _EVERYWHERE)],
        )
        for row, score in scores.items()
        if row.where not in (_NOWHERE, _EVERYWHERE)
    ]


@torch.no_grad()
def _draw(
    model: Model,
    pairs: Sequence[ProbePair],
    rows: Sequence[_Drawing],
    settings: SampleSettings,
    step: Callable[[int, int], None],
) -> Tensor:
    """Return the latents of one batch (rows, channels, height, width) fp32."""
    everywhere = [pairs[row.pair].q if row.where == _EVERYWHERE else pairs[row.pair].p for row in rows]
    own, told = model.encode_prompts(everywhere), model.encode_prompts([pairs[row.pair].q for row in rows])
    negative = model.encode_negative_prompts([settings.negative_prompt] * len(rows))
    by_block = {}
    for block in dict.fromkeys(row.where for row in rows if row.where not in (_NOWHERE, _EVERYWHERE)):
        here = torch.tensor([row.where == block for row in rows], device=model.device)[:, None, None]
        by_block[block] = beside(model, torch.where(here, told.hidden, own.hidden), negative.hidden, settings)
    hidden = beside(model, own.hidden, negative.hidden, settings)
    pooled = beside(model, own.pooled, negative.pooled, settings)
    return denoise(model, hidden, pooled, [row.seed for row in rows], settings, step, by_block)
