"""A LoRA of the whole UNet added to its weights for good: what makes few steps enough (LCM, Lightning, Hyper, DMD2).

Such a base is another base: adapters are trained on it, and its revision speaks of the LoRA and of its weight.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from blora.adapters.alphas import scale_of, told_alphas, warn_of_no_alpha
from blora.adapters.factors import check_finite, refuse_layers
from blora.adapters.keys import split_key
from blora.bases.headers import read_header
from blora.bases.layers import named_layers
from blora.errors import KeyMismatchError

__all__ = ["fuse_lora"]


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
    warn_of_no_alpha(parts, alphas, where)
    for layer, have in parts.items():
        held = known[layer].weight
        update = _update(have, held.shape, f"{where}, {layer}")
        scale = weight * scale_of(layer, len(have["down"]), have.get("alpha"), alphas, where)
        held.copy_((held.float() + scale * update.to(held.device)).to(held.dtype))


def _update(have: dict[str, Tensor], shape: torch.Size, where: str) -> Tensor:
    """The change of one layer's weight, unscaled."""
    try:
        down, up = have["down"], have["up"]
        if not len(down):
            raise ValueError("rank 0")
        return (up.flatten(1) @ down.flatten(1)).reshape(shape)
    except (KeyError, ValueError, RuntimeError) as error:
        received = ", ".join(f"{part} {tuple(value.shape)}" for part, value in have.items())
        accepted = f"down and up that multiply to {tuple(shape)}"
        hint = "take a LoRA made for SDXL"
        raise KeyMismatchError("factors do not fit the layer", received, accepted, where, hint) from error
