"""A B-LoRA as an immutable value: two halves of low-rank factors, saved, weakened, mixed and blended.

A layer's weight delta is ``up @ down``. LoRA's alpha / rank is folded into ``up`` when a file is read or a training
ends, so that nothing has to be remembered beside the factors. Files are safetensors only; nothing is ever unpickled.

    half_and_half = blend_adapters([(wave.style, 0.5), (gold.style, 0.5)])

With factors ``up_i @ down_i`` side by side along the rank, ``[w_1 up_1, w_2 up_2, …] @ [down_1; down_2; …]`` is
``sum_i w_i (up_i @ down_i)``: a blend is linear in the weight deltas, which a mean of the factors would not be. It is
an adapter like any other, of the sum of the ranks, so that every row of a batch may have a blend of its own.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import torch

from blora.adapters.blocks import SPLIT_KEY, Half, is_flux, lacking, told_split
from blora.adapters.factors import Factors, check_finite
from blora.adapters.forms import Form, diffusers_keys, of_one_rank, write_form
from blora.adapters.safetensors_bytes import pack_safetensors, write_whole
from blora.errors import KeyMismatchError
from blora.settings.block_split import BlockSplit, own_split, shown_split, splits_apart

__all__ = ["Adapter", "blend_adapters", "joint_split", "mix", "strength_from_reference"]


@dataclass(frozen=True, eq=False)
class Adapter:
    """The update of the blocks of both halves, or of one of them, with what is known about its origin.

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
        split = self.split
        layers = {name: factors for name, factors in self.layers.items() if split.half_of(name) == half}
        return Adapter(layers, self.metadata)

    @property
    def split(self) -> BlockSplit:
        """The blocks of each half: as the adapter says, else the own split of the base that has such layers."""
        return told_split(self.metadata) or own_split(flux=is_flux(next(iter(self.layers), "")))

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

    def in_format(self, dtype: torch.dtype) -> Adapter:
        """Return the adapter in a UNet's number format, for drawing alone: mixes and files are made from fp32."""
        layers = {name: Factors(one.down.to(dtype), one.up.to(dtype)) for name, one in self.layers.items()}
        return Adapter(layers, self.metadata)

    def save(self, path: str | os.PathLike[str], form: Form = "kohya", name: str = "") -> list[Path]:
        """Write the adapter for other programs, with strengths and mixes in it: see `blora.adapters.forms`.

        Args:
            path: A ``.safetensors`` file; for PEFT a folder.
            form: "kohya" (ComfyUI, A1111, Forge, kohya, diffusers), "diffusers" or "peft".
            name: What programs show; the file's own name by default.

        Returns:
            What was written.

        Raises:
            ValueError: Another form, no layers, or a path that does not end in ``.safetensors``.
            KeyMismatchError: A weight is not finite, or too large for fp16.
        """
        return write_form(self.layers, self.metadata, path, form, name)

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
        halves = {self.split.half_of(name) for name in self.layers}
        if len(halves) != 1 or None in halves:
            raise ValueError(f"save_half takes one half, not {sorted(map(str, halves))}: use .content or .style")
        tensors = {}
        for name, factors in of_one_rank(self.layers).items():
            for key, value in zip(diffusers_keys(name), (factors.down, factors.up), strict=True):
                tensors[key] = value.detach().to("cpu", torch.float16).contiguous()
        check_finite(tensors, str(path or ""))
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
    """Return one adapter with the content half of the first and the style half of the second.

    Raises:
        KeyMismatchError: They were trained with different splits, and content and style blocks overlap.
    """
    origin = {f"content.{name}": value for name, value in content.metadata.items()}
    origin |= {f"style.{name}": value for name, value in style.metadata.items()}
    layers = {**content.content.layers, **style.style.layers}
    if content.layers and style.layers:
        split = joint_split(content.split, style.split)
    else:
        split = (content if content.layers else style).split
    return Adapter(layers, {**origin, **_told(split, layers)})


def joint_split(content: BlockSplit, style: BlockSplit) -> BlockSplit:
    """Return the content blocks of one split with the style blocks of another.

    Raises:
        KeyMismatchError: They overlap, or are of different kinds of base.
    """
    apart = splits_apart([content], [style])
    if not apart and content.is_flux != style.is_flux:
        apart = "halves for different kinds of base", f"{shown_split(content)} beside {shown_split(style)}"
    if apart:
        what, received = apart
        hint = f"train both with one split, such as {shown_split(content)}"
        raise KeyMismatchError(what, received, "content and style without a block in common", hint=hint)
    return BlockSplit(content=content.content, style=style.style)


def _told(split: BlockSplit, layers: Collection[str]) -> dict[str, str]:
    """What an adapter of such a split says of it: nothing where it is the own one of its base."""
    own = own_split(flux=is_flux(next(iter(layers), "")))
    return {} if split == own else {SPLIT_KEY: json.dumps(split.model_dump(mode="json"), sort_keys=True)}


def blend_adapters(parts: Sequence[tuple[Adapter, float]]) -> Adapter:
    """Return the adapter whose weight deltas are the weighted sum of others'.

    Args:
        parts: Adapters of the same layers (usually the same half), each with its weight; weights may be negative and
            need not sum to one.

    Raises:
        ValueError: No adapter, or a weight that is not finite.
        KeyMismatchError: The adapters have different layers, or layers of different shapes, or one's content layers
            are another's style layers. One of keys and values of cross-attention alone goes with one of all layers.
    """
    if not parts:
        raise ValueError("blend_adapters: received no adapter; accepted one or several with a weight each")
    if any(not abs(weight) < float("inf") for _, weight in parts):
        raise ValueError(f"blend_adapters: received weights {[weight for _, weight in parts]}; accepted finite numbers")
    names = dict.fromkeys(name for adapter, _ in parts for name in adapter.layers)
    for number, (adapter, _) in enumerate(parts):
        if stray := lacking(adapter.layers, names):
            received = f"adapter {number} of {len(parts)} without {stray[0]}"
            raise KeyMismatchError("adapters of different layers", received, "the same half of each")
    if turned := [name for name in names if len({part.split.half_of(name) for part, _ in parts}) > 1]:
        received = f"{turned[0]}, which is content to one and style to another"
        raise KeyMismatchError("adapters of different splits", received, "the same half of each")
    origin = {
        f"{number}.{key}": value for number, (part, _) in enumerate(parts) for key, value in part.metadata.items()
    }
    origin |= {f"{number}.weight": repr(float(weight)) for number, (_, weight) in enumerate(parts)}
    origin |= _told(parts[0][0].split, names)
    layers = {
        name: _stacked(name, [(part.layers[name], weight) for part, weight in parts if name in part.layers])
        for name in names
    }
    return Adapter(layers, origin)


def _stacked(name: str, parts: Sequence[tuple[Factors, float]]) -> Factors:
    """One layer's factors side by side."""
    shapes = {(factors.up.shape[0], factors.down.shape[1]) for factors, _ in parts}
    if len(shapes) > 1:
        raise KeyMismatchError("layers of different shapes", str(sorted(shapes)), "adapters of one base", name)
    down = torch.cat([factors.down for factors, _ in parts])
    up = torch.cat([factors.up * weight for factors, weight in parts], dim=1)
    return Factors(down, up)
