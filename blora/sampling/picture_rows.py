"""The adapters of each picture beside the UNet's layers, and which rows of a batch feel them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import get_args

import torch

from blora.adapters.adapter import Adapter
from blora.adapters.blocks import Half, lacking, target_layers
from blora.adapters.packed import Rows, inject, stack
from blora.errors import KeyMismatchError
from blora.models.model import Base
from blora.sampling.draw import Draw

__all__ = ["PictureRows", "inject_draws"]


@dataclass(frozen=True)
class PictureRows:
    """The rows of one injection: one or two neighbouring ones a picture.

    Attributes:
        rows: What the injected layers share.
        strengths: One a picture.
        device: Where the layers run.
    """

    rows: Rows
    strengths: Sequence[float]
    device: torch.device

    def lay(self, adapted: Sequence[bool]) -> None:
        """Lay out a batch.

        Args:
            adapted: For each of a picture's neighbouring rows, whether it feels the picture's adapter.
        """
        self.rows.set(
            [index for index in range(len(self.strengths)) for _ in adapted],
            [strength if feels else 0.0 for strength in self.strengths for feels in adapted],
            count=len(self.strengths),
            device=self.device,
        )


def inject_draws(changes: ExitStack, base: Base, draws: Sequence[Draw]) -> list[PictureRows]:
    """Put every adapter of some draws beside the layers of the UNet; rows are to be laid before the first pass.

    Draws may have adapters of different splits. A layer that is content to one of them and style to another cannot be
    injected a half at a time: there each draw has its own update with its strength in it.

    Args:
        changes: Undoes the injections.
        base: Whose UNet is injected.
        draws: The pictures of one batch.

    Raises:
        KeyMismatchError: An adapter lacks a layer, or a draw's two adapters overlap.
    """
    layers = {half: _layers_of(base, draws, half) for half in get_args(Half)}
    contested = set(layers["content"]) & set(layers["style"])
    injected = []
    for half, named in layers.items():
        adapters, strengths = _half_of(draws, half)
        injected += _inject(changes, base, [name for name in named if name not in contested], adapters, strengths)
    if contested:
        named = tuple(name for name in layers["content"] if name in contested)
        merged = [_merged(draw, contested) for draw in draws]
        injected += _inject(changes, base, named, merged, [1.0] * len(draws))
    wholes = [draw.whole for draw in draws]
    named = tuple(dict.fromkeys(name for adapter in wholes if adapter for name in adapter.layers))
    return injected + _inject(changes, base, named, wholes, [1.0] * len(draws), alike=True)


def _layers_of(base: Base, draws: Sequence[Draw], half: Half) -> tuple[str, ...]:
    """The layers of a half, by the splits of all adapters of some draws; each adapter must have those of its own."""
    adapters = [adapter for adapter in _half_of(draws, half)[0] if adapter is not None]
    splits = dict.fromkeys(adapter.split for adapter in adapters)
    by_split = {split: target_layers(base.unet, half, split=split) for split in splits}
    for adapter in adapters:
        if missing := lacking(adapter.layers, by_split[adapter.split]):
            raise KeyMismatchError("an adapter lacks a layer", missing[0], f"adapters with a {half} half")
    return tuple(dict.fromkeys(name for named in by_split.values() for name in named))


def _half_of(draws: Sequence[Draw], half: Half) -> tuple[list[Adapter | None], list[float]]:
    """Each picture's adapter for a half, its other layers left out, and its strength."""
    halves = [draw.content if half == "content" else draw.style for draw in draws]
    strengths = [draw.content_strength if half == "content" else draw.style_strength for draw in draws]
    return [adapter and adapter.half(half) for adapter in halves], strengths


def _merged(draw: Draw, layers: Collection[str]) -> Adapter | None:
    """A draw's updates of some layers with their strengths in them, whichever halves they are of."""
    sides = [(draw.content and draw.content.content, draw.content_strength)]
    sides += [(draw.style and draw.style.style, draw.style_strength)]
    have = {
        name: factors
        for adapter, strength in sides
        if adapter is not None
        for name, factors in adapter.scaled(strength).layers.items()
        if name in layers
    }
    return Adapter(have) if have else None


def _inject(
    changes: ExitStack,
    base: Base,
    layers: Sequence[str],
    adapters: Sequence[Adapter | None],
    strengths: Sequence[float],
    *,
    alike: bool = False,
) -> list[PictureRows]:
    """Put each picture's own adapter beside the layers; a picture without one borrows any at strength zero.

    What an adapter lacks of them, being of another split, is an update of zero, unless all must be `alike`.

    Adapters that occur twice are stacked twice: the layers then always compute in the same order, whichever pictures
    share an adapter, and a row stays bit-equal when its neighbours change.
    """
    present = [adapter for adapter in adapters if adapter is not None]
    if not present:
        return []
    filled = [adapter or present[0] for adapter in adapters]
    weights = [strength if adapter else 0.0 for adapter, strength in zip(adapters, strengths, strict=True)]
    rows = Rows([], count=len(adapters), device=base.device)
    factors = stack(filled, layers, base.device, base.dtype, whole=alike)
    changes.enter_context(inject(base.unet, factors, rows))
    return [PictureRows(rows, weights, base.device)]
