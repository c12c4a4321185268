"""A tiny base model of SDXL's shape with random weights, written as a diffusers folder: seconds, not gigabytes.

It has what the method depends on and nothing more: the block names, text_time conditioning, two CLIP text encoders of
which the second projects, SDXL's real tokenizer, and a VAE of factor 4. Pictures of 32 pixels make latents of 8.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from numpy.typing import NDArray
from open_clip.tokenizer import SimpleTokenizer
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

RESOLUTION_PX = 32
"""Side of the pictures that the tiny base is used with."""

WIDTHS = (32, 64, 64)
"""Channels of the UNet's levels."""

ATTENTION_LAYERS = (2, 1)
"""Transformer layers in each attention module of the first up block, and of the second."""

_TEXT_WIDTHS = (32, 48)
_POOLED = 40
_TIME_WIDTH = 8


def tokenizer(pad_token: str) -> CLIPTokenizer:
    """Return CLIP's real tokenizer, from the merges that open_clip ships."""
    words = SimpleTokenizer()
    merges = sorted(words.bpe_ranks, key=words.bpe_ranks.get)
    # open_clip calls the two special tokens by names of its own; their numbers are the same.
    names = {49406: "<|startoftext|>", 49407: "<|endoftext|>"}
    vocab = {names.get(number, word): number for word, number in words.encoder.items()}
    return CLIPTokenizer(vocab=vocab, merges=merges, pad_token=pad_token, model_max_length=77)


def unet(seed: int = 0) -> UNet2DConditionModel:
    """Return a UNet with SDXL's block names and random weights."""
    torch.manual_seed(seed)
    return UNet2DConditionModel(
        sample_size=RESOLUTION_PX // 4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=WIDTHS,
        layers_per_block=2,
        transformer_layers_per_block=(1, 1, 1),
        reverse_transformer_layers_per_block=(*ATTENTION_LAYERS, 1),
        attention_head_dim=(2, 4, 4),
        norm_num_groups=8,
        cross_attention_dim=sum(_TEXT_WIDTHS),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=_TIME_WIDTH,
        projection_class_embeddings_input_dim=6 * _TIME_WIDTH + _POOLED,
    )


def autoencoder(latent_channels: int = 4, **more: Any) -> AutoencoderKL:
    """Return a VAE of factor 4 with random weights.

    Args:
        latent_channels: Of its latents.
        more: What its configuration says beside its sizes.
    """
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 16, 16),
        layers_per_block=1,
        latent_channels=latent_channels,
        norm_num_groups=4,
        **more,
    )


def save_tiny_base(folder: Path, prediction_type: str = "epsilon", seed: int = 0) -> Path:
    """Write a whole base model; the same seed gives the same files.

    Args:
        folder: Where to write.
        prediction_type: "epsilon" with SDXL's scheduler, or "v_prediction" with zero terminal signal-to-noise ratio.
        seed: Of all random weights.
    """
    torch.manual_seed(seed)
    vae = autoencoder(scaling_factor=0.7, mid_block_add_attention=False)
    zero_snr = prediction_type == "v_prediction"
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type=prediction_type,
        rescale_betas_zero_snr=zero_snr,
        timestep_spacing="trailing" if zero_snr else "leading",
        steps_offset=1,
    )
    pipeline = StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(_text_config(_TEXT_WIDTHS[0])),
        text_encoder_2=CLIPTextModelWithProjection(_text_config(_TEXT_WIDTHS[1])),
        tokenizer=tokenizer("<|endoftext|>"),
        tokenizer_2=tokenizer("!"),
        unet=unet(seed),
        scheduler=scheduler,
        force_zeros_for_empty_prompt=not zero_snr,
        add_watermarker=False,
    )
    pipeline.save_pretrained(folder)
    return folder


def _text_config(width: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        projection_dim=_POOLED,
        hidden_act="gelu",
        bos_token_id=49406,
        eos_token_id=49407,
    )


def picture(seed: int, height_px: int = RESOLUTION_PX, width_px: int = RESOLUTION_PX) -> NDArray[np.uint8]:
    """Return a picture of coloured rectangles, (height, width, 3), different for each seed."""
    draw = np.random.default_rng(seed)
    rgb = np.empty((height_px, width_px, 3), np.uint8)
    rgb[:] = draw.integers(0, 256, 3)
    for _ in range(4):
        top, left = draw.integers(0, height_px * 3 // 4), draw.integers(0, width_px * 3 // 4)
        rgb[top : top + height_px // 3, left : left + width_px // 3] = draw.integers(0, 256, 3)
    return rgb
