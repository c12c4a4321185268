"""Names of layers: diffusers' own, and those of SDXL's and FLUX's original code, as files with LoRAs or weights do."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import torch
from torch import Tensor, nn

from blora.adapters.fused import FUSED
from blora.adapters.keys import FLUX_RENAMED

__all__ = ["flux_state", "named_layers"]

_INNER = (
    ("norm1", "in_layers.0"),
    ("conv1", "in_layers.2"),
    ("norm2", "out_layers.0"),
    ("conv2", "out_layers.3"),
    ("time_emb_proj", "emb_layers.1"),
    ("conv_shortcut", "skip_connection"),
)
_TOP = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
}
_BLOCK = re.compile(
    r"(?P<way>down|up)_blocks\.(?P<level>\d+)\.(?P<kind>resnets|attentions|downsamplers|upsamplers)\.(?P<index>\d+)(?P<rest>.*)"
)
_MID = re.compile(r"mid_block\.(?P<kind>resnets|attentions)\.(?P<index>\d+)(?P<rest>.*)")


def named_layers(unet: Any) -> dict[str, nn.Linear | nn.Conv2d]:
    """Return a UNet's linear and convolution layers by every name that files have for them, dots as underscores."""
    layers: dict[str, nn.Linear | nn.Conv2d] = {}
    for name, module in unet.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            for known in (name, _original(name, int(unet.config.layers_per_block), unet)):
                layers[known.replace(".", "_")] = module
    return layers


def _original(name: str, layers: int, unet: Any) -> str:
    """A layer's name in SDXL's original code, which numbers its blocks in one row, ``layers + 1`` a level."""
    if name in _TOP:
        return _TOP[name]
    if match := _MID.fullmatch(name):
        place = 1 if match["kind"] == "attentions" else 2 * int(match["index"])
        return f"middle_block.{place}{_inner(match['kind'], match['rest'])}"
    match = _BLOCK.fullmatch(name)
    if match is None:
        return name
    level, index, kind = int(match["level"]), int(match["index"]), match["kind"]
    start = (layers + 1) * level
    if kind == "downsamplers":
        return f"input_blocks.{start + layers + 1}.0.op"
    if kind == "upsamplers":
        place = 2 if getattr(unet.up_blocks[level], "attentions", None) is not None else 1
        return f"output_blocks.{start + layers}.{place}{match['rest']}"
    block = f"input_blocks.{start + index + 1}" if match["way"] == "down" else f"output_blocks.{start + index}"
    return f"{block}.{int(kind == 'attentions')}{_inner(kind, match['rest'])}"


def _inner(kind: str, rest: str) -> str:
    if kind != "resnets":
        return rest
    return next((f".{theirs}" for ours, theirs in _INNER if rest == f".{ours}"), rest)


_FLUX_TOP: Final = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    **{
        f"{theirs}.{place}_layer": f"time_text_embed.{ours}.linear_{number}"
        for theirs, ours in (
            ("time_in", "timestep_embedder"),
            ("vector_in", "text_embedder"),
            ("guidance_in", "guidance_embedder"),
        )
        for number, place in ((1, "in"), (2, "out"))
    },
    "final_layer.linear": "proj_out",
    "final_layer.adaLN_modulation.1": "norm_out.linear",
}
_FLUX_INNER: Final = {
    **FLUX_RENAMED,
    "norm.query_norm": "attn.norm_q",
    "norm.key_norm": "attn.norm_k",
    "img_mod.lin": "norm1.linear",
    "txt_mod.lin": "norm1_context.linear",
    "img_mlp.0": "ff.net.0.proj",
    "img_mlp.2": "ff.net.2",
    "txt_mlp.0": "ff_context.net.0.proj",
    "txt_mlp.2": "ff_context.net.2",
    "img_attn.norm.query_norm": "attn.norm_q",
    "img_attn.norm.key_norm": "attn.norm_k",
    "txt_attn.norm.query_norm": "attn.norm_added_q",
    "txt_attn.norm.key_norm": "attn.norm_added_k",
}
"""Layers of both kinds of block; those that are several in diffusers are in `blora.adapters.fused`."""
_FLUX_BLOCK: Final = re.compile(r"(?P<kind>single|double)_blocks\.(?P<number>\d+)\.(?P<inner>.+)")


def flux_state(tensors: Mapping[str, Tensor], width: int) -> dict[str, Tensor]:
    """Return the tensors of FLUX's transformer by diffusers' names, which has several layers where it has one.

    Source: diffusers 0.42.1, ``convert_flux_transformer_checkpoint_to_diffusers``, which does so at one width alone.

    Args:
        tensors: By its original code's names, without prefix; those that it does not have stay as they are called.
        width: Of its blocks.
    """
    return {ours: value for name, tensor in tensors.items() for ours, value in _flux_parts(name, tensor, width)}


def _flux_parts(name: str, tensor: Tensor, width: int) -> Iterator[tuple[str, Tensor]]:
    """One tensor as diffusers has it: under another name, or in parts."""
    layer, _, end = name.rpartition(".")
    match = _FLUX_BLOCK.fullmatch(layer)
    if match is None:
        if layer == "final_layer.adaLN_modulation.1":  # shift before scale there, scale before shift here
            tensor = torch.cat(tensor.chunk(2)[::-1])
        yield f"{_FLUX_TOP.get(layer, layer)}.{end}", tensor
        return
    block = f"{'single_' if match['kind'] == 'single' else ''}transformer_blocks.{match['number']}"
    parts = FUSED.get(match["inner"])
    if parts is None:
        inner = _FLUX_INNER.get(match["inner"], match["inner"])
        yield f"{block}.{inner}.{'weight' if end == 'scale' else end}", tensor
        return
    rest = len(tensor) - 3 * width
    for part, value in zip(parts, tensor.split([width] * 3 + [rest] * (len(parts) - 3)), strict=True):
        yield f"{block}.{part}.{end}", value
