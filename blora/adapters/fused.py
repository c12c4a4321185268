"""FLUX's layers under its original code's names, where queries, keys, values and the feed-forward are one layer.

    single_blocks.0.linear1          attn.to_q, attn.to_k, attn.to_v and proj_mlp of single_transformer_blocks.0
    single_blocks.0.linear2          proj_out
    single_blocks.0.modulation.lin   norm.linear
    double_blocks.0.…                transformer_blocks.0.…

kohya's files have these names with underscores behind ``lora_unet_``, others with dots behind ``diffusion_model.`` or
nothing. A delta of the fused layer is those of the four, one below another. One LoRA may serve all four, as kohya
trains; or each has its own stretch of the rank, and zeros elsewhere, as `fused_layers` and ai-toolkit's files do once
they are converted. Both are split without rounding.

Source: kohya-ss/sd-scripts @ 48d368f (``networks/convert_flux_lora.py``), the names; diffusers 0.42.1
(``_convert_kohya_flux_lora_to_diffusers``), the same way back.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

from blora.adapters.blocks import FLUX_PROJECTIONS
from blora.adapters.factors import Factors
from blora.errors import KeyMismatchError

__all__ = ["fused_layers", "is_fused", "split_layers"]

_FEED_FORWARD: Final = 4
"""Width of a block's feed-forward, as a multiple of its own."""
_PARTS: Final = len(FLUX_PROJECTIONS) + _FEED_FORWARD
"""Widths that the fused layer's output is made of."""
_FUSED: Final = re.compile(r"(?P<block>single_transformer_blocks\.\d+)\.linear1")


def fused_layers(layers: Mapping[str, Factors]) -> dict[str, Factors]:
    """Return a FLUX adapter's layers as its original code has them; the feed-forward's part is zero."""
    blocks: dict[str, dict[str, Factors]] = {}
    for layer, factors in layers.items():
        block, _, projection = layer.partition(".attn.")
        blocks.setdefault(block.replace("single_transformer_blocks", "single_blocks"), {})[projection] = factors
    fused = {}
    for block, have in blocks.items():
        parts = [have[projection] for projection in FLUX_PROJECTIONS]
        width = parts[0].up.shape[0]
        nothing = parts[0].up.new_zeros(_FEED_FORWARD * width, sum(part.rank for part in parts))
        up = torch.cat([torch.block_diag(*(part.up for part in parts)), nothing])
        fused[f"{block}.linear1"] = Factors(torch.cat([part.down for part in parts]), up)
    return fused


def is_fused(layer: str) -> bool:
    """Whether a layer, by `parse_key`'s name, is a fused one."""
    return _FUSED.fullmatch(layer) is not None


def split_layers(layers: Mapping[str, Factors], where: str) -> tuple[dict[str, Factors], list[str]]:
    """Return layers with every fused one as queries, keys and values, and the names of feed-forwards that do something.

    Args:
        layers: Of a file, by the names that `blora.adapters.keys.parse_key` gives.
        where: What messages call the file.

    Raises:
        KeyMismatchError: A fused layer is not seven times as wide as what it reads, or its parts are there, too.
    """
    split: dict[str, Factors] = {}
    active: list[str] = []
    for layer, factors in layers.items():
        match = _FUSED.fullmatch(layer)
        parts = _parts(match["block"], factors, f"{where}, {layer}") if match else {layer: factors}
        if twice := split.keys() & parts.keys():
            raise KeyMismatchError("a layer given twice", min(twice), "fused or by itself", where, "remove one of them")
        feed_forward = parts.pop(f"{match['block']}.proj_mlp") if match else None
        if feed_forward is not None and bool(feed_forward.up.any()):
            active.append(f"{layer} (feed-forward)")
        split |= parts
    return split, active


def _parts(block: str, factors: Factors, where: str) -> dict[str, Factors]:
    """The four layers of a fused one."""
    width = factors.down.shape[1]
    if factors.up.shape[0] != _PARTS * width:
        received, accepted = f"{factors.up.shape[0]} numbers out of {width}", f"{_PARTS * width}"
        raise KeyMismatchError("not the queries, keys, values and feed-forward of FLUX", received, accepted, where)
    names = (*(f"attn.{projection}" for projection in FLUX_PROJECTIONS), "proj_mlp")
    rows = factors.up.split([width] * len(FLUX_PROJECTIONS) + [_FEED_FORWARD * width])
    return {f"{block}.{name}": _without_idle(factors.down, up) for name, up in zip(names, rows, strict=True)}


def _without_idle(down: Tensor, up: Tensor) -> Factors:
    """The same update without the part of the rank that does nothing; one of an update that is zero."""
    used = up.any(dim=0)
    if not bool(used.any()):
        used[0] = True
    return Factors(down[used].clone(), up[:, used].clone())
