"""AdamW for K adapters at once: every adapter has its own learning rate, step count, clipping and state.

All weights of a pack lie in one matrix, a row for each adapter, so that a step is a dozen operations whatever the
number of adapters and layers, and an adapter that sits a step out is a coefficient, not a branch.
Source: arXiv 1711.05101, algorithm 2, in the order of operations of torch.optim.AdamW.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

__all__ = ["FlatFactors", "PackedAdamW"]


class FlatFactors:
    """The factors of K adapters as one matrix, seen layer by layer through views.

    Attributes:
        values: (K, parameters) fp32.
        grads: (K, parameters) fp32, filled by `backward`.
        layers: By layer name: down (K, rank, in) and up (K, out, rank), leaves that share the matrix's memory.
    """

    def __init__(
        self, shapes: Mapping[str, tuple[int, int]], count: int, rank: int, device: torch.device | str = "cpu"
    ) -> None:
        """Lay out zeros.

        Args:
            shapes: By layer name, (out, in) of its weight; the order is the order in the matrix.
            count: Number of adapters, K.
            rank: Rank of every layer.
            device: Where the matrix lies.
        """
        size = sum(rank * (inner + outer) for outer, inner in shapes.values())
        self.values = torch.zeros(count, size, device=device)
        self.grads = torch.zeros_like(self.values)
        self.layers: dict[str, tuple[Tensor, Tensor]] = {}
        self._leaves: list[tuple[Tensor, Tensor]] = []  # each with its part of `grads`
        start = 0
        for name, (outer, inner) in shapes.items():
            middle, end = start + rank * inner, start + rank * (inner + outer)
            self.layers[name] = (self._leaf(start, middle, rank, inner), self._leaf(middle, end, outer, rank))
            start = end

    def _leaf(self, start: int, end: int, first: int, second: int) -> Tensor:
        """Make a leaf of a stretch of columns."""
        leaf = self.values[:, start:end].view(-1, first, second).detach().requires_grad_()
        self._leaves.append((leaf, self.grads[:, start:end].view(-1, first, second)))
        return leaf

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of a scalar to `grads`."""
        gradients = torch.autograd.grad(loss, [leaf for leaf, _ in self._leaves])
        for (_, total), gradient in zip(self._leaves, gradients, strict=True):
            total.add_(gradient)

    def draw_down(self, index: int, generator: torch.Generator) -> None:
        """Start one adapter as LoRA does: down ~ N(0, 1 / rank), up = 0, so that the update is zero.

        Numbers are drawn on the CPU, layer by layer, and depend on nothing but the generator.
        Source: diffusers' LoRALinearLayer, which the reference implementation trains.
        """
        with torch.no_grad():
            for down, up in self.layers.values():
                rank = down.shape[1]
                down[index].copy_(torch.randn(down.shape[1:], generator=generator) / rank)
                up[index].zero_()

    def weaken(self, index: int, factor: float) -> None:
        """Multiply one adapter's update by a factor."""
        with torch.no_grad():
            for _, up in self.layers.values():
                up[index].mul_(factor)


class PackedAdamW:
    """AdamW over the rows of a matrix.

    Attributes:
        mean: (K, parameters) running mean of gradients.
        square: (K, parameters) running mean of squared gradients.
        counts: Steps taken by each adapter.
    """

    def __init__(self, values: Tensor, beta1: float, beta2: float, epsilon: float, weight_decay: float) -> None:
        """Start with empty state."""
        self.values, self.beta1, self.beta2 = values, beta1, beta2
        self.epsilon, self.weight_decay = epsilon, weight_decay
        self.mean, self.square = torch.zeros_like(values), torch.zeros_like(values)
        self.counts = [0] * len(values)

    def reset(self, index: int) -> None:
        """Forget one adapter's state, as if it had taken no step."""
        self.mean[index].zero_()
        self.square[index].zero_()
        self.counts[index] = 0

    @torch.no_grad()
    def step(self, grads: Tensor, rates: Sequence[float | None], factors: Sequence[float]) -> None:
        """Take one step with each adapter that has a rate; leave the others exactly as they are.

        Args:
            grads: (K, parameters); overwritten.
            rates: Learning rate of each adapter, None to sit this step out.
            factors: What each adapter's gradient is multiplied by first (clipping, loss scale).
        """
        active = [rate is not None for rate in rates]
        self.counts = [count + moves for count, moves in zip(self.counts, active, strict=True)]
        for index in (index for index, moves in enumerate(active) if not moves):
            grads[index].zero_()  # 0 x NaN is NaN: a coefficient alone would not keep it out

        def column(chosen: Sequence[float], otherwise: float) -> Tensor:
            picked = [value if moves else otherwise for value, moves in zip(chosen, active, strict=True)]
            return torch.tensor(picked, dtype=grads.dtype, device=grads.device)[:, None]

        count = len(active)
        sizes = [(rate or 0.0) / (1 - self.beta1 ** max(n, 1)) for rate, n in zip(rates, self.counts, strict=True)]
        roots = [(1 - self.beta2 ** max(n, 1)) ** 0.5 for n in self.counts]
        grads.mul_(column(factors, 0.0))
        self.values.mul_(column([1 - (rate or 0.0) * self.weight_decay for rate in rates], 1.0))
        self.mean.lerp_(grads, column([1 - self.beta1] * count, 0.0))
        self.square.mul_(column([self.beta2] * count, 1.0))
        self.square.addcmul_(grads, grads * column([1 - self.beta2] * count, 0.0))
        spread = self.square.sqrt().div_(column(roots, 1.0)).add_(self.epsilon)
        self.values.sub_((self.mean * column(sizes, 0.0)).div_(spread))
