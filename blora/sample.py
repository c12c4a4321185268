"""Draw a batch of combinations in one pass: every row has its own adapters, strengths, prompts and seed.

    pictures = sample(base, [Draw(pepper.content, wave.style, "A [c] in [s] style", seed=0)], settings.sample)

A picture does not depend on the other rows of its batch: bit-equal if rows are exchanged while their number, the
picture size and the largest rank stay, and within rounding across batch sizes (stated in tests/blora/test_sample.py).
It is what diffusers' StableDiffusionXLPipeline gives for the same weights, prompt, strength and noise.

Source: arXiv 2403.14572, sections 4.2 and 5 (the uses); classifier-free guidance as in Ho & Salimans 2022.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Final, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from blora.adapter import Adapter
from blora.base import Base
from blora.blocks import BLOCKS, Half, target_layers
from blora.config import SampleSettings
from blora.denoise import beside, denoise, fits_device, is_guided, latent_shape, model_faults
from blora.errors import BloraError, KeyMismatchError, SettingFault, SettingsError
from blora.execution import compiled_blocks
from blora.packed import Rows, inject, stack
from blora.recolour import Palette
from blora.steering import steering_of

__all__ = ["Draw", "SampleReport", "sample", "sample_each", "sample_latents"]

_FINITE_HINT: Final = "use precision bf16 or fp32, a lower strength, or another adapter"


@dataclass(frozen=True, eq=False)
class Draw:
    """One picture to draw.

    Attributes:
        content: Adapter whose content half is used; None for what the prompt says.
        style: Adapter whose style half is used; None for none.
        prompt: Goes into all blocks.
        seed: Of the picture's own generator, from 0, which is a seed like any other.
        content_strength: Factor of the content half's weight delta (linear; see `strength_from_reference`).
        style_strength: Factor of the style half's weight delta.
        content_prompt: If given, goes into the content block alone, instead of the prompt (complex scenes).
        negative_prompt: What guidance leads away from; empty for the settings' own.
        palette: Whose colours it gets, if not those that come; see `blora.recolour`.
        whole: Adapter of any layers, used whole, for comparisons; the draws of one batch need the same layers, and
            those may not be in a half that one of them uses, too.
    """

    content: Adapter | None
    style: Adapter | None
    prompt: str
    seed: int
    content_strength: float = 1.0
    style_strength: float = 1.0
    content_prompt: str | None = None
    negative_prompt: str = ""
    palette: Palette | None = None
    whole: Adapter | None = None


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


def sample(
    base: Base,
    draws: Sequence[Draw],
    settings: SampleSettings,
    *,
    on_step: Callable[[SampleReport], None] | None = None,
) -> list[NDArray[np.uint8]]:
    """Draw pictures, ``settings.batch_size`` at a time in the order given.

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
        OutOfMemoryError: A batch does not fit on the device.
        BloraError: A picture came out not finite.
    """
    latents = sample_latents(base, draws, settings, on_step=on_step)
    return [_finished(base, draw, latent) for draw, latent in zip(draws, latents, strict=True)]


def sample_each(
    base: Base,
    draws: Sequence[Draw],
    settings: SampleSettings,
    *,
    on_step: Callable[[SampleReport], None] | None = None,
) -> list[NDArray[np.uint8] | BloraError]:
    """Draw pictures as `sample` does; one that cannot be drawn is an error in its place, and no harm to the others.

    That is a picture that comes out not finite, or one of whose adapters lacks the half that it is drawn with. Its row
    is drawn all the same, without its adapters where they do not fit, so that the others keep the layout they had.

    Raises:
        SettingsError: The settings or a draw do not fit the base.
        OutOfMemoryError: A batch does not fit on the device.
    """
    _check(base, draws, settings)
    misfits = [_misfit(base, draw) for draw in draws]
    rows = [replace(draw, content=None, style=None) if bad else draw for draw, bad in zip(draws, misfits, strict=True)]
    drawn: list[NDArray[np.uint8] | BloraError] = []
    for start, latents in _batches(base, rows, settings, on_step):
        for number, latent in enumerate(latents, start):
            if error := misfits[number] or _not_finite(base, latent):
                drawn.append(error)
            else:
                drawn.append(_finished(base, draws[number], latent))
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
    _check(base, draws, settings)
    drawn = [torch.empty(0, *latent_shape(base, settings), device=base.device)]
    for start, latents in _batches(base, draws, settings, on_step):
        bad = [row for row, latent in enumerate(latents, start) if _not_finite(base, latent)]
        if bad:
            received = f"draws {bad} in {base.precision}"
            raise BloraError("pictures came out not finite", received, "finite latents", "", _FINITE_HINT)
        drawn.append(latents)
    return torch.cat(drawn)


def _batches(
    base: Base, draws: Sequence[Draw], settings: SampleSettings, on_step: Callable[[SampleReport], None] | None
) -> Iterator[tuple[int, Tensor]]:
    """Denoise batch by batch; yields the number of a batch's first draw, and its latents."""
    progress = _Progress(len(draws), -(-len(draws) // settings.batch_size), on_step)
    for start in range(0, len(draws), settings.batch_size):
        yield start, _denoise(base, draws[start : start + settings.batch_size], settings, progress)


def _finished(base: Base, draw: Draw, latent: Tensor) -> NDArray[np.uint8]:
    """A draw's picture, with the colours that it asks for."""
    picture = base.decode(latent[None])[0]
    return draw.palette.applied(picture) if draw.palette else picture


class _Progress:
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


@torch.no_grad()
def _denoise(base: Base, draws: Sequence[Draw], settings: SampleSettings, progress: _Progress) -> Tensor:
    """Return the latents of one batch, (pictures, channels, height, width) fp32."""
    adapted = [settings.guidance_from == "adapted", True] if is_guided(settings) else [True]
    hidden, pooled, hidden_by_block = _embed(base, draws, settings)

    def step(_: int, steps: int) -> None:
        progress.step(steps, len(draws))

    with fits_device("sampling", len(draws), settings), ExitStack() as changes:
        for half in get_args(Half):
            adapters, strengths = _half_of(draws, half)
            _inject(changes, base, target_layers(base.unet, half), adapters, strengths, adapted)
        wholes = [draw.whole for draw in draws]
        named = dict.fromkeys(name for adapter in wholes if adapter for name in adapter.layers)
        _inject(changes, base, tuple(named), wholes, [1.0] * len(draws), adapted)
        if settings.execution == "compiled":
            changes.enter_context(compiled_blocks(base.unet))
        steer = steering_of(base, [draw.palette for draw in draws], settings)
        return denoise(base, hidden, pooled, [draw.seed for draw in draws], settings, step, hidden_by_block, steer)


def _embed(base: Base, draws: Sequence[Draw], settings: SampleSettings) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Return hidden and pooled of all rows, and by block what it sees instead, if any row has a prompt for it."""
    own = base.encode_prompts([draw.prompt for draw in draws])
    negative = base.encode_negative_prompts([draw.negative_prompt or settings.negative_prompt for draw in draws])
    hidden, pooled = beside(own.hidden, negative.hidden, settings), beside(own.pooled, negative.pooled, settings)
    if all(draw.content_prompt is None for draw in draws):
        return hidden, pooled, {}
    texts = [draw.prompt if draw.content_prompt is None else draw.content_prompt for draw in draws]
    return hidden, pooled, {BLOCKS["content"]: beside(base.encode_prompts(texts).hidden, negative.hidden, settings)}


def _half_of(draws: Sequence[Draw], half: Half) -> tuple[list[Adapter | None], list[float]]:
    """Each picture's adapter for a half, and its strength."""
    if half == "content":
        return [draw.content for draw in draws], [draw.content_strength for draw in draws]
    return [draw.style for draw in draws], [draw.style_strength for draw in draws]


def _inject(
    changes: ExitStack,
    base: Base,
    layers: Sequence[str],
    adapters: Sequence[Adapter | None],
    strengths: Sequence[float],
    adapted: Sequence[bool],
) -> None:
    """Put each picture's own adapter beside the layers; a picture without one borrows any at strength zero.

    Adapters that occur twice are stacked twice: the layers then always compute in the same order, whichever pictures
    share an adapter, and a row stays bit-equal when its neighbours change.

    Args:
        changes: Undoes the injection.
        base: Whose UNet is injected.
        layers: Their names.
        adapters: One a picture, or None.
        strengths: One a picture.
        adapted: For each of a picture's neighbouring rows, whether it feels the adapter.
    """
    present = [adapter for adapter in adapters if adapter is not None]
    if not present:
        return
    filled = [adapter or present[0] for adapter in adapters]
    weights = [strength if adapter else 0.0 for adapter, strength in zip(adapters, strengths, strict=True)]
    rows = Rows(
        [index for index in range(len(adapters)) for _ in adapted],
        [weight if feels else 0.0 for weight in weights for feels in adapted],
        count=len(adapters),
        device=base.device,
    )
    factors = stack(filled, layers, base.device, base.dtype)
    changes.enter_context(inject(base.unet, factors, rows))


def _check(base: Base, draws: Sequence[Draw], settings: SampleSettings) -> None:
    """Refuse what cannot be drawn, before anything is computed."""
    faults = model_faults(base, settings, "base")
    for number, draw in enumerate(draws):
        if not 0 <= draw.seed < 2**63:
            faults.append(SettingFault(f"draws[{number}].seed", "out of range", str(draw.seed), "0 to 2**63 - 1"))
        for name in ("content_strength", "style_strength"):
            if not np.isfinite(getattr(draw, name)):
                received = str(getattr(draw, name))
                faults.append(SettingFault(f"draws[{number}].{name}", "not finite", received, "a finite number"))
        if draw.palette and not 0 <= draw.palette.amount <= 1:
            received = str(draw.palette.amount)
            faults.append(SettingFault(f"draws[{number}].palette.amount", "out of range", received, "0 to 1"))
    if faults:
        raise SettingsError(faults)


def _misfit(base: Base, draw: Draw) -> KeyMismatchError | None:
    """Why a draw's adapters cannot be used, if they cannot."""
    for half, adapter in (("content", draw.content), ("style", draw.style)):
        lacking = [name for name in target_layers(base.unet, half) if adapter and name not in adapter.layers]
        if lacking:
            received = f"{len(lacking)} layers missing, such as {lacking[0]}"
            return KeyMismatchError("an adapter lacks a layer", received, f"an adapter with a {half} half")
    return None


def _not_finite(base: Base, latent: Tensor) -> BloraError | None:
    """What to say of a picture that would come out black."""
    if bool(torch.isfinite(latent).all()):
        return None
    return BloraError("the picture came out not finite", f"in {base.precision}", "finite latents", "", _FINITE_HINT)
