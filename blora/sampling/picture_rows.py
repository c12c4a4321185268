"""The adapters of each picture beside the UNet's layers, and which rows of a batch feel them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import get_args

import torch

from blora.adapters.adapter import Adapter
from blora.adapters.blocks import Half, target_layers
from blora.adapters.packed import Rows, inject, stack
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

    Args:
        changes: Undoes the injections.
        base: Whose UNet is injected.
        draws: The pictures of one batch.
    """
    injected = []
    for half in get_args(Half):
        adapters, strengths = _half_of(draws, half)
        injected += _inject(changes, base, target_layers(base.unet, half), adapters, strengths)
    wholes = [draw.whole for draw in draws]
    named = dict.fromkeys(name for adapter in wholes if adapter for name in adapter.layers)
    return injected + _inject(changes, base, tuple(named), wholes, [1.0] * len(draws))


def _half_of(draws: Sequence[Draw], half: Half) -> tuple[list[Adapter | None], list[float]]:
    """Each picture's adapter for a half, and its strength."""
    if half == "content":
        return [draw.content for draw in draws], [draw.content_strength for draw in draws]
    return [draw.style for draw in draws], [draw.style_strength for draw in draws]


def _inject(
    changes: ExitStack,
    base: Base,
    layers: Sequence[str],
    adapters: Sequence[Adapter | None],
    strengths: Sequence[float],
) -> list[PictureRows]:
    """Put each picture's own adapter beside the layers; a picture without one borrows any at strength zero.

    Adapters that occur twice are stacked twice: the layers then always compute in the same order, whichever pictures
    share an adapter, and a row stays bit-equal when its neighbours change.
    """
    present = [adapter for adapter in adapters if adapter is not None]
    if not present:
        return []
    filled = [adapter or present[0] for adapter in adapters]
    weights = [strength if adapter else 0.0 for adapter, strength in zip(adapters, strengths, strict=True)]
    rows = Rows([], count=len(adapters), device=base.device)
    changes.enter_context(inject(base.unet, stack(filled, layers, base.device, base.dtype), rows))
    return [PictureRows(rows, weights, base.device)]
