"""One training step of a pack: from random numbers to losses and gradients.

The UNet is frozen, so autograd records nothing before the first adapted layer: the down and middle blocks, 43 % of a
forward pass of SDXL, run as in inference and keep no activations.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from diffusers import DDPMScheduler
from torch import Tensor

from blora.base import Base
from blora.config import TrainSettings
from blora.optim import FlatFactors
from blora.packed import Rows, inject
from blora.prepare import Noise, Photo

__all__ = ["Stepper"]

_LOG = logging.getLogger("blora")


class Stepper:
    """The pack inside the UNet: turns one step's random numbers into losses and gradients."""

    def __init__(
        self, base: Base, photos: Sequence[tuple[Photo, ...]], factors: FlatFactors, settings: TrainSettings
    ) -> None:
        """Inject the pack; `__exit__` takes it out again.

        Args:
            base: Its UNet is borrowed.
            photos: The photos of each adapter.
            factors: The pack's weights.
            settings: The recipe.
        """
        self.base, self.photos, self.factors, self.settings = base, photos, factors, settings
        embeddings = base.encode_prompts([settings.prompt])
        base.release_encoders()
        self.hidden, self.pooled = embeddings.hidden, embeddings.pooled
        schedulers: Any = DDPMScheduler  # diffusers' configuration mixin has no types
        keep: Tensor = schedulers.from_config(base.scheduler_config).alphas_cumprod.to(base.device)
        self.signal, self.sigma = keep.sqrt(), (1 - keep).sqrt()
        self.rows = Rows.regular(len(photos), settings.batch_size, settings.scale, base.device)
        self.layout = [index for index in range(len(photos)) for _ in range(settings.batch_size)]
        self.injection = inject(base.unet, factors.layers, self.rows)
        if settings.checkpointing == "on":
            base.unet.enable_gradient_checkpointing()

    def __enter__(self) -> Stepper:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the UNet as it was found."""
        self.injection.eject()
        self.base.unet.disable_gradient_checkpointing()

    @property
    def timesteps(self) -> int:
        """Length of the diffusion."""
        return len(self.signal)

    def run(self, draws: Sequence[Sequence[Noise]], loss_scales: Sequence[float]) -> tuple[list[float], list[float]]:
        """Fill the gradients, each adapter's multiplied by its loss scale.

        Args:
            draws: The random numbers of each adapter's rows.
            loss_scales: One for each adapter.

        Returns:
            Each adapter's loss, and the norm of its gradient without the scale.
        """
        try:
            return self._run(draws, loss_scales)
        except torch.OutOfMemoryError:
            if self.settings.checkpointing != "auto" or self.base.unet.is_gradient_checkpointing:
                raise
        # Outside the handler, so that the failed attempt's activations are gone. The same numbers are used again.
        _LOG.info("not enough memory to keep activations: they are recomputed from here on")
        self.base.unet.enable_gradient_checkpointing()
        return self._run(draws, loss_scales)

    def _run(self, draws: Sequence[Sequence[Noise]], loss_scales: Sequence[float]) -> tuple[list[float], list[float]]:
        self.factors.grads.zero_()
        by_shape = defaultdict(list)  # one shape, unless pictures are not cropped
        for index, rows in enumerate(draws):
            for noise in rows:
                by_shape[noise.noise.shape].append((index, noise))
        losses = [0.0] * len(draws)
        for group in by_shape.values():
            layout = [index for index, _ in group]
            if layout != self.layout:
                self.layout = layout
                self.rows.set(layout, self.settings.scale, count=len(draws), device=self.base.device)
            row_losses = self._losses(group)
            weights = torch.tensor([loss_scales[index] / self.settings.batch_size for index in layout])
            self.factors.backward((row_losses * weights.to(row_losses.device)).sum())
            for index, loss in zip(layout, row_losses.tolist(), strict=True):
                losses[index] += loss / self.settings.batch_size
        norms = self.factors.grads.norm(dim=1).tolist()
        return losses, [norm / scale for norm, scale in zip(norms, loss_scales, strict=True)]

    def _losses(self, group: Sequence[tuple[int, Noise]]) -> Tensor:
        """Return the mean squared error of each row, (rows,) fp32."""
        device, count = self.base.device, len(group)
        photos = [self.photos[index][noise.photo] for index, noise in group]
        timesteps = torch.tensor([noise.timestep for _, noise in group], device=device)
        noise = torch.stack([one.noise for _, one in group]).to(device)
        posterior = torch.stack([one.posterior for _, one in group]).to(device)
        latents = torch.cat([p.mean for p in photos]) + torch.cat([p.std for p in photos]) * posterior
        signal, sigma = self.signal[timesteps, None, None, None], self.sigma[timesteps, None, None, None]
        target = noise if self.base.prediction_type == "epsilon" else signal * noise - sigma * latents
        with torch.enable_grad():
            predicted: Tensor = self.base.unet(
                (signal * latents + sigma * noise).to(self.base.dtype),
                timesteps,
                encoder_hidden_states=self.hidden.expand(count, -1, -1),
                added_cond_kwargs={
                    "text_embeds": self.pooled.expand(count, -1),
                    "time_ids": torch.cat([p.time_ids for p in photos]),
                },
            ).sample
            return (predicted.float() - target).square().mean(dim=(1, 2, 3))
