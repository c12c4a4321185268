"""The seam: what a kind of diffusion model answers, so that training, sampling and checks need not know which it is.

A family holds no weights. `blora.models.model.Base` asks it, with the denoiser that it has loaded; the names of a
family's layers are in `blora.adapters.blocks`, and what its folder must hold in `blora.bases.topology`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

import torch
from torch import Tensor

from blora.bases.locate import Located
from blora.models.families.text_encoders import TextEncoders

__all__ = ["TRAINED_GUIDANCE", "Course", "Family", "Objective"]

TRAINED_GUIDANCE: Final = 1.0
"""What a denoiser that is told of guidance is told while adapters train: none. Source: kohya-ss/sd-scripts, whose guide
for FLUX.1-dev says so; train_dreambooth_lora_flux.py of diffusers has a default of 3.5 and is otherwise followed."""

Objective = Literal["epsilon", "v_prediction", "flow"]
"""What the denoiser predicts: the noise; signal * noise - sigma * latents; or noise - latents."""


@dataclass(frozen=True, eq=False)
class Course:
    """How latents become noise in training: at timestep t the denoiser sees ``signal[t] * latents + sigma[t] * noise``.

    Attributes:
        signal: (timesteps,) fp32.
        sigma: (timesteps,) fp32, rising.
        told: (timesteps,): what the denoiser is told of each timestep.
    """

    signal: Tensor
    sigma: Tensor
    told: Tensor


class Family(Protocol):
    """One kind of diffusion model."""

    @property
    def part(self) -> str:
        """The folder of its denoiser."""
        ...

    @property
    def drawn_multiple(self) -> int:
        """Height and width of drawn latents are multiples of it."""
        ...

    @property
    def shares_front(self) -> bool:
        """Whether rows that are told the same may go as one through the blocks before the adapted ones."""
        ...

    @property
    def hears_by_block(self) -> bool:
        """Whether one block may be told another prompt than the others."""
        ...

    def denoiser_class(self) -> Any:
        """Return diffusers' class of the denoiser."""
        ...

    def encoders(self, located: Located, device: torch.device, dtype: torch.dtype) -> TextEncoders:
        """Return its text encoders, not loaded yet."""
        ...

    def latent_channels(self, config: Any) -> int:
        """Return the channels of a latent by the denoiser's configuration."""
        ...

    def trained_multiple(self, config: Any) -> int:
        """Return the latents that a side has at the denoiser's coarsest level: trained pictures are multiples."""
        ...

    def guides_by_rows(self, config: Any) -> bool:
        """Whether guidance is the difference of two rows; else the denoiser is told its scale, if anything."""
        ...

    def objective(self, scheduler: Mapping[str, Any]) -> Objective:
        """Return what the denoiser predicts, by the base's scheduler configuration."""
        ...

    def course(self, scheduler: Mapping[str, Any]) -> Course:
        """Return the noise of training, on the CPU."""
        ...

    def timing(self, scheduler: Mapping[str, Any], steps: int, height: int, width: int) -> dict[str, Any]:
        """Return what a scheduler's ``set_timesteps`` is told beside the steps, for latents of a size."""
        ...

    def noise_shift(self, scheduler: Mapping[str, Any], height: int, width: int) -> float:
        """Return how far drawing moves timesteps towards noise for latents of a size, beyond what `course` does."""
        ...

    def size_told(
        self, original_px: tuple[int, int], crop_px: tuple[int, int], target_px: tuple[int, int]
    ) -> list[float]:
        """Return what the denoiser is told of a picture's size: heights before widths, top before left."""
        ...

    def conditions(self, config: Any, pooled: Tensor, sizes: Tensor, guidance_scale: float) -> dict[str, Tensor]:
        """Return what the denoiser is told beside the tokens, a row each.

        Args:
            config: The denoiser's.
            pooled: Pooled prompts (rows, pooled).
            sizes: What `size_told` says of each row, (rows, numbers).
            guidance_scale: Of guidance that the denoiser is told of.
        """
        ...

    def predict(
        self, denoiser: Any, noisy: Tensor, told: Tensor, hidden: Tensor, conditions: Mapping[str, Tensor]
    ) -> Tensor:
        """Call the denoiser once.

        Args:
            denoiser: With whatever has been put into it.
            noisy: (rows, channels, height, width) in its number format.
            told: What it is told of the timestep: one for all, or (rows,).
            hidden: Prompts (rows, tokens, context).
            conditions: As `conditions` returns them.

        Returns:
            (rows, channels, height, width): what `objective` says.
        """
        ...
