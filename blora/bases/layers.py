"""Names of a UNet's layers: diffusers' own, and those of SDXL's original code, as files with LoRAs write them."""

from __future__ import annotations

import re
from typing import Any

from torch import nn

__all__ = ["named_layers"]

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
