"""An adapter file to an `Adapter`: every key must land, and none may be left over."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from torch import Tensor, nn

from blora.adapters.adapter import Adapter
from blora.adapters.blocks import BLOCKS, Half, block_of, target_layers
from blora.adapters.factors import Factors, check_finite, refuse_layers
from blora.adapters.keys import parse_key
from blora.adapters.safetensors_bytes import unpack_safetensors
from blora.errors import KeyMismatchError

__all__ = ["load_adapter"]


def load_adapter(source: bytes | str | os.PathLike[str], unet: nn.Module | None = None, *, name: str = "") -> Adapter:
    """Read an adapter, or one half, in any known dialect; every key must land and none may be left over.

    Args:
        source: The bytes of a safetensors file, or its path.
        unet: If given, the halves that the file holds must cover exactly its target layers, with its shapes.
        name: What messages call the source; the path by default.

    Raises:
        KeyMismatchError: Unreadable, unknown or missing keys, layers outside the two blocks, or shapes that do not fit.
    """
    data = source if isinstance(source, bytes) else Path(source).read_bytes()
    where = name or ("adapter" if isinstance(source, bytes) else str(source))
    try:
        tensors, metadata = unpack_safetensors(data)
    except SafetensorError as error:
        raise KeyMismatchError("not a readable adapter file", str(error), "a whole safetensors file", where) from error
    check_finite(tensors, where)
    layers = _collect(tensors, where)
    if unet is not None:
        _check_against(layers, unet, where)
    return Adapter(layers, metadata)


def _collect(tensors: Mapping[str, Tensor], where: str) -> dict[str, Factors]:
    """Group tensors by layer, fold alpha, and refuse whatever does not make whole layers of the two blocks."""
    parts: dict[str, dict[str, Tensor]] = {}
    unknown, outside, twice = [], [], []
    for key, value in tensors.items():
        parsed = parse_key(key)
        if parsed is None:
            unknown.append(key)
        elif block_of(parsed[0]) is None:
            outside.append(key)
        elif parsed[1] in parts.setdefault(parsed[0], {}):
            twice.append(key)
        else:
            parts[parsed[0]][parsed[1]] = value
    dialects = "diffusers, PEFT or kohya LoRA keys of the two blocks' attention projections"
    refuse_layers(unknown, "keys of no known dialect", where, dialects)
    refuse_layers(outside, "layers outside the content and style blocks", where, " and ".join(BLOCKS.values()))
    refuse_layers(twice, "keys that name a layer a second time", where, "each layer once")
    refuse_layers([] if parts else ["(none)"], "no layers", where, dialects)
    halved = [layer for layer, have in parts.items() if not {"down", "up"} <= have.keys()]
    refuse_layers(halved, "layers without both factors", where, "down and up for each layer")
    return {layer: _factors(layer, parts[layer], where) for layer in sorted(parts)}


def _factors(layer: str, parts: Mapping[str, Tensor], where: str) -> Factors:
    """Make fp32 factors of one layer's tensors with alpha / rank folded into ``up``."""
    down, up = parts["down"].float(), parts["up"].float()
    if down.ndim != 2 or up.ndim != 2 or down.shape[0] != up.shape[1]:
        received = f"down {tuple(down.shape)}, up {tuple(up.shape)}"
        raise KeyMismatchError("factors do not multiply", received, "(rank, in) and (out, rank)", f"{where}, {layer}")
    if "alpha" in parts:
        up = up * (float(parts["alpha"]) / down.shape[0])
    return Factors(down, up)


def _check_against(layers: Mapping[str, Factors], unet: nn.Module, where: str) -> None:
    """Compare the halves that are present with the UNet's layers, both ways, and the shapes."""
    halves: set[Half] = {half for half in map(block_of, layers) if half is not None}
    expected = {layer for half in halves for layer in target_layers(unet, half)}
    refuse_layers(layers.keys() - expected, "layers that the UNet does not have", where, f"{len(expected)} layers")
    refuse_layers(expected - layers.keys(), "layers missing from the file", where, f"all {len(expected)} layers")
    for layer, factors in layers.items():
        linear = unet.get_submodule(layer)
        fits: object = (linear.out_features, linear.in_features)
        have = (factors.up.shape[0], factors.down.shape[1])
        if have != fits:
            hint = "use the base model that the adapter was trained on"
            raise KeyMismatchError("shape does not fit the UNet", f"{have}", f"{fits}", f"{where}, {layer}", hint)
