"""A B-LoRA as an immutable value: two halves of low-rank factors, loaded, saved, weakened and mixed.

A layer's weight delta is ``up @ down``. LoRA's alpha / rank is folded into ``up`` when a file is read or a training
ends, so that nothing has to be remembered beside the factors. Files are safetensors only; nothing is ever unpickled.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from blora.adapters.blocks import BLOCKS, Half, block_of, parse_key, target_layers
from blora.adapters.safetensors_bytes import pack_safetensors, unpack_safetensors, write_whole
from blora.errors import KeyMismatchError

__all__ = ["Adapter", "Factors", "load_adapter", "mix", "strength_from_reference"]


@dataclass(frozen=True, eq=False)
class Factors:
    """The low-rank update of one linear layer.

    Attributes:
        down: (rank, in) fp32.
        up: (out, rank) fp32, alpha / rank folded in.
    """

    down: Tensor
    up: Tensor

    @property
    def rank(self) -> int:
        """Rank of the update."""
        return int(self.down.shape[0])

    @property
    def delta(self) -> Tensor:
        """The change of the layer's weight, (out, in)."""
        return self.up @ self.down


@dataclass(frozen=True, eq=False)
class Adapter:
    """The update of the two blocks, or of one of them, with what is known about its origin.

    Attributes:
        layers: Factors by the layer's name in the UNet.
        metadata: What the file says about itself; names and values are strings.
    """

    layers: Mapping[str, Factors]
    metadata: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Detach both mappings from what the caller may still change."""
        object.__setattr__(self, "layers", MappingProxyType(dict(self.layers)))
        object.__setattr__(self, "metadata", MappingProxyType(dict(self.metadata)))

    def __reduce__(self) -> tuple[type[Adapter], tuple[dict[str, Factors], dict[str, str]]]:
        """Pickle as plain mappings, since read-only views do not pickle."""
        return Adapter, (dict(self.layers), dict(self.metadata))

    def half(self, half: Half) -> Adapter:
        """Return one half; empty if the adapter does not have it."""
        layers = {name: factors for name, factors in self.layers.items() if block_of(name) == half}
        return Adapter(layers, self.metadata)

    @property
    def content(self) -> Adapter:
        """The content half."""
        return self.half("content")

    @property
    def style(self) -> Adapter:
        """The style half."""
        return self.half("style")

    @property
    def rank(self) -> int:
        """The largest rank of any layer; 0 for an empty adapter."""
        return max((factors.rank for factors in self.layers.values()), default=0)

    def scaled(self, strength: float) -> Adapter:
        """Return the adapter with every weight delta multiplied by ``strength``: linear, once."""
        layers = {name: Factors(factors.down, factors.up * strength) for name, factors in self.layers.items()}
        return Adapter(layers, self.metadata)

    def save_half(self, path: str | os.PathLike[str] | None = None) -> bytes:
        """Write one half as fp16 safetensors with diffusers' keys.

        Equal adapters give equal bytes. A file is replaced whole or not at all.

        Args:
            path: Where to write; None only returns the bytes.

        Returns:
            The file's bytes.

        Raises:
            ValueError: The adapter is not exactly one half.
            KeyMismatchError: A weight is not finite, or too large for fp16.
        """
        halves = {block_of(name) for name in self.layers}
        if len(halves) != 1 or None in halves:
            raise ValueError(f"save_half takes one half, not {sorted(map(str, halves))}: use .content or .style")
        tensors = {}
        for name, factors in self.layers.items():
            for part, value in (("down", factors.down), ("up", factors.up)):
                tensors[f"unet.{name}.lora.{part}.weight"] = value.detach().to("cpu", torch.float16).contiguous()
        _check_finite(tensors, str(path or ""))
        data = pack_safetensors(tensors, {**self.metadata, "half": str(halves.pop()), "format": "pt"})
        if path is not None:
            write_whole(Path(path), data)
        return data


def strength_from_reference(strength: float) -> float:
    """Translate a strength as the reference implementation reads it into ours.

    It multiplies both factors, so that its 1.1 acts as 1.21 and its 0.5 as 0.25.
    Source: yardenfren1996/B-LoRA @ e08380d, ``blora_utils.py``, ``scale_lora``.
    """
    return strength * strength


def mix(content: Adapter, style: Adapter) -> Adapter:
    """Return one adapter with the content half of the first and the style half of the second."""
    origin = {f"content.{name}": value for name, value in content.metadata.items()}
    origin |= {f"style.{name}": value for name, value in style.metadata.items()}
    return Adapter({**content.content.layers, **style.style.layers}, origin)


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
    _check_finite(tensors, where)
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
    _refuse(unknown, "keys of no known dialect", where, dialects)
    _refuse(outside, "layers outside the content and style blocks", where, " and ".join(BLOCKS.values()))
    _refuse(twice, "keys that name a layer a second time", where, "each layer once")
    _refuse([] if parts else ["(none)"], "no layers", where, dialects)
    halved = [layer for layer, have in parts.items() if not {"down", "up"} <= have.keys()]
    _refuse(halved, "layers without both factors", where, "down and up for each layer")
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
    _refuse(layers.keys() - expected, "layers that the UNet does not have", where, f"{len(expected)} layers")
    _refuse(expected - layers.keys(), "layers missing from the file", where, f"all {len(expected)} layers")
    for layer, factors in layers.items():
        linear = unet.get_submodule(layer)
        fits: object = (linear.out_features, linear.in_features)
        have = (factors.up.shape[0], factors.down.shape[1])
        if have != fits:
            hint = "use the base model that the adapter was trained on"
            raise KeyMismatchError("shape does not fit the UNet", f"{have}", f"{fits}", f"{where}, {layer}", hint)


def _refuse(names: Iterable[str], what: str, where: str, accepted: str) -> None:
    """Raise with the first few names, if there are any."""
    found = sorted(names)
    if found:
        shown = ", ".join(found[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else "")
        raise KeyMismatchError(what, shown, accepted, where, "check that this is a B-LoRA for this kind of base model")


def _check_finite(tensors: Mapping[str, Tensor], where: str) -> None:
    bad = [key for key, value in tensors.items() if not bool(torch.isfinite(value).all())]
    _refuse(bad, "weights that are not finite in fp16", where, "finite numbers")
