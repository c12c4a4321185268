"""A LoRA of the whole UNet added to its weights for good: what makes few steps enough (LCM, Lightning, Hyper, DMD2).

Such a base is another base: adapters are trained on it, and its revision speaks of the LoRA and of its weight.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from blora.adapters.alphas import Alphas, told_alphas
from blora.adapters.factors import check_finite, refuse_layers
from blora.adapters.keys import split_key
from blora.bases.headers import read_header
from blora.bases.layers import named_layers
from blora.errors import KeyMismatchError

__all__ = ["fuse_lora"]

_LOG = logging.getLogger("blora")


@torch.no_grad()
def fuse_lora(unet: Any, file: Path, weight: float) -> None:
    """Add ``weight`` times a LoRA to a UNet's linear and convolution layers; every tensor of the file must land.

    Sums are made in fp32 and kept in the format of the UNet.

    Args:
        unet: Changed in place.
        file: A LoRA in diffusers', PEFT's or kohya's names, with diffusers' or the original block names.
        weight: Factor of the update.

    Raises:
        BaseModelError: It is no whole safetensors file.
        KeyMismatchError: It holds what is no update of this UNet: of text encoders, of another kind or shape.
    """
    where = file.name
    _, metadata = read_header(file, where)
    with safe_open(file, framework="pt") as opened:
        tensors = {key: opened.get_tensor(key).float() for key in opened.keys()}
    known = named_layers(unet)
    parts: dict[str, dict[str, Tensor]] = {}
    unknown = []
    for key, value in tensors.items():
        layer, part = split_key(key) or ("", "")
        name = layer.removeprefix("lora_unet_").removeprefix("lycoris_").replace(".", "_")
        if name in known and part not in parts.setdefault(name, {}):
            parts[name][part] = value
        else:
            unknown.append(key)
    text = [key for key in unknown if key.startswith(("lora_te", "text_encoder"))]
    refuse_layers(text, "updates of text encoders", where, "a LoRA of the UNet alone")
    refuse_layers(unknown, "tensors that are no LoRA of this UNet", where, "plain LoRA, each layer once")
    check_finite({f"{layer}, {part}": value for layer, have in parts.items() for part, value in have.items()}, where)
    alphas = told_alphas(metadata, None, where)
    if alphas is None and not any("alpha" in have for have in parts.values()):
        _LOG.warning("%s says nothing of alpha: a scale of one (alpha = rank) is assumed", where)
    for layer, have in parts.items():
        _add(known[layer], have, weight * _scale(layer, have, alphas), f"{where}, {layer}")


def _scale(layer: str, have: dict[str, Tensor], alphas: Alphas | None) -> float:
    if "down" not in have:
        return 1.0
    rank = int(have["down"].shape[0])
    if "alpha" in have:
        return float(have["alpha"]) / rank
    return 1.0 if alphas is None else alphas.scale(layer, rank)


def _add(module: nn.Linear | nn.Conv2d, have: dict[str, Tensor], scale: float, where: str) -> None:
    """Add one layer's update to its weight."""
    held = module.weight
    try:
        down, up = have["down"], have["up"]
        update = (up.flatten(1) @ down.flatten(1)).reshape(held.shape)
    except (KeyError, RuntimeError) as error:
        received = ", ".join(f"{part} {tuple(value.shape)}" for part, value in have.items())
        accepted = f"down and up that multiply to {tuple(held.shape)}"
        hint = "take a LoRA made for SDXL"
        raise KeyMismatchError("factors do not fit the layer", received, accepted, where, hint) from error
    held.copy_((held.float() + scale * update.to(held.device)).to(held.dtype))
