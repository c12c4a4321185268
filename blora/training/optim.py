"""AdamW for K adapters at once: every adapter has its own learning rate, step count, clipping and state.

All weights of a pack lie in one matrix, a row for each adapter, so that a step is one of torch's fused kernels an
adapter, whatever the number of layers. The kernel itself divides by the adapter's loss scale and clipping, and leaves
an adapter alone whose numbers are not finite, so that nothing of a step has to wait for the host.
Source: arXiv 1711.05101, algorithm 2, as torch.optim.AdamW does it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.optim.adamw import adamw

__all__ = ["FlatFactors", "PackedAdamW"]


class FlatFactors:
    """The factors of K adapters as one matrix, seen layer by layer through views.

    Attributes:
        values: (K, parameters) fp32.
        grads: (K, parameters) fp32, filled by `backward`.
        exact: By layer name: down (K, rank, in) and up (K, out, rank), views of ``values``.
        layers: The same in the number format of the UNet, leaves of autograd. In fp32 they share the memory of
            ``values``; else `refresh` copies the whole matrix over at once.
    """

    def __init__(
        self,
        shapes: Mapping[str, tuple[int, int]],
        count: int,
        rank: int | Mapping[str, int],
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Lay out zeros.

        Args:
            shapes: By layer name, (out, in) of its weight; the order is the order in the matrix.
            count: Number of adapters, K.
            rank: Rank of every layer, or of each by its name.
            device: Where the matrix lies.
            dtype: Number format that the UNet computes in.
        """
        ranks = dict.fromkeys(shapes, rank) if isinstance(rank, int) else rank
        size = sum(ranks[name] * (inner + outer) for name, (outer, inner) in shapes.items())
        self.values = torch.zeros(count, size, device=device)
        self.grads = torch.zeros_like(self.values)
        self._used = self.values if dtype == torch.float32 else torch.zeros_like(self.values, dtype=dtype)
        self.exact: dict[str, tuple[Tensor, Tensor]] = {}
        self.layers: dict[str, tuple[Tensor, Tensor]] = {}
        self._totals: list[Tensor] = []  # the part of `grads` of each leaf
        start = 0
        for name, (outer, inner) in shapes.items():
            of_layer = ranks[name]
            parts = ((start, of_layer, inner), (start + of_layer * inner, outer, of_layer))
            down, up = (_stretch(self.values, *part) for part in parts)
            used_down, used_up = (_stretch(self._used, *part).detach().requires_grad_() for part in parts)
            self.exact[name], self.layers[name] = (down, up), (used_down, used_up)
            self._totals += [_stretch(self.grads, *part) for part in parts]
            start += of_layer * (inner + outer)
        self._leaves = [leaf for pair in self.layers.values() for leaf in pair]

    def refresh(self) -> None:
        """Let the UNet see the values as they are now."""
        if self._used is not self.values:
            self._used.copy_(self.values)

    def backward(self, loss: Tensor, *, add: bool = False, whole: bool = True) -> None:
        """Write the gradient of a scalar to `grads`, or add it to what is there.

        Args:
            loss: Where to go back from.
            add: Whether to add.
            whole: Whether it must depend on every layer; else those that it does not depend on have a gradient of zero.
        """
        gradients = torch.autograd.grad(loss, self._leaves, allow_unused=not whole, materialize_grads=not whole)
        if not add:
            torch._foreach_copy_(self._totals, list(gradients))
        else:
            for total, gradient in zip(self._totals, gradients, strict=True):
                total.add_(gradient)

    def draw_down(self, index: int, generator: torch.Generator) -> None:
        """Start one adapter as LoRA does: down ~ N(0, 1 / rank), up = 0, so that the update is zero.

        Numbers are drawn on the CPU, layer by layer, and depend on nothing but the generator.
        Source: diffusers' LoRALinearLayer, which the reference implementation trains.
        """
        with torch.no_grad():
            for down, up in self.exact.values():
                rank = down.shape[1]
                down[index].copy_(torch.randn(down.shape[1:], generator=generator) / rank)
                up[index].zero_()

    def weaken(self, index: int, factor: float) -> None:
        """Multiply one adapter's update by a factor."""
        with torch.no_grad():
            for _, up in self.exact.values():
                up[index].mul_(factor)


def _stretch(matrix: Tensor, start: int, first: int, second: int) -> Tensor:
    """Return columns of a (K, columns) matrix as (K, first, second)."""
    return matrix[:, start : start + first * second].view(-1, first, second)


class PackedAdamW:
    """AdamW over the rows of a matrix.

    Attributes:
        mean: (K, parameters) running mean of gradients.
        square: (K, parameters) running mean of squared gradients.
        counts: (K,) fp32, steps taken by each adapter, beside the values so that nobody has to wait for them.
    """

    def __init__(self, values: Tensor, beta1: float, beta2: float, epsilon: float, weight_decay: float) -> None:
        """Start with empty state."""
        self.values, self.beta1, self.beta2 = values, beta1, beta2
        self.epsilon, self.weight_decay = epsilon, weight_decay
        self.mean, self.square = torch.zeros_like(values), torch.zeros_like(values)
        self.counts = torch.zeros(len(values), device=values.device)

    def steps_taken(self) -> list[int]:
        """How many steps each adapter has taken; waits for the device."""
        return [int(count) for count in self.counts.tolist()]

    def reset(self, index: int) -> None:
        """Forget one adapter's state, as if it had taken no step."""
        for state in (self.mean, self.square, self.counts):
            state[index].zero_()

    @torch.no_grad()
    def step(self, grads: Tensor, rates: Sequence[float | None], divisors: Tensor, finite: Tensor) -> None:
        """Take one step with each adapter that has a rate and finite numbers; leave the others exactly as they are.

        Args:
            grads: (K, parameters); overwritten.
            rates: Learning rate of each adapter, None to sit this step out.
            divisors: (K,) fp32, what each adapter's gradient is divided by first: its loss scale over its clipping.
            finite: (K,) bool, on the device, as the other is: where it is false nothing changes, the count included.
        """
        found_inf = (~finite).to(torch.float32)
        for index, rate in enumerate(rates):
            if rate is not None:
                state = (self.values, grads, self.mean, self.square)
                values, gradient, mean, square = ([matrix[index]] for matrix in state)
                adamw(
                    values, gradient, mean, square, [], [self.counts[index]],
                    fused=True, grad_scale=divisors[index], found_inf=found_inf[index], amsgrad=False, maximize=False,
                    beta1=self.beta1, beta2=self.beta2, lr=rate, weight_decay=self.weight_decay, eps=self.epsilon,
                )  # fmt: skip
