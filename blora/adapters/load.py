"""An adapter file to an `Adapter`: every key must land, and none may be left over."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Literal

from safetensors import SafetensorError
from torch import Tensor, nn

from blora.adapters.adapter import Adapter
from blora.adapters.alphas import PEFT_CONFIG, Alphas, scale_of, told_alphas, warn_of_no_alpha
from blora.adapters.blocks import (
    BLOCKS,
    PROJECTIONS,
    Half,
    attention_of,
    block_of,
    is_idle,
    lacking,
    projections_of,
    split_of,
    target_layers,
    told_split,
)
from blora.adapters.factors import Factors, check_finite, refuse_layers
from blora.adapters.fused import is_fused, split_layers
from blora.adapters.keys import is_of_other_layer, parse_key
from blora.adapters.safetensors_bytes import unpack_safetensors
from blora.errors import KeyMismatchError
from blora.settings.block_split import BlockSplit

__all__ = ["load_adapter"]

_DIALECTS = "diffusers, PEFT or kohya LoRA keys of the two blocks' attention projections"
_BLOCKS_ONLY = (
    f"attention of {' and '.join(BLOCKS.values())}, or of FLUX's single-stream blocks; only='blocks' (--only-blocks) "
    "takes it out of a larger one"
)


def load_adapter(
    source: bytes | str | os.PathLike[str],
    unet: nn.Module | None = None,
    *,
    name: str = "",
    only: Literal["blocks"] | None = None,
    config: bytes | None = None,
) -> Adapter:
    """Read an adapter, or one half, in any known dialect; every key must land and none may be left over.

    Alpha is folded into the factors, wherever it is written (`blora.adapters.alphas`). Where it is written nowhere, and
    the file is not one of ours, a scale of one is assumed, and logged.

    Args:
        source: The bytes of a safetensors file, or its path.
        unet: If given, the halves that the file holds must cover exactly its target layers, with its shapes.
        name: What messages call the source; the path by default.
        only: "blocks" takes the two blocks' attention out of a larger LoRA; the metadata then lists under ``dropped``
            what was left behind.
        config: What PEFT's configuration beside the file holds, where the source is bytes; a path's is found by itself.

    Raises:
        KeyMismatchError: Unreadable, unknown or missing keys, layers outside the two blocks, or shapes that do not fit.
    """
    data = source if isinstance(source, bytes) else Path(source).read_bytes()
    where = name or ("adapter" if isinstance(source, bytes) else str(source))
    try:
        tensors, metadata = unpack_safetensors(data)
    except SafetensorError as error:
        raise KeyMismatchError("not a readable adapter file", str(error), "a whole safetensors file", where) from error
    split = told_split(metadata)
    parts, dropped = _collect(tensors, where, split, blocks_only=only == "blocks")
    if not isinstance(source, bytes) and (beside := Path(source).parent / PEFT_CONFIG).is_file():
        config = beside.read_bytes()
    alphas = told_alphas(metadata, config, where)
    own = "half" in metadata or any(key.endswith("recipe_version") for key in metadata)  # alpha is in the factors
    if not own:
        warn_of_no_alpha(parts, alphas, where)
    layers, active = split_layers({name: _factors(name, parts[name], alphas, where) for name in sorted(parts)}, where)
    if only is None:
        refuse_layers(active, "known layers that this method does not use", where, _BLOCKS_ONLY)
    dropped += active
    if dropped:
        metadata |= {"dropped": ", ".join(sorted(dropped))}
    _check_whole(layers.keys(), where)
    if unet is not None:
        _check_against(layers, unet, split, where)
    return Adapter(layers, metadata)


def _collect(
    tensors: Mapping[str, Tensor], where: str, split: BlockSplit | None, *, blocks_only: bool
) -> tuple[dict[str, dict[str, Tensor]], list[str]]:
    """Group tensors by layer and part; refuse, or with `blocks_only` list, what is not of the two blocks' attention."""
    parts: dict[str, dict[str, Tensor]] = {}
    unknown: list[str] = []
    other: list[str] = []
    outside, twice = [], []
    for key, value in tensors.items():
        parsed = parse_key(key)
        if parsed is None:
            (other if is_of_other_layer(key) else unknown).append(key)
        elif is_idle(parsed[0], split) and not is_fused(parsed[0]):
            other.append(key)
        elif block_of(parsed[0], split) is None:
            outside.append(key)
        elif parsed[1] in parts.setdefault(parsed[0], {}):
            twice.append(key)
        else:
            parts[parsed[0]][parsed[1]] = _plain(value)
    refuse_layers(unknown, "keys of no known dialect", where, _DIALECTS)
    if not blocks_only:
        refuse_layers(other, "known layers that this method does not use", where, _BLOCKS_ONLY)
        refuse_layers(outside, "layers outside the content and style blocks", where, _BLOCKS_ONLY)
    refuse_layers(twice, "keys that name a layer a second time", where, "each layer once")
    refuse_layers([] if parts else ["(none)"], "no layers", where, _DIALECTS)
    halved = [layer for layer, have in parts.items() if not {"down", "up"} <= have.keys()]
    refuse_layers(halved, "layers without both factors", where, "down and up for each layer")
    check_finite({f"{layer}, {part}": value for layer, have in parts.items() for part, value in have.items()}, where)
    return parts, [*other, *outside]


def _plain(value: Tensor) -> Tensor:
    """In single precision, since 8-bit numbers know no arithmetic."""
    return value.float()


def _factors(layer: str, parts: Mapping[str, Tensor], alphas: Alphas | None, where: str) -> Factors:
    """Make fp32 factors of one layer's tensors with the scale folded into ``up``."""
    down, up = parts["down"], parts["up"]
    if down.ndim != 2 or up.ndim != 2 or down.shape[0] != up.shape[1] or not down.shape[0]:
        received = f"down {tuple(down.shape)}, up {tuple(up.shape)}"
        accepted = "(rank, in) and (out, rank), rank at least 1"
        raise KeyMismatchError("factors do not multiply", received, accepted, f"{where}, {layer}")
    rank = int(down.shape[0])
    return Factors(down, up * scale_of(layer, rank, parts.get("alpha"), alphas, where))


def _check_whole(layers: Collection[str], where: str) -> None:
    """Refuse a half that lacks some of the projections of an attention that it has."""
    attentions = set(map(attention_of, layers))
    expected = {f"{attention}.{projection}" for attention in attentions for projection in projections_of(attention)}
    accepted = f"{', '.join(PROJECTIONS)} of each attention, or to_k and to_v of each attn2"
    _refuse_missing(lacking(layers, expected), where, accepted)


def _check_against(layers: Mapping[str, Factors], unet: nn.Module, split: BlockSplit | None, where: str) -> None:
    """Compare the halves that are present with the UNet's layers, both ways, and the shapes."""
    split = split or split_of(unet)
    halves: set[Half] = {half for half in map(split.half_of, layers) if half is not None}
    expected = {layer for half in halves for layer in target_layers(unet, half, split=split)}
    refuse_layers(layers.keys() - expected, "layers that the UNet does not have", where, f"{len(expected)} layers")
    _refuse_missing(lacking(layers.keys(), expected), where, f"all {len(expected)} layers")
    for layer, factors in layers.items():
        linear = unet.get_submodule(layer)
        fits: object = (linear.out_features, linear.in_features)
        have = (factors.up.shape[0], factors.down.shape[1])
        if have != fits:
            hint = "use the base model that the adapter was trained on"
            raise KeyMismatchError("shape does not fit the UNet", f"{have}", f"{fits}", f"{where}, {layer}", hint)


def _refuse_missing(layers: Iterable[str], where: str, accepted: str) -> None:
    refuse_layers(layers, "layers missing from the file", where, accepted)
