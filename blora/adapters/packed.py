"""Linear layers that hold K adapters and serve a batch in which every row has its own.

The base layer runs once over the whole batch. The low-rank part is two batched matrix products over adapters, so that
neither training nor sampling loops over adapters in Python. Nothing here knows about images, prompts or optimizers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType, TracebackType

import torch
from torch import Tensor, nn

from blora.adapters.adapter import Adapter
from blora.adapters.blocks import lacking
from blora.adapters.factors import Factors
from blora.errors import KeyMismatchError, TopologyError

__all__ = ["Injection", "PackedLinear", "Rows", "inject", "stack"]


_LAYOUTS_KEPT = 64
"""Layouts that are brought to the device once: a training with rows of two kinds has few, and another in every step."""


class Rows:
    """Which adapter each row of a batch uses and how strongly; shared by the layers of one injection.

    Attributes:
        adapters: (rows,) int64, adapter of each row; rows without one point at adapter 0 with strength 0.
        strengths: (rows, 1, 1) fp32, factor of each row's weight delta, or None where all are one.
        each: Rows of each adapter if the layout is regular (all rows of adapter 0, then all of 1, …), else 0.
        even: True if all rows have the same strength.
        idle: True if no row has an adapter with a strength other than 0, so that the base answers alone.
    """

    def __init__(
        self,
        adapters: Sequence[int | None],
        strengths: Sequence[float] | float = 1.0,
        *,
        count: int | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        """Lay out a batch; see `set`."""
        self._placed: dict[tuple[object, ...], tuple[Tensor, Tensor | None]] = {}
        self.set(adapters, strengths, count=count, device=device)

    @classmethod
    def regular(cls, count: int, each: int, strength: float = 1.0, device: torch.device | str = "cpu") -> Rows:
        """Return the layout of training: ``each`` rows of every adapter, in order."""
        return cls([index for index in range(count) for _ in range(each)], strength, count=count, device=device)

    def set(
        self,
        adapters: Sequence[int | None],
        strengths: Sequence[float] | float = 1.0,
        *,
        count: int | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        """Change the layout for the next forward pass.

        Args:
            adapters: Adapter of each row, from 0; None for a row that uses the base alone.
            strengths: Factor of each row's weight delta, or one for all.
            count: Number of adapters held by the layers; by default the highest that a row uses.
            device: Where the layers run.

        Raises:
            ValueError: Not one strength a row, or an adapter outside 0 … count - 1.
        """
        factors = [strengths] * len(adapters) if isinstance(strengths, float | int) else list(strengths)
        if len(factors) != len(adapters):
            raise ValueError(f"{len(adapters)} rows need as many strengths: received {len(factors)}")
        held = count if count is not None else max((index for index in adapters if index is not None), default=-1) + 1
        if any(index is not None and not 0 <= index < held for index in adapters):
            raise ValueError(f"rows name adapters {list(adapters)}: accepted None and 0 to {held - 1}")
        factors = [0.0 if index is None else float(factor) for index, factor in zip(adapters, factors, strict=True)]
        indices = [index or 0 for index in adapters]
        each, rest = divmod(len(indices), held) if held else (0, 1)
        self.each = each if not rest and indices == [row // max(each, 1) for row in range(len(indices))] else 0
        self.idle, self.even = not any(factors), len(set(factors)) <= 1
        key = (device, tuple(indices), tuple(factors))
        if key not in self._placed:
            if len(self._placed) >= _LAYOUTS_KEPT:
                self._placed.clear()
            plain = all(factor == 1.0 for factor in factors)
            placed = None if plain else torch.tensor(factors, dtype=torch.float32, device=device)[:, None, None]
            self._placed[key] = torch.tensor(indices, dtype=torch.int64, device=device), placed
        self.adapters, self.strengths = self._placed[key]

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.adapters)


class PackedLinear(nn.Module):
    """A frozen linear layer with K low-rank updates beside it.

    Attributes:
        base: The layer as it was.
        down: (K, rank, in). Kept out of the module's parameters, so that the UNet's own state does not change.
        up: (K, out, rank), scale folded in. Ranks smaller than the largest are padded with zeros.
        rows: The layout that all layers of an injection share.
        gain: Factor of this layer's updates, beside the rows' strengths.
    """

    def __init__(self, base: nn.Linear, down: Tensor, up: Tensor, rows: Rows, gain: float = 1.0) -> None:
        """Wrap ``base``; nothing is copied."""
        super().__init__()
        self.base = base
        self.in_features, self.out_features = base.in_features, base.out_features
        self.down, self.up, self.rows, self.gain = down, up, rows, gain
        if down.shape[0] != up.shape[0] or down.shape[1] != up.shape[2]:
            raise ValueError(f"factors do not multiply: down {tuple(down.shape)}, up {tuple(up.shape)}")

    def forward(self, hidden: Tensor) -> Tensor:
        """Return base output plus each row's own update.

        Args:
            hidden: (rows, tokens, in). Rows that are one (expanded, stride 0), such as the prompt that a whole pack
                shares, are computed once an adapter.

        Returns:
            (rows, tokens, out); exactly the base layer's output in rows without adapter or with strength 0.
        """
        rows, held, batch = self.rows, self.down.shape[0], hidden.shape[0]
        if rows.idle:
            out: Tensor = self.base(hidden)
            return out
        if batch != len(rows):
            raise ValueError(f"a batch of {batch} rows met a layout of {len(rows)}: call Rows.set first")
        down, up = self.down.to(hidden.dtype), self.up.to(hidden.dtype)
        if self.gain != 1.0:
            up = up * self.gain
        if not rows.each or batch != rows.each * held:
            return self._updated(hidden, down[rows.adapters], up[rows.adapters], rows.strengths)
        if hidden.stride(0) or rows.each == 1 or not rows.even:
            return self._updated(hidden, down, up, rows.strengths)
        strengths = None if rows.strengths is None else rows.strengths[:held]
        return self._updated(hidden[:held], down, up, strengths).repeat_interleave(rows.each, dim=0)

    def _updated(self, hidden: Tensor, down: Tensor, up: Tensor, strengths: Tensor | None) -> Tensor:
        """Add updates of groups of neighbouring rows: two products, and no copy of what comes in or goes out."""
        batch, tokens, groups = hidden.shape[0], hidden.shape[1], down.shape[0]
        out: Tensor = self.base(hidden)
        inner = torch.bmm(hidden.reshape(groups, -1, self.in_features), down.transpose(1, 2))
        if strengths is not None:
            inner = (inner.view(batch, tokens, -1) * strengths.to(inner.dtype)).view(inner.shape)
        total = torch.baddbmm(out.reshape(groups, -1, self.out_features), inner, up.transpose(1, 2))
        return total.view(batch, tokens, self.out_features)


class Injection:
    """Packed layers put into a UNet; `eject` (or leaving the ``with`` block) takes them out again."""

    def __init__(self, unet: nn.Module, layers: Mapping[str, PackedLinear], rows: Rows) -> None:
        """Put each layer in the place of the one it wraps."""
        self.unet, self.layers, self.rows = unet, dict(layers), rows
        for name, layer in self.layers.items():
            unet.set_submodule(name, layer)

    def eject(self) -> None:
        """Restore the UNet exactly: the same modules as before in the same places. A second call does nothing."""
        for name, layer in self.layers.items():
            self.unet.set_submodule(name, layer.base)
        self.layers.clear()

    def __enter__(self) -> Injection:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Eject, whatever happened."""
        self.eject()


def inject(
    unet: nn.Module,
    factors: Mapping[str, tuple[Tensor, Tensor]],
    rows: Rows,
    gains: Mapping[str, float] = MappingProxyType({}),
) -> Injection:
    """Put K adapters beside the named linear layers of a UNet.

    Args:
        unet: The UNet; several injections may share it as long as they name different layers.
        factors: By layer name: down (K, rank, in) and up (K, out, rank), on the UNet's device.
        rows: The layout; keep it and call its `Rows.set` to change it between forward passes.
        gains: By layer name, the factor of its updates where that is not one.

    Raises:
        TopologyError: A name is not a plain linear layer of the UNet, or it holds adapters already.
        ValueError: Factors that do not multiply, or do not fit the layer.
    """
    layers: dict[str, PackedLinear] = {}
    for name, (down, up) in factors.items():
        try:
            base = unet.get_submodule(name)
        except AttributeError as error:
            raise TopologyError("the UNet has no such layer", name, "a linear layer of this UNet") from error
        if not isinstance(base, nn.Linear):
            raise TopologyError("cannot carry adapters", f"{name}: {type(base).__name__}", "a plain nn.Linear")
        if (down.shape[2], up.shape[1]) != (base.in_features, base.out_features):
            raise ValueError(f"{name}: factors of {down.shape[2]} -> {up.shape[1]} beside {base}")
        layers[name] = PackedLinear(base, down, up, rows, gains.get(name, 1.0))
    return Injection(unet, layers, rows)


def stack(
    adapters: Sequence[Adapter],
    layers: Iterable[str],
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    *,
    whole: bool = True,
) -> dict[str, tuple[Tensor, Tensor]]:
    """Stack the factors of several adapters for `inject`, smaller ranks padded with zeros.

    Args:
        adapters: K adapters; each must have every layer, or the keys and values of cross-attention alone, and then its
            update of the others is zero.
        layers: Names of the layers, usually those of `blora.adapters.blocks.target_layers`.
        device: Where the factors go.
        dtype: Number format of the factors; the UNet's own saves a conversion in each forward pass.
        whole: Whether an adapter that lacks other layers is refused; else its update of these is zero, too.

    Returns:
        By layer name: down (K, rank, in) and up (K, out, rank), of the layers that any adapter has.

    Raises:
        KeyMismatchError: An adapter lacks a layer.
    """
    layers = tuple(layers)
    for index, adapter in enumerate(adapters):
        if whole and (missing := lacking(adapter.layers, layers)):
            received = f"adapter {index} of {len(adapters)} without {missing[0]}"
            raise KeyMismatchError("an adapter lacks a layer", received, "adapters with this half")
    stacked: dict[str, tuple[Tensor, Tensor]] = {}
    for name in layers:
        held = [adapter.layers.get(name) for adapter in adapters]
        known = next((factor for factor in held if factor is not None), None)
        if known is None:
            continue
        factors = [_nothing_like(known) if factor is None else factor for factor in held]
        rank = max(factor.rank for factor in factors)
        distinct = {id(factor): factor for factor in factors}  # each goes to the device once
        placed = {key: _placed(factor, rank, device, dtype) for key, factor in distinct.items()}
        downs, ups = zip(*(placed[id(factor)] for factor in factors), strict=True)
        stacked[name] = (torch.stack(downs), torch.stack(ups))
    return stacked


def _placed(factors: Factors, rank: int, device: torch.device | str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Down and up on a device, with zeros up to a rank."""
    down, up = factors.down.to(device, dtype), factors.up.to(device, dtype)
    if missing := rank - factors.rank:
        return nn.functional.pad(down, (0, 0, 0, missing)), nn.functional.pad(up, (0, missing))
    return down, up


def _nothing_like(factors: Factors) -> Factors:
    """An update of zero for the same layer."""
    return Factors(torch.zeros_like(factors.down[:1]), torch.zeros_like(factors.up[:, :1]))
