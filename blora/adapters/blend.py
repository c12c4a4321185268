"""Several adapters by weight as one: the sum of their weight deltas, exactly.

    half_and_half = blend_adapters([(wave.style, 0.5), (gold.style, 0.5)])

With factors ``up_i @ down_i`` side by side along the rank, ``[w_1 up_1, w_2 up_2, …] @ [down_1; down_2; …]`` is
``sum_i w_i (up_i @ down_i)``: the mix is linear in the weight deltas, which a mean of the factors would not be. A blend
is an adapter like any other, of the sum of the ranks, so that every row of a batch may have a blend of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from blora.adapters.adapter import Adapter, Factors
from blora.errors import KeyMismatchError

__all__ = ["blend_adapters"]


def blend_adapters(parts: Sequence[tuple[Adapter, float]]) -> Adapter:
    """Return the adapter whose weight deltas are the weighted sum of others'.

    Args:
        parts: Adapters of the same layers (usually the same half), each with its weight; weights may be negative and
            need not sum to one.

    Raises:
        ValueError: No adapter, or a weight that is not finite.
        KeyMismatchError: The adapters have different layers, or layers of different shapes.
    """
    if not parts:
        raise ValueError("blend_adapters: received no adapter; accepted one or several with a weight each")
    if any(not abs(weight) < float("inf") for _, weight in parts):
        raise ValueError(f"blend_adapters: received weights {[weight for _, weight in parts]}; accepted finite numbers")
    names = parts[0][0].layers.keys()
    for number, (adapter, _) in enumerate(parts):
        if adapter.layers.keys() != names:
            stray = sorted(adapter.layers.keys() ^ names)[0]
            received = f"{stray} in only one of adapters 0 and {number}"
            raise KeyMismatchError("adapters of different layers", received, "the same half of each")
    origin = {f"{number}.{key}": value for number, (one, _) in enumerate(parts) for key, value in one.metadata.items()}
    origin |= {f"{number}.weight": repr(float(weight)) for number, (_, weight) in enumerate(parts)}
    layers = {name: _stacked(name, [(one.layers[name], weight) for one, weight in parts]) for name in names}
    return Adapter(layers, origin)


def _stacked(name: str, parts: Sequence[tuple[Factors, float]]) -> Factors:
    """One layer's factors side by side."""
    shapes = {(factors.up.shape[0], factors.down.shape[1]) for factors, _ in parts}
    if len(shapes) > 1:
        raise KeyMismatchError("layers of different shapes", str(sorted(shapes)), "adapters of one base", name)
    down = torch.cat([factors.down for factors, _ in parts])
    up = torch.cat([factors.up * weight for factors, weight in parts], dim=1)
    return Factors(down, up)
