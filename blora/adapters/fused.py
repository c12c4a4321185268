"""FLUX's layers under its original code's names, where queries, keys, values and the feed-forward are one layer.

    single_blocks.0.linear1          attn.to_q, attn.to_k, attn.to_v and proj_mlp of single_transformer_blocks.0
    single_blocks.0.linear2          proj_out
    single_blocks.0.modulation.lin   norm.linear
    double_blocks.0.img_attn.qkv     attn.to_q, attn.to_k and attn.to_v of transformer_blocks.0; txt: attn.add_q_proj, …
    double_blocks.0.img_attn.proj    attn.to_out.0; txt: attn.to_add_out

kohya's files have these names with underscores behind ``lora_unet_``, others with dots behind ``diffusion_model.`` or
nothing. A delta of the fused layer is those of the four, one below another. One LoRA may serve all four, as kohya
trains; or each has its own stretch of the rank, and zeros elsewhere, as `fused_layers` and ai-toolkit's files do once
they are converted. Both are split without rounding.

Source: kohya-ss/sd-scripts @ 48d368f (``networks/convert_flux_lora.py``), the names; diffusers 0.42.1
(``_convert_kohya_flux_lora_to_diffusers``), the same way back.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

import torch
from torch import Tensor

from blora.adapters.blocks import FLUX_DOUBLE_PROJECTIONS, FLUX_PROJECTIONS, projections_of
from blora.adapters.factors import Factors
from blora.errors import KeyMismatchError

__all__ = ["FUSED", "fused_layers", "is_fused", "split_layers"]

_FEED_FORWARD: Final = 4
"""Width of a block's feed-forward, as a multiple of its own."""
_FUSED: Final = re.compile(r"(?P<block>(?:single_)?transformer_blocks\.\d+)\.(?P<fused>linear1|(?:img|txt)_attn\.qkv)")
FUSED: Final[Mapping[str, tuple[str, ...]]] = {
    "linear1": (*(f"attn.{name}" for name in FLUX_PROJECTIONS), "proj_mlp"),
    "img_attn.qkv": tuple(f"attn.{name}" for name in FLUX_DOUBLE_PROJECTIONS[:3]),
    "txt_attn.qkv": tuple(f"attn.{name}" for name in FLUX_DOUBLE_PROJECTIONS[4:7]),
}
"""What each fused layer is made of, one below another."""


def fused_layers(layers: Mapping[str, Factors]) -> dict[str, Factors]:
    """Return a FLUX adapter's layers as its original code has them; the feed-forward's part is zero."""
    blocks: dict[str, dict[str, Factors]] = {}
    for layer, factors in layers.items():
        block, _, projection = layer.partition(".attn.")
        blocks.setdefault(block, {})[projection] = factors
    fused = {}
    for block, have in blocks.items():
        number = block.rpartition(".")[2]
        parts = [have[projection] for projection in projections_of(f"{block}.attn")]
        if block.startswith("single_"):
            idle = _FEED_FORWARD * parts[0].up.shape[0]
            fused[f"single_blocks.{number}.linear1"] = _beneath(parts, idle)
        else:
            for stream, (*of_qkv, of_out) in (("img", parts[:4]), ("txt", parts[4:])):
                fused[f"double_blocks.{number}.{stream}_attn.qkv"] = _beneath(of_qkv)
                fused[f"double_blocks.{number}.{stream}_attn.proj"] = of_out
    return fused


def _beneath(parts: Sequence[Factors], idle: int = 0) -> Factors:
    """The update of a layer whose outputs are those of several, one below another, and then so many without one."""
    nothing = parts[0].up.new_zeros(idle, sum(part.rank for part in parts))
    up = torch.cat([torch.block_diag(*(part.up for part in parts)), nothing])
    return Factors(torch.cat([part.down for part in parts]), up)


def is_fused(layer: str) -> bool:
    """Whether a layer, by `parse_key`'s name, is a fused one."""
    return _FUSED.fullmatch(layer) is not None


def split_layers(layers: Mapping[str, Factors], where: str) -> tuple[dict[str, Factors], list[str]]:
    """Return layers with every fused one as queries, keys and values, and the names of feed-forwards that do something.

    Args:
        layers: Of a file, by the names that `blora.adapters.keys.parse_key` gives.
        where: What messages call the file.

    Raises:
        KeyMismatchError: A fused layer is not as wide as its parts together, or they are there, too.
    """
    split: dict[str, Factors] = {}
    active: list[str] = []
    for layer, factors in layers.items():
        match = _FUSED.fullmatch(layer)
        parts = _parts(match["block"], match["fused"], factors, f"{where}, {layer}") if match else {layer: factors}
        if twice := split.keys() & parts.keys():
            raise KeyMismatchError("a layer given twice", min(twice), "fused or by itself", where, "remove one of them")
        feed_forward = parts.pop(f"{match['block']}.proj_mlp", None) if match else None
        if feed_forward is not None and bool(feed_forward.up.any()):
            active.append(f"{layer} (feed-forward)")
        split |= parts
    return split, active


def _parts(block: str, fused: str, factors: Factors, where: str) -> dict[str, Factors]:
    """The layers that a fused one stands for."""
    names, width = FUSED[fused], factors.down.shape[1]
    widths = [_FEED_FORWARD * width if name == "proj_mlp" else width for name in names]
    if factors.up.shape[0] != sum(widths):
        what = (
            "not the queries, keys, values and feed-forward of FLUX" if fused == "linear1" else "not FLUX's attention"
        )
        raise KeyMismatchError(what, f"{factors.up.shape[0]} numbers out of {width}", f"{sum(widths)}", where)
    rows = factors.up.split(widths)
    return {f"{block}.{name}": _without_idle(factors.down, up) for name, up in zip(names, rows, strict=True)}


def _without_idle(down: Tensor, up: Tensor) -> Factors:
    """The same update without the part of the rank that does nothing; one of an update that is zero."""
    used = up.any(dim=0)
    if not bool(used.any()):
        used[0] = True
    return Factors(down[used].clone(), up[:, used].clone())
