"""How large base models are: what `blora.models.memory` plans with.

Counted on SDXL's and FLUX.1's full-size configurations (a row at 1024 px, attention without matrices of scores), and
scaled by width and blocks for smaller models of their kinds. Imports no torch, so that a planner can ask.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from blora.bases.spec import Quantization

__all__ = ["FLUX", "GB", "SDXL", "ModelSize"]

GB: Final = 10**9
_QUANTIZED: Final[Mapping[Quantization, tuple[float, float]]] = {
    "nf4": (0.516, 0.2),
    "int8": (1.0013, 3.1),
    "fp8": (1.0011, 6.4),
}
"""Bytes of a weight that is kept in few bits, its scales included; and what making it whole takes for the largest layer
beyond what a step holds anyway, bytes a weight. Counted on FLUX.1's full configuration at 1024 px in half precision."""


@dataclass(frozen=True)
class ModelSize:
    """The sizes of a base model that memory depends on.

    Attributes:
        unet_parameters: Of the denoiser.
        encoder_bytes: Both text encoders, fp32.
        vae_bytes: The autoencoder, fp32.
        adapter_parameters_per_rank: Of both halves.
        width: The denoiser's, as a share of its family's usual one.
        factor: Pixels per latent, along a side.
        kept_per_row: Activations of a trained row at 1024 px in half precision, without its prompt's.
        recomputed_per_row: The same where activations are recomputed.
        drawn_per_row: The same of a row that is drawn; with remembered keys and values where there are some.
        guided_rows: Rows of a guided picture.
        prompt_share: What the prompt's tokens add to a row, as a share of those of 1024 px.
        front_per_row: What the frozen front hands on of a row at 1024 px, in half precision.
        fp8_share: Share of the denoiser's parameters that can be held in eight bits.
        block_parameters: Weights of its transformer blocks' linear layers, which a quantised base keeps in few bits.
        largest_weight: Of the largest of these layers.
        quantize: What they are kept in; empty for the precision of the work.
    """

    unet_parameters: int
    encoder_bytes: float
    vae_bytes: float
    adapter_parameters_per_rank: int
    width: float
    factor: int
    kept_per_row: float = 3.25 * GB
    recomputed_per_row: float = 0.43 * GB
    drawn_per_row: float = 0.195 * GB
    guided_rows: int = 2
    prompt_share: float = 0.0
    front_per_row: float = 0.0537 * GB
    fp8_share: float = 0.733
    block_parameters: int = 2_183_987_200
    largest_weight: int = 1280 * 10_240
    quantize: Quantization | Literal[""] = ""

    @classmethod
    def like(cls, config: Mapping[str, Any], factor: int, adapter_parameters_per_rank: int) -> ModelSize:
        """Reckon a model's sizes from those of its family, which its denoiser's configuration tells."""
        reckon = cls.like_flux if "num_single_layers" in config else cls.like_sdxl
        return reckon(config, factor, adapter_parameters_per_rank)

    @classmethod
    def like_sdxl(cls, config: Mapping[str, Any], factor: int, adapter_parameters_per_rank: int) -> ModelSize:
        """Reckon a smaller model's sizes from SDXL's by its width; its UNet's configuration says how wide it is."""
        width = int(config["block_out_channels"][0]) / _SDXL_CHANNELS
        share = width**2
        return cls(
            round(SDXL.unet_parameters * share),
            SDXL.encoder_bytes * share,
            SDXL.vae_bytes * share,
            adapter_parameters_per_rank,
            width,
            factor,
            block_parameters=round(SDXL.block_parameters * share),
            largest_weight=round(SDXL.largest_weight * share),
        )

    @classmethod
    def like_flux(cls, config: Mapping[str, Any], factor: int, adapter_parameters_per_rank: int) -> ModelSize:
        """Reckon the sizes of a model of FLUX.1's kind by its width and its blocks; most of its weights are theirs."""
        width = int(config["num_attention_heads"]) * int(config["attention_head_dim"])
        doubles, singles = int(config["num_layers"]), int(config["num_single_layers"])
        share = width / _FLUX_CHANNELS
        deep = singles / _FLUX_SINGLES
        return replace(
            FLUX,
            unet_parameters=(36 * doubles + 15 * singles) * width**2,
            block_parameters=(36 * doubles + 15 * singles) * width**2,
            largest_weight=6 * width**2,
            encoder_bytes=FLUX.encoder_bytes * share**2,
            vae_bytes=FLUX.vae_bytes * share**2,
            adapter_parameters_per_rank=adapter_parameters_per_rank,
            width=share,
            factor=factor,
            kept_per_row=FLUX.kept_per_row * deep,
        )

    def denoiser_bytes(self, number: int) -> float:
        """Return what the denoiser's weights take, as they are kept and as they are used.

        Args:
            number: Bytes of a number in the precision of the work.
        """
        if not self.quantize:
            return self.unet_parameters * number
        kept, made_whole = _QUANTIZED[self.quantize]
        outside = (self.unet_parameters - self.block_parameters) * number
        return outside + self.block_parameters * kept + self.largest_weight * made_whole * number / 2

    def pictures(self, width_px: int, height_px: int) -> float:
        """Return how many of the usual model's pictures at 1024 px one of this size is, to the autoencoder."""
        return self.width * width_px * height_px / self.factor**2 / (1024 / 8) ** 2

    def rows(self, width_px: int, height_px: int) -> float:
        """Return how many of the usual model's rows at 1024 px a row of this model is, its prompt counted."""
        return self.pictures(width_px, height_px) + self.width * self.prompt_share


_SDXL_CHANNELS: Final = 320
"""Of its UNet's first level."""
_FLUX_CHANNELS: Final = 3072
_FLUX_SINGLES: Final = 38

SDXL: Final = ModelSize(2_567_463_684, 3.27 * GB, 0.335 * GB, 440_320, 1.0, 8)

FLUX: Final = ModelSize(
    11_901_408_320,
    19.54 * GB,
    0.335 * GB,
    700_416,
    1.0,
    8,
    kept_per_row=13.71 * GB,
    recomputed_per_row=1.74 * GB,
    drawn_per_row=0.44 * GB,
    guided_rows=1,
    prompt_share=512 / 4096,
    fp8_share=0.633,
    block_parameters=11_834_228_736,
    largest_weight=3072 * 18_432,
)
"""FLUX.1-dev: all tokens that T5 reads, beside a picture's 4096."""
