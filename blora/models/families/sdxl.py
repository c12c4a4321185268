"""SDXL: a UNet that hears the prompt by cross-attention and six numbers of size and crop.

Source: arXiv 2307.01952; diffusers' StableDiffusionXLPipeline.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from blora.bases.locate import Located
from blora.models.families.family import Course, Objective
from blora.models.families.text_encoders import TextEncoders

__all__ = ["SDXL_FAMILY", "Sdxl"]


@dataclass(frozen=True)
class Sdxl:
    """What SDXL answers; see `Family`."""

    part: str = "unet"
    drawn_multiple: int = 1
    shares_front: bool = True
    hears_by_block: bool = True

    def denoiser_class(self) -> Any:
        """Return diffusers' UNet."""
        from diffusers import UNet2DConditionModel

        return UNet2DConditionModel

    def encoders(self, located: Located, device: torch.device, dtype: torch.dtype) -> TextEncoders:
        """Return the pair of CLIP's text models."""
        return TextEncoders(located, device, dtype)

    def latent_channels(self, config: Any) -> int:
        """Return what the UNet takes."""
        return int(config.in_channels)

    def trained_multiple(self, config: Any) -> int:
        """Return how many latents become one on the UNet's lowest level, along a side."""
        return int(2 ** (len(config.block_out_channels) - 1))

    def guides_by_rows(self, config: Any) -> bool:
        """Return True: classifier-free guidance."""
        return True

    def objective(self, scheduler: Mapping[str, Any]) -> Objective:
        """Return "epsilon" or "v_prediction"."""
        return "v_prediction" if scheduler.get("prediction_type") == "v_prediction" else "epsilon"

    def course(self, scheduler: Mapping[str, Any]) -> Course:
        """Return the variance-preserving schedule of the base's betas; the UNet is told the timestep's number."""
        from diffusers import DDPMScheduler

        schedulers: Any = DDPMScheduler  # diffusers' configuration mixin has no types
        keep: Tensor = schedulers.from_config(scheduler).alphas_cumprod
        return Course(keep.sqrt(), (1 - keep).sqrt(), torch.arange(len(keep)))

    def timing(self, scheduler: Mapping[str, Any], steps: int, height: int, width: int) -> dict[str, Any]:
        """Return nothing: the timesteps are the same for every size."""
        return {}

    def noise_shift(self, scheduler: Mapping[str, Any], height: int, width: int) -> float:
        """Return 1: drawing has no shift."""
        return 1.0

    def size_told(
        self, original_px: tuple[int, int], crop_px: tuple[int, int], target_px: tuple[int, int]
    ) -> list[float]:
        """Return SDXL's six numbers of size and crop."""
        return [*original_px, *crop_px, *target_px]

    def conditions(self, config: Any, pooled: Tensor, sizes: Tensor, guidance_scale: float) -> dict[str, Tensor]:
        """Return the pooled prompt and the six numbers."""
        return {"text_embeds": pooled, "time_ids": sizes}

    def predict(
        self, denoiser: Any, noisy: Tensor, told: Tensor, hidden: Tensor, conditions: Mapping[str, Tensor]
    ) -> Tensor:
        """Call the UNet once."""
        output = denoiser(noisy, told, hidden, added_cond_kwargs=dict(conditions), return_dict=False)
        predicted: Tensor = output[0]
        return predicted


SDXL_FAMILY: Final = Sdxl()
"""SDXL."""
