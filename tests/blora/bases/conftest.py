"""SDXL's own levels and layers on small widths, as a folder and as the single file that fine-tunes come as."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from blora.bases.locate import SDXL_FOLDER
from tests.ldm import save_single_file
from tests.tiny import tokenizer

POOLED = 24


def config_of(part: str) -> dict[str, Any]:
    """What the package says of a part of SDXL."""
    return dict(json.loads((SDXL_FOLDER / part / "config.json").read_text()))


@pytest.fixture(scope="session")
def narrow_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The full-size configuration with small widths alone changed; do not change it."""
    torch.manual_seed(0)
    narrow = {"block_out_channels": (32, 64, 96), "attention_head_dim": (2, 4, 4), "cross_attention_dim": 32}
    told = {"addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": 6 * 8 + POOLED}
    unet = UNet2DConditionModel.from_config({**config_of("unet"), **narrow, **told})
    vae = AutoencoderKL.from_config({**config_of("vae"), "block_out_channels": (32, 64, 96, 96)})
    widths: dict[str, Any] = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_attention_heads": 2,
        "projection_dim": POOLED,
    }
    first, second = (CLIPTextConfig(**{**config_of(part), **widths}) for part in ("text_encoder", "text_encoder_2"))
    scheduler = EulerDiscreteScheduler.from_config(
        json.loads((SDXL_FOLDER / "scheduler/scheduler_config.json").read_text())
    )
    folder = tmp_path_factory.mktemp("bases") / "narrow"
    pipeline: Any = StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(first),
        text_encoder_2=CLIPTextModelWithProjection(second),
        tokenizer=tokenizer("<|endoftext|>"),
        tokenizer_2=tokenizer("!"),
        unet=unet,
        scheduler=scheduler,
        add_watermarker=False,
    )
    pipeline.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def narrow_file(narrow_folder: Path) -> Path:
    """The same model as one file; do not change it."""
    return save_single_file(narrow_folder, narrow_folder.parent / "narrow.safetensors")
