"""A tiny base of FLUX.1's shape with random weights, written as a diffusers folder: seconds, not gigabytes.

It has what the method depends on: double-stream and single-stream blocks (eleven content and style blocks by their real
numbers), T5's and CLIP's encoders, packed latents of 16 channels with a shift, guidance as a number, and a scheduler
whose timesteps depend on the picture's size. T5's tokenizer is made here, of one token a character, and reads 64.
"""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from tokenizers import Tokenizer, models
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel, T5Tokenizer

from tests.tiny import autoencoder, tokenizer

RESOLUTION_PX = 32
"""Side of the pictures that it is used with: latents of 8, tokens of 4."""

_CONTEXT, _POOLED = 32, 24


def transformer(seed: int = 0, *, guided: bool = True) -> FluxTransformer2DModel:
    """Return a transformer with FLUX.1's block names and random weights.

    Args:
        seed: Of its weights.
        guided: Whether it is told a scale of guidance, as FLUX.1-dev is, or not, as FLUX.1-schnell.
    """
    torch.manual_seed(seed)
    return FluxTransformer2DModel(
        in_channels=16 * 4,
        num_layers=1,
        num_single_layers=12,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=_CONTEXT,
        pooled_projection_dim=_POOLED,
        guidance_embeds=guided,
        axes_dims_rope=(4, 6, 6),
    )


def save_tiny_flux(folder: Path, seed: int = 0, *, guided: bool = True) -> Path:
    """Write a whole FluxPipeline; the same seed gives the same files."""
    torch.manual_seed(seed)
    vae = autoencoder(
        latent_channels=16,
        scaling_factor=0.5,
        shift_factor=0.1159,
        use_quant_conv=False,
        use_post_quant_conv=False,
        mid_block_add_attention=False,
    )
    clip = CLIPTextModel(
        CLIPTextConfig(
            hidden_size=_POOLED,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            bos_token_id=49406,
            eos_token_id=49407,
        )
    )
    t5 = T5EncoderModel(T5Config(vocab_size=128, d_model=_CONTEXT, d_kv=8, d_ff=48, num_layers=2, num_heads=4))
    pipeline: Any = FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0 if guided else 1.0, use_dynamic_shifting=guided),
        vae=vae,
        text_encoder=clip,
        tokenizer=tokenizer("<|endoftext|>"),
        text_encoder_2=t5,
        tokenizer_2=_t5_tokenizer(),
        transformer=transformer(seed, guided=guided),
    )
    pipeline.save_pretrained(folder)
    return folder


def _t5_tokenizer() -> T5Tokenizer:
    """Characters for words, behind T5's own special tokens."""
    words = ["<pad>", "</s>", "<unk>", "▁", *string.printable[:94]]
    unigram = models.Unigram([(word, -float(number)) for number, word in enumerate(words)], unk_id=2)
    made = T5Tokenizer(tokenizer_object=Tokenizer(unigram), extra_ids=0, model_max_length=64)
    return made
