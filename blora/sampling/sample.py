"""Draw a batch of combinations in one pass: every row has its own adapters, strengths, prompts and seed.

    pictures = sample(base, [Draw(pepper.content, wave.style, "A [c] in [s] style", seed=0)], settings.sample)

A picture does not depend on the other rows of its batch: bit-equal if rows are exchanged while their number, the
picture size and the largest rank stay, and within rounding across batch sizes (test_sample.py states it).
It is what diffusers' StableDiffusionXLPipeline gives for the same weights, prompt, strength and noise.

Source: arXiv 2403.14572, sections 4.2 and 5 (the uses); classifier-free guidance as in Ho & Salimans 2022.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from blora.errors import BloraError, OutOfMemoryError
from blora.models.model import Base
from blora.models.passes.execution import compiled_blocks
from blora.sampling.denoise import beside, denoise, latent_shape, too_large
from blora.sampling.draw import Draw, check_draws, content_blocks, misfit, prompts_of
from blora.sampling.palette_guidance import steering_of
from blora.sampling.picture_rows import inject_draws
from blora.sampling.step_report import SampleReport, StepCounter
from blora.settings.sampling import SampleSettings

__all__ = ["sample", "sample_each", "sample_latents"]

_LOG = logging.getLogger("blora")

_FINITE_HINTS: Final = {
    "fp16": "use precision bf16 or fp32, a lower strength, or another adapter",
    "bf16": "use precision fp32, a lower strength, or another adapter",
    "fp32": "use a lower strength, or another adapter",
}


def sample(
    base: Base,
    draws: Sequence[Draw],
    settings: SampleSettings,
    *,
    on_step: Callable[[SampleReport], None] | None = None,
) -> list[NDArray[np.uint8]]:
    """Draw pictures, ``settings.batch_size`` at a time in the order given; fewer where they do not fit on the device.

    Args:
        base: Loaded with the precision that the settings name; its UNet is left as it was found.
        draws: What to draw.
        settings: What all pictures share.
        on_step: Called after each denoising step.

    Returns:
        One picture a draw, (height, width, 3) uint8.

    Raises:
        SettingsError: The settings or a draw do not fit the base.
        KeyMismatchError: An adapter lacks the half that it is drawn with.
        OutOfMemoryError: One picture alone does not fit on the device.
        BloraError: A picture came out not finite.
    """
    pictures = []
    for draw, latent in zip(draws, sample_latents(base, draws, settings, on_step=on_step), strict=True):
        picture = _finished(base, draw, latent, settings)
        if isinstance(picture, BloraError):
            raise picture
        pictures.append(picture)
    return pictures


def sample_each(
    base: Base,
    draws: Sequence[Draw],
    settings: SampleSettings,
    *,
    on_step: Callable[[SampleReport], None] | None = None,
) -> list[NDArray[np.uint8] | BloraError]:
    """Draw pictures as `sample` does; one that cannot be drawn is an error in its place, and no harm to the others.

    That is a picture that comes out not finite, one of whose adapters lacks the half that it is drawn with, or one that
    does not fit on the device even alone and decoded in tiles. A row is drawn all the same, without its adapters where
    they do not fit, so that the others keep the layout they had.

    Raises:
        SettingsError: The settings or a draw do not fit the base.
    """
    check_draws(base, draws, settings)
    misfits = [misfit(base, draw) for draw in draws]
    rows = [replace(draw, content=None, style=None) if bad else draw for draw, bad in zip(draws, misfits, strict=True)]
    drawn: list[NDArray[np.uint8] | BloraError] = []
    for start, latents in _batches(base, rows, settings, on_step):
        if isinstance(latents, OutOfMemoryError):
            drawn.append(misfits[start] or latents)
            continue
        for number, latent in enumerate(latents, start):
            error = misfits[number] or _not_finite(base, latent)
            drawn.append(error or _finished(base, draws[number], latent, settings))
    return drawn


def sample_latents(
    base: Base,
    draws: Sequence[Draw],
    settings: SampleSettings,
    *,
    on_step: Callable[[SampleReport], None] | None = None,
) -> Tensor:
    """Draw pictures as `sample` does, but leave them as latents, (draws, channels, height, width) fp32.

    Colours are not transferred, which is done on pictures; guidance towards a palette is.
    """
    check_draws(base, draws, settings)
    drawn = [torch.empty(0, *latent_shape(base, settings), device=base.device)]
    for start, latents in _batches(base, draws, settings, on_step):
        if isinstance(latents, OutOfMemoryError):
            raise latents
        bad = [row for row, latent in enumerate(latents, start) if _not_finite(base, latent)]
        if bad:
            received = f"draws {bad} in {base.precision}"
            raise BloraError(
                "pictures came out not finite", received, "finite latents", "", _FINITE_HINTS[base.precision]
            )
        drawn.append(latents)
    return torch.cat(drawn)


def _batches(
    base: Base, draws: Sequence[Draw], settings: SampleSettings, on_step: Callable[[SampleReport], None] | None
) -> Iterator[tuple[int, Tensor | OutOfMemoryError]]:
    """Denoise batch by batch; yields the number of a batch's first draw, and its latents.

    A batch that does not fit is tried again in halves; of one draw that does not fit even alone, yields the error.
    """
    base.remember_prompts(prompts_of(draws, settings))
    progress = StepCounter(len(draws), settings.batch_size, on_step)
    start = 0
    while start < len(draws):
        rows = draws[start : start + progress.at_once]
        try:
            latents: Tensor | OutOfMemoryError | None = _denoise(base, rows, settings, progress)
        except torch.OutOfMemoryError:
            latents = None
        if latents is None:  # outside the handler, so that what the failed attempt held is gone
            made_room = base.make_room()
            if len(rows) > 1 or made_room:
                progress.at_once = -(-len(rows) // 2)
                _LOG.info("%d pictures do not fit on the device: %d at once from here on", len(rows), progress.at_once)
                continue
            latents = too_large("drawing a picture", 1, settings)
        yield start, latents
        start += len(rows)


def _finished(base: Base, draw: Draw, latent: Tensor, settings: SampleSettings) -> NDArray[np.uint8] | OutOfMemoryError:
    """A draw's picture, with the colours that it asks for."""
    try:
        picture = base.decode(latent[None])[0]
    except torch.OutOfMemoryError:
        return too_large("decoding a picture", 1, settings)
    return draw.palette.applied(picture) if draw.palette else picture


@torch.no_grad()
def _denoise(base: Base, draws: Sequence[Draw], settings: SampleSettings, progress: StepCounter) -> Tensor:
    """Return the latents of one batch, (pictures, channels, height, width) fp32."""
    hidden, pooled, hidden_by_block = _embed(base, draws, settings)

    def step(number: int, steps: int) -> None:
        progress.step(number, steps, len(draws))

    def lay_rows(guided: bool) -> None:
        for one in injected:
            one.lay([settings.guidance_from == "adapted", True] if guided else [True])

    with ExitStack() as changes:
        injected = inject_draws(changes, base, draws)
        if settings.execution == "compiled":
            changes.enter_context(compiled_blocks(base.unet))
        steer = steering_of(base, [draw.palette for draw in draws], settings)
        seeds = [draw.seed for draw in draws]
        return denoise(base, hidden, pooled, seeds, settings, step, hidden_by_block, steer, lay_rows)


def _embed(base: Base, draws: Sequence[Draw], settings: SampleSettings) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Return hidden and pooled of all rows, and by block what it sees instead, if any row has a prompt for it."""
    own = base.encode_prompts([draw.prompt for draw in draws])
    negative = base.encode_negative_prompts([draw.negative_prompt or settings.negative_prompt for draw in draws])
    hidden = beside(base, own.hidden, negative.hidden, settings)
    pooled = beside(base, own.pooled, negative.pooled, settings)
    if all(draw.content_prompt is None for draw in draws):
        return hidden, pooled, {}
    blocks = [content_blocks(base, draw) if draw.content_prompt is not None else () for draw in draws]
    by_block = {}
    for block in dict.fromkeys(block for named in blocks for block in named):
        texts = [
            draw.content_prompt or "" if block in named else draw.prompt
            for draw, named in zip(draws, blocks, strict=True)
        ]
        by_block[block] = beside(base, base.encode_prompts(texts).hidden, negative.hidden, settings)
    return hidden, pooled, by_block


def _not_finite(base: Base, latent: Tensor) -> BloraError | None:
    """What to say of a picture that would come out black."""
    if bool(torch.isfinite(latent).all()):
        return None
    return BloraError(
        "the picture came out not finite", f"in {base.precision}", "finite latents", "", _FINITE_HINTS[base.precision]
    )
