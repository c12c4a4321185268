"""SDXL and FLUX.1 at full size with random weights: speed, memory and operation counts do not depend on the values.

On the device "meta" nothing is allocated and nothing is computed, but every operation can be counted.
Source: the configurations of stabilityai/stable-diffusion-xl-base-1.0 @ 462165984030d82259a11f4367a4eed129e94a7b.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from blora.bases.locate import Located
from blora.embedded import MODEL_DIR
from blora.models.families.flux import FLUX_FAMILY
from blora.models.families.sdxl import SDXL_FAMILY
from blora.models.families.text_encoders import DTYPES, PromptEmbeddings, TextEncoders
from blora.models.model import Base
from blora.models.passes.tiles import set_tiles
from blora.settings.fields import Precision

UNET: Final[dict[str, Any]] = {
    "sample_size": 128,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (320, 640, 1280),
    "layers_per_block": 2,
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
VAE: Final[dict[str, Any]] = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": 1024,
    "scaling_factor": 0.13025,
}
_TEXT: Final[tuple[dict[str, Any], ...]] = (
    {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
     "hidden_act": "quick_gelu", "projection_dim": 768},
    {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20,
     "hidden_act": "gelu", "projection_dim": 1280},
)  # fmt: skip
SCHEDULER: Final[dict[str, Any]] = {
    "_class_name": "EulerDiscreteScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "steps_offset": 1,
    "timestep_spacing": "leading",
}


class _Encoders(TextEncoders):
    """Both text encoders with random weights; CLIP's tokenizer is the embedded model's, too."""

    def load(self) -> list[tuple[Any, Any]]:
        if not self._pairs:
            for suffix, kind, config in zip(
                ("", "_2"), (CLIPTextModel, CLIPTextModelWithProjection), _TEXT, strict=True
            ):
                with self._runs_on:
                    encoder = kind(CLIPTextConfig(**config, bos_token_id=49406, eos_token_id=49407))
                encoder = encoder.to(self.number_format)
                tokenizer = CLIPTokenizer.from_pretrained(MODEL_DIR / f"tokenizer{suffix}")
                self._pairs.append((tokenizer, encoder.requires_grad_(False).eval()))
        return self._pairs


class FullSize(Base):
    """SDXL with random weights, built on the device itself: no file, and no gigabytes through the CPU."""

    def __init__(self, device: str | torch.device = "meta", precision: Precision = "bf16") -> None:
        """Build the UNet; the rest comes when first used, as in `Base`."""
        self.spec = self.name = "sdxl, random weights"
        self.family = SDXL_FAMILY
        self.revision = "random"
        self.device, self.precision, self.dtype = torch.device(device), precision, DTYPES[precision]
        self.scheduler_config, self.prediction_type = dict(SCHEDULER), "epsilon"
        self.unet = self._build(UNet2DConditionModel, UNET, self.dtype)
        self.latent_channels, self.vae_scale_factor = 4, 8
        self._vae: Any = None
        self.vae_in_tiles = self._encoders_leave = False
        self.text_encoders = _Encoders(Located("sdxl, random weights", MODEL_DIR, "random"), self.device, self.dtype)

    @property
    def vae(self) -> Any:
        if self._vae is None:
            self._vae = self._build(AutoencoderKL, VAE, torch.float32)
            set_tiles(self._vae, self.vae_in_tiles)
        return self._vae

    def _build(self, kind: Any, config: dict[str, Any], dtype: torch.dtype) -> Any:
        torch.manual_seed(0)
        default = torch.get_default_dtype()
        torch.set_default_dtype(dtype)  # never more than the weights themselves, also while they are made
        try:
            with self.device:
                return kind(**config).requires_grad_(False).eval()
        finally:
            torch.set_default_dtype(default)

    def _json(self, name: str) -> dict[str, Any]:
        return {"force_zeros_for_empty_prompt": True}


class FullSizeFlux(Base):
    """FLUX.1-dev's transformer on the device meta, told empty prompts; diffusers' defaults are its configuration."""

    def __init__(self) -> None:
        """Build the transformer and nothing else."""
        self.spec = self.name = "flux, random weights"
        self.family, self.revision = FLUX_FAMILY, "random"
        self.device, self.precision, self.dtype = torch.device("meta"), "bf16", torch.bfloat16
        self.scheduler_config = {"_class_name": "FlowMatchEulerDiscreteScheduler", "use_dynamic_shifting": True}
        self.prediction_type = "flow"
        with self.device:
            self.unet = FluxTransformer2DModel(guidance_embeds=True).to(self.dtype).requires_grad_(False).eval()
        self.latent_channels, self.vae_scale_factor = 16, 8

    def encode_prompts(self, prompts: Sequence[str]) -> PromptEmbeddings:
        like: dict[str, Any] = {"device": self.device, "dtype": self.dtype}
        return PromptEmbeddings(torch.zeros(len(prompts), 512, 4096, **like), torch.zeros(len(prompts), 768, **like))

    def release_encoders(self) -> None:
        """Do nothing: there are none."""
