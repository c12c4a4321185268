"""The low-rank update of one layer, and what every set of them is refused for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from blora.errors import KeyMismatchError

__all__ = ["Factors", "check_finite", "refuse_layers"]


@dataclass(frozen=True, eq=False)
class Factors:
    """The low-rank update of one linear layer.

    Attributes:
        down: (rank, in) fp32, or what a UNet computes in (`Adapter.in_format`).
        up: (out, rank) of the same, alpha / rank folded in.
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


def refuse_layers(names: Iterable[str], what: str, where: str, accepted: str) -> None:
    """Raise with the first few names, if there are any."""
    listed = sorted(names)
    if listed:
        shown = ", ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")
        raise KeyMismatchError(what, shown, accepted, where, "check that this is a B-LoRA for this kind of base model")


def check_finite(tensors: Mapping[str, Tensor], where: str) -> None:
    """Refuse weights that are no numbers; raises KeyMismatchError."""
    bad = [key for key, value in tensors.items() if not bool(torch.isfinite(value).all())]
    refuse_layers(bad, "weights that are not finite in fp16", where, "finite numbers")
