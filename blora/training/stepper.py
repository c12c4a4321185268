"""One training step of a pack: from random numbers to losses and gradients.

The UNet is frozen, so autograd records nothing before the first adapted layer: the down and middle blocks, 43 % of a
forward pass of SDXL, run as in inference and keep no activations. Adapters of one image that share their random numbers
go through these blocks as one row. Nothing here waits for the device.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack

import torch
from torch import Tensor

from blora.adapters.blocks import block_of, front_is_frozen
from blora.adapters.packed import Rows, inject
from blora.models.families.family import TRAINED_GUIDANCE
from blora.models.model import Base
from blora.models.passes.execution import Graphs, compiled_blocks, shared_front, to_device
from blora.models.passes.front import KeptFronts, front_of, rest_of
from blora.models.passes.prompt_cache import fixed_prompts
from blora.settings.training import TrainSettings
from blora.training.noise import Noise
from blora.training.optim import FlatFactors
from blora.training.photos import Photo

__all__ = ["Stepper"]

_LOG = logging.getLogger("blora")


class Stepper:
    """The pack inside the UNet: turns one step's random numbers into losses and gradients."""

    def __init__(
        self,
        base: Base,
        photos: Sequence[tuple[Photo, ...]],
        factors: FlatFactors,
        settings: TrainSettings,
        prompts: Sequence[str] = (),
    ) -> None:
        """Inject the pack; `__exit__` takes it out again.

        Args:
            base: Its UNet is borrowed.
            photos: The photos of each adapter.
            factors: The pack's weights, in the UNet's number format.
            settings: The recipe.
            prompts: What each adapter is trained with; empty for the settings' prompt.
        """
        self.base, self.photos, self.factors, self.settings = base, photos, factors, settings
        told = list(prompts) or [settings.prompt] * len(photos)
        unique = list(dict.fromkeys(told))
        embeddings = [base.encode_prompts([prompt]) for prompt in unique]  # one by one: the same bits in any pack
        base.release_encoders()
        self.hidden = torch.cat([prompt.hidden for prompt in embeddings])
        self.pooled = torch.cat([prompt.pooled for prompt in embeddings])
        self.told = [unique.index(prompt) for prompt in told]
        course = base.family.course(base.scheduler_config)
        self.signal, self.sigma = course.signal.to(base.device), course.sigma.to(base.device)
        self.told_times = course.told.to(base.device)
        self.shifts = [[self._shift(photo) for photo in seen] for seen in photos]
        self.layout = [index for index in range(len(photos)) for _ in range(settings.batch_size)]
        self.rows = Rows.regular(len(photos), settings.batch_size, settings.scale, base.device)  # of the style's half
        self.content_rows = Rows.regular(len(photos), settings.batch_size, settings.scale, base.device)
        self._alone = [False] * len(self.layout)  # rows of the style alone
        self._shares_front = base.family.shares_front and front_is_frozen(factors.layers)
        self._fronts: dict[tuple[int, ...], Tensor] = {}
        self._graphs = Graphs() if settings.execution.endswith("graph") else None
        place = torch.device("cpu") if settings.front_place == "host" else base.device
        self._kept = KeptFronts(place, base.device) if settings.front_pool else None
        with ExitStack() as changes:
            gains = {name: float(settings.constrained(name)) for name in factors.layers}
            for name, pair in factors.layers.items():
                rows = self.content_rows if block_of(name, settings.split) == "content" else self.rows
                changes.enter_context(inject(base.unet, {name: pair}, rows, gains))
            if len(unique) == 1:  # else keys and values are computed in each step: rows in no fixed order need theirs
                changes.enter_context(fixed_prompts(base.unet, self.hidden, rows=len(self.layout)))
            if settings.execution.startswith("compiled"):
                changes.enter_context(compiled_blocks(base.unet))
            changes.callback(base.unet.disable_gradient_checkpointing)
            self._changes = changes.pop_all()
        if settings.checkpointing == "on":
            base.unet.enable_gradient_checkpointing()

    def __enter__(self) -> Stepper:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the UNet as it was found."""
        self._changes.close()

    @property
    def timesteps(self) -> int:
        """Length of the diffusion."""
        return len(self.signal)

    def _shift(self, photo: Photo) -> float:
        """How far a photo's timesteps are moved towards noise."""
        if self.settings.timestep_shift != "resolution":
            return self.settings.timestep_shift
        height, width = photo.mean.shape[-2:]
        return self.base.family.noise_shift(self.base.scheduler_config, height, width)

    def run(self, draws: Sequence[Sequence[Noise]], loss_scales: Sequence[float]) -> tuple[Tensor, Tensor]:
        """Fill the gradients, each adapter's multiplied by its loss scale.

        Args:
            draws: The random numbers of each adapter's rows; rows with the very same `Noise`, `Photo` and prompt go
                through the frozen front as one.
            loss_scales: One for each adapter.

        Returns:
            Each adapter's loss, and the norm of its gradient without the scale; both (adapters,) fp32 on the device,
            where they may still be under way.
        """
        try:
            return self._run(draws, loss_scales)
        except torch.OutOfMemoryError:
            recomputing = self.settings.checkpointing != "auto" or self.base.unet.is_gradient_checkpointing
            if recomputing or len(self.photos) > 1:  # smaller packs cost less than recomputing
                raise
        # Outside the handler, so that the failed attempt's activations are gone. The same numbers are used again.
        _LOG.info("not enough memory to keep activations: they are recomputed from here on")
        if self._graphs:
            self._graphs.clear()
        self.base.make_room()
        self.base.unet.enable_gradient_checkpointing()
        return self._run(draws, loss_scales)

    def _run(self, draws: Sequence[Sequence[Noise]], loss_scales: Sequence[float]) -> tuple[Tensor, Tensor]:
        self.factors.refresh()
        by_shape: dict[torch.Size, list[tuple[int, Noise]]] = {}  # one shape, unless pictures are not cropped
        for index, rows in enumerate(draws):
            for noise in rows:
                by_shape.setdefault(noise.noise.shape, []).append((index, noise))
        device, batch_size = self.base.device, self.settings.batch_size
        losses = torch.zeros(len(draws), device=device)
        for number, group in enumerate(by_shape.values()):
            layout = [index for index, _ in group]
            alone = [self.photos[index][noise.photo].style_alone for index, noise in group]
            if layout != self.layout:
                self.rows.set(layout, self.settings.scale, count=len(draws), device=device)
            if (layout, alone) != (self.layout, self._alone):
                strengths = [0.0 if without else self.settings.scale for without in alone]
                self.content_rows.set(layout, strengths, count=len(draws), device=device)
            self.layout, self._alone = layout, alone
            weights = to_device(torch.tensor([loss_scales[index] / batch_size for index in layout]), device)
            row_losses = self._backward(group, weights, add=number > 0)
            losses.index_add_(0, to_device(torch.tensor(layout), device), row_losses / batch_size)
        scales = to_device(torch.tensor(loss_scales, dtype=torch.float32), device)
        return losses, self.factors.grads.norm(dim=1) / scales

    def _backward(self, group: Sequence[tuple[int, Noise]], weights: Tensor, *, add: bool) -> Tensor:
        """Fill the gradients with those of the weighted losses; return the mean squared error of each row, fp32."""
        device = self.base.device
        places: dict[tuple[int, int, int], int] = {}
        unique: list[tuple[int, Noise]] = []
        for index, noise in group:
            if places.setdefault(self._front_row(index, noise), len(unique)) == len(unique):
                unique.append((index, noise))
        spread = tuple(places[self._front_row(index, noise)] for index, noise in group)
        photos = [self.photos[index][noise.photo] for index, noise in unique]
        timesteps = to_device(torch.tensor([noise.timestep for _, noise in unique]), device)
        added = to_device(torch.stack([draw.noise for _, draw in unique]), device)
        posterior = to_device(torch.stack([draw.posterior for _, draw in unique]), device)
        latents = torch.cat([p.mean for p in photos]) + torch.cat([p.std for p in photos]) * posterior
        signal, sigma = self.signal[timesteps, None, None, None], self.sigma[timesteps, None, None, None]
        target = {
            "epsilon": lambda: added,
            "v_prediction": lambda: signal * added - sigma * latents,
            "flow": lambda: added - latents,
        }[self.base.prediction_type]()
        noisy, times = (signal * latents + sigma * added).to(self.base.dtype), self.told_times[timesteps]
        time_ids = torch.cat([p.time_ids for p in photos])
        told = to_device(torch.tensor([self.told[index] for index, _ in unique]), device)
        seen = (noisy,) if self._kept is None else self._fronts_of(self._kept, unique, noisy, times, time_ids, told)
        inputs = (target, weights, times, time_ids, told, *seen)
        shared = None
        if len(unique) < len(group):
            if spread not in self._fronts:
                self._fronts[spread] = to_device(torch.tensor(spread), device)
            shared = self._fronts[spread]

        def compute(*tensors: Tensor) -> Tensor:
            return self._compute(*tensors, shared=shared, add=add)

        if self._graphs is None:
            return compute(*inputs)
        return self._graphs.run((tuple(self.layout), spread, add, added.shape), compute, inputs)

    def _front_row(self, index: int, noise: Noise) -> tuple[int, int, int]:
        """What the frozen front is told of a row; rows that are told the same go through it as one, where they may."""
        told = self.told[index] if self._shares_front else -1 - index
        return id(noise), id(self.photos[index][noise.photo]), told

    def _fronts_of(
        self,
        kept: KeptFronts,
        unique: Sequence[tuple[int, Noise]],
        noisy: Tensor,
        times: Tensor,
        time_ids: Tensor,
        told: Tensor,
    ) -> tuple[Tensor, ...]:
        """Return what the front makes of each row; of those that come again, without computing it."""

        def compute(numbers: list[int]) -> tuple[Tensor, ...]:
            some = to_device(torch.tensor(numbers), self.base.device)
            hidden, conditions = self._conditions(told[some], time_ids[some])
            return front_of(self.base.unet, noisy[some], times[some], hidden, conditions)

        return kept.of([(index, noise, self.told[index]) for index, noise in unique], compute)

    def _conditions(self, told: Tensor, time_ids: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the prompts of some rows, and what else they are told."""
        hidden, pooled = (
            rows.expand(len(told), *rows.shape[1:]) if len(rows) == 1 else rows[told]
            for rows in (self.hidden, self.pooled)
        )
        return hidden, self.base.family.conditions(self.base.unet.config, pooled, time_ids, TRAINED_GUIDANCE)

    def _compute(
        self,
        target: Tensor,
        weights: Tensor,
        timesteps: Tensor,
        time_ids: Tensor,
        told: Tensor,
        *seen: Tensor,
        shared: Tensor | None,
        add: bool,
    ) -> Tensor:
        """Go through the UNet and back; all that a graph of the device's work holds.

        What it sees is the noisy latents, or what the front has made of them.
        """
        with torch.enable_grad(), shared_front(self.base.unet, shared, len(target)) as wide:
            hidden, conditions = self._conditions(told, time_ids)
            if self._kept is None:
                predicted = self.base.predict(seen[0], timesteps, hidden, conditions)
            else:
                predicted = rest_of(self.base.unet, seen, timesteps, hidden, conditions)
            row_losses = (predicted.float() - wide(target)).square().mean(dim=(1, 2, 3))
            self.factors.backward((row_losses * weights).sum(), add=add, whole=not self.content_rows.idle)
        return row_losses.detach()
