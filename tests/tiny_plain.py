"""A tiny base of Stable Diffusion 1.5's shape with random weights, written as a diffusers folder."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from tests.tiny import RESOLUTION_PX, autoencoder, tokenizer


def plain_unet(seed: int = 0) -> UNet2DConditionModel:
    """Return a UNet with SD 1.5's block names: attention on three of four levels, and in the middle."""
    torch.manual_seed(seed)
    return UNet2DConditionModel(
        sample_size=RESOLUTION_PX // 4,
        down_block_types=(*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
        up_block_types=("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
        block_out_channels=(16, 16, 32, 32),
        layers_per_block=2,
        attention_head_dim=4,
        norm_num_groups=8,
        cross_attention_dim=32,
    )


def save_plain_base(folder: Path, seed: int = 0) -> Path:
    """Write a whole StableDiffusionPipeline with SD 1.5's scheduler; the same seed gives the same files."""
    torch.manual_seed(seed)
    pipeline = StableDiffusionPipeline(
        vae=autoencoder(scaling_factor=0.18215),
        text_encoder=CLIPTextModel(
            CLIPTextConfig(
                hidden_size=32,
                intermediate_size=64,
                num_hidden_layers=2,
                num_attention_heads=4,
                bos_token_id=49406,
                eos_token_id=49407,
            )
        ),
        tokenizer=tokenizer("<|endoftext|>"),
        unet=plain_unet(seed),
        scheduler=PNDMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)
    return folder
