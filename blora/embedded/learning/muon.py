"""Muon: steps whose directions are orthogonal matrices, so that no few directions of a layer take all of the learning.

Source: Keller Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024); the size of a step as in
arXiv 2502.16982, section 2.2, which makes a learning rate mean what it means to AdamW. torch.optim has one since 2.9,
for matrices alone; this one takes convolutions, and stays in fp32: bfloat16 gains nothing at these sizes.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim import AdamW

_A, _B, _C = 3.4445, -4.7750, 2.0315
"""Coefficients of the iteration: singular values end between .7 and 1.2, which is near enough."""


def orthogonalised(matrix: Tensor, iterations: int = 5) -> Tensor:
    """The matrix with all of its singular values near one.

    Args:
        matrix: (rows, columns), or several, (count, rows, columns).
        iterations: Of Newton and Schulz.
    """
    x = matrix.transpose(-1, -2) if matrix.shape[-2] > matrix.shape[-1] else matrix
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(iterations):
        gram = x @ x.transpose(-1, -2)
        x = _A * x + (_B * gram + _C * gram @ gram) @ x
    return x.transpose(-1, -2) if matrix.shape[-2] > matrix.shape[-1] else x


class Muon(torch.optim.Optimizer):
    """For weights of hidden layers, matrices or convolutions; for all others there is AdamW."""

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.01
    ) -> None:
        """Begin anew; `lr` as one would give it to AdamW."""
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step along the orthogonalised momentum (Nesterov's) of every weight."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["momentum"] = torch.zeros_like(weight)
                state["momentum"].lerp_(weight.grad, 1 - group["momentum"])
                ahead = torch.lerp(weight.grad, state["momentum"], group["momentum"]).flatten(1)
                size = 0.2 * max(ahead.shape) ** 0.5
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(orthogonalised(ahead).view_as(weight), alpha=-group["lr"] * size)


def shared_out(named: Iterable[tuple[str, nn.Parameter]], lr: float, outer: tuple[str, ...]) -> tuple[Muon, AdamW]:
    """Muon for what joins hidden layers; AdamW for norms, biases, and layers whose names begin with one of `outer`."""
    weights = list(named)
    hidden = [weight for name, weight in weights if weight.ndim > 1 and not name.startswith(outer)]
    chosen = set(map(id, hidden))
    others = [weight for _, weight in weights if id(weight) not in chosen]
    return Muon(hidden, lr=lr), AdamW(others, lr=lr, betas=(0.9, 0.99), weight_decay=0.01)
