"""The denoising loop that every picture goes through, whatever the UNet carries or is told: noise in, latents out.

With guidance each picture has two neighbouring rows, first the negative prompt's, then its own.

Source: classifier-free guidance as in Ho & Salimans 2022, at chosen noise levels alone as in arXiv 2404.07724.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from blora.errors import OutOfMemoryError, SettingFault
from blora.models.passes.execution import current
from blora.models.passes.prompt_cache import fixed_prompts
from blora.models.passes.two_prompts import two_prompts
from blora.sampling.scheduler import Sampler, generator_of, make_sampler
from blora.settings.sampling import SampleSettings

if TYPE_CHECKING:
    from blora.models.families.text_encoders import PromptEmbeddings

__all__ = [
    "Model",
    "beside",
    "count_passes",
    "denoise",
    "fits_device",
    "is_guided",
    "latent_shape",
    "model_faults",
    "sampler_of",
    "too_large",
]


class Model(Protocol):
    """What drawing asks of a model; `blora.models.model.Base` and `blora.probe.plain_unets.PlainBase` have it.

    Attributes:
        unet: The denoiser, as diffusers builds it.
        device: Where it runs.
        dtype: Its number format.
        precision: The same as settings name it.
        scheduler_config: The base's scheduler configuration, with its class under ``_class_name``.
        latent_channels: Channels of a latent.
        vae_scale_factor: Pixels per latent, along a side.
    """

    unet: Any
    device: torch.device
    dtype: torch.dtype
    precision: Any
    scheduler_config: dict[str, Any]
    latent_channels: int
    vae_scale_factor: int

    def encode_prompts(self, prompts: Sequence[str]) -> PromptEmbeddings:
        """Embed prompts, independently of each other."""
        ...

    def encode_negative_prompts(self, prompts: Sequence[str]) -> PromptEmbeddings:
        """Embed what guidance leads away from."""
        ...

    @property
    def guides_by_rows(self) -> bool:
        """Whether a guided picture has a negative row beside its own; else the denoiser is told the scale."""
        ...

    @property
    def drawn_multiple_px(self) -> int:
        """Sides of pictures are multiples of it."""
        ...

    def conditions(
        self, pooled: Tensor, height_px: int, width_px: int, guidance_scale: float = 1.0
    ) -> dict[str, Tensor] | None:
        """Return what the denoiser is told beside the prompt's tokens, if anything."""
        ...

    def predict(self, noisy: Tensor, told: Tensor, hidden: Tensor, conditions: Mapping[str, Tensor] | None) -> Tensor:
        """Call the denoiser once: latents, timestep, tokens and conditions to a prediction of the latents' shape."""
        ...

    def timing(self, steps: int, height_px: int, width_px: int) -> dict[str, Any]:
        """Return what a scheduler is told beside the steps, for pictures of a size."""
        ...

    def decode(self, latents: Tensor) -> NDArray[np.uint8]:
        """Decode latents to pictures (n, height, width, 3) uint8."""
        ...


def is_guided(model: Model, settings: SampleSettings) -> bool:
    """Whether each picture has a negative row beside its own."""
    return settings.guidance_scale > 1 and model.guides_by_rows


def beside(model: Model, own: Tensor, negative: Tensor, settings: SampleSettings) -> Tensor:
    """Return the denoiser's rows: ``own`` (pictures, …) as they are, or with guidance each after its negative."""
    return torch.stack([negative, own], dim=1).flatten(0, 1) if is_guided(model, settings) else own


def latent_shape(model: Model, settings: SampleSettings) -> tuple[int, int, int]:
    """Return channels, height and width of one latent."""
    factor = model.vae_scale_factor
    return model.latent_channels, settings.height_px // factor, settings.width_px // factor


def sampler_of(model: Model, settings: SampleSettings) -> Sampler:
    """Build the sampler of one batch; raises as `make_sampler` does."""
    timing = model.timing(settings.steps, settings.height_px, settings.width_px)
    config, options = model.scheduler_config, settings.scheduler_options
    return make_sampler(config, settings.scheduler, settings.steps, model.device, options, timing)


def denoise(
    model: Model,
    hidden: Tensor,
    pooled: Tensor,
    seeds: Sequence[int],
    settings: SampleSettings,
    on_step: Callable[[int, int], None],
    hidden_by_block: Mapping[str, Tensor] | None = None,
    steer: Callable[[Tensor, Tensor, float], Tensor] | None = None,
    on_rows: Callable[[bool], None] = lambda guided: None,
) -> Tensor:
    """Draw the latents of one batch.

    Args:
        model: What draws, with whatever has been put into its UNet.
        hidden: Prompts (rows, tokens, context), rows as `beside` lays them.
        pooled: The same prompts pooled (rows, width).
        seeds: One a picture, of its own generator.
        settings: How to draw.
        on_step: Called after each step with the number of steps done, and of all.
        hidden_by_block: What some blocks see instead, by their name; see `fixed_prompts` (a UNet) and `two_prompts`.
        steer: Changes each step's prediction, given what the UNet saw and its share of signal; see `palette_guidance`.
        on_rows: Called before the first step and wherever the rows of the coming passes change: whether each picture
            has its negative row beside its own, or is alone.

    Returns:
        (pictures, channels, height, width) fp32.
    """
    conditions = model.conditions(pooled, settings.height_px, settings.width_px, settings.guidance_scale)
    sampler = sampler_of(model, settings)
    generators = [generator_of(seed) for seed in seeds]
    shape = latent_shape(model, settings)
    noise = torch.stack([torch.randn(shape, generator=generator) for generator in generators])
    latents = sampler.first(noise.to(model.device))
    done = 0
    for guided, timesteps in _stretches(sampler, settings, is_guided(model, settings)):
        rows = slice(1, None, 2) if is_guided(model, settings) and not guided else slice(None)  # own rows alone, or all
        told = {name: value[rows] for name, value in conditions.items()} if conditions else conditions
        by_block = {block: own[rows] for block, own in (hidden_by_block or {}).items()}
        on_rows(guided)
        heard = fixed_prompts(model.unet, hidden[rows], by_block), two_prompts(model.unet, hidden[rows], by_block)
        with current(model.device), heard[0], heard[1]:
            for timestep in timesteps:
                scaled = sampler.scale(latents, timestep).to(model.dtype)
                given = beside(model, scaled, scaled, settings) if guided else scaled
                prediction = model.predict(given, timestep, hidden[rows], told).float()
                if guided:
                    negative, own = prediction[0::2], prediction[1::2]
                    prediction = negative + settings.guidance_scale * (own - negative)
                if steer is not None:
                    prediction = steer(prediction, scaled.float(), sampler.signal(timestep))
                latents = sampler.step(prediction, timestep, latents, generators)
                done += 1
                on_step(done, len(sampler.timesteps))
    return latents


def count_passes(scheduler_config: Mapping[str, Any], settings: SampleSettings) -> int:
    """Return how often one picture goes through a UNet: once a timestep, and once more where it is guided.

    Raises:
        SettingsError: No such scheduler, or it does not fit the configuration.
    """
    sampler = make_sampler(scheduler_config, settings.scheduler, settings.steps, options=settings.scheduler_options)
    stretches = _stretches(sampler, settings, settings.guidance_scale > 1)
    return sum(len(timesteps) * (2 if guided else 1) for guided, timesteps in stretches)


def _stretches(sampler: Sampler, settings: SampleSettings, by_rows: bool) -> Iterator[tuple[bool, list[Tensor]]]:
    """The timesteps in their order, those together that are all guided or all not."""
    timesteps = list(sampler.timesteps)
    guided = [by_rows] * len(timesteps)
    if by_rows and settings.guidance_interval:
        low, high = settings.guidance_interval
        guided = [low < sampler.sigma(timestep) <= high for timestep in timesteps]
    for answer, stretch in groupby(zip(guided, timesteps, strict=True), key=itemgetter(0)):
        yield answer, [timestep for _, timestep in stretch]


@contextmanager
def fits_device(what: str, pictures: int, settings: SampleSettings) -> Iterator[None]:
    """Turn a lack of memory inside the block into an error that says what to do."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise too_large(what, pictures, settings) from error


def too_large(what: str, pictures: int, settings: SampleSettings) -> OutOfMemoryError:
    """Return what to say of pictures that do not fit."""
    received = f"{pictures} of {settings.width_px} x {settings.height_px} px in {settings.precision}"
    fewer = "a smaller sample.batch_size, " if pictures > 1 else ""
    hint = f"use {fewer}smaller pictures or precision bf16, or end what else is on the device"
    return OutOfMemoryError(f"{what} does not fit on the device", received, hint=hint)


def model_faults(model: Model, settings: SampleSettings, name: str) -> list[SettingFault]:
    """Return what of the settings does not fit the model, which the faults call by ``name``."""
    unheard = {} if model.guides_by_rows else settings.of_a_negative_row()
    what = f"the {name} has no negative row to guide by"
    faults = [
        SettingFault(f"sample.{field}", what, repr(value), hint="leave it out") for field, value in unheard.items()
    ]
    if settings.precision != model.precision:
        hint = f"load the {name} with precision {settings.precision}"
        faults.append(SettingFault("sample.precision", f"not the {name}'s", settings.precision, model.precision, hint))
    for side in ("width_px", "height_px"):
        value = getattr(settings, side)
        if value % model.drawn_multiple_px:
            accepted = f"a multiple of {model.drawn_multiple_px}"
            faults.append(SettingFault(f"sample.{side}", f"does not fit the {name}'s latents", str(value), accepted))
    return faults
