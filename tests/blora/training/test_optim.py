"""The packed optimizer against torch's own, one adapter at a time."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from blora.training.optim import FlatFactors, PackedAdamW

SHAPES = {"first": (5, 3), "second": (2, 7)}
RANK = 2


def gradients(step: int, count: int, size: int) -> Tensor:
    draw = torch.Generator().manual_seed(step)
    return torch.randn(count, size, generator=draw) * 10.0 ** (step - 3)


@pytest.mark.parametrize("skips", [{}, {0: {1, 2}, 2: {0}}, {1: {0, 1, 2, 3, 4}}])
def test_each_row_is_torchs_adamw(skips: dict[int, set[int]]) -> None:
    """Rows that sit a step out keep weights, moments and step count; the others do not notice."""
    count, size, rates = 3, 11, [1e-2, 1e-3, 1e-4]
    start = torch.randn(count, size, generator=torch.Generator().manual_seed(9))
    values = start.clone()
    packed = PackedAdamW(values, 0.9, 0.99, 1e-8, 0.1)
    plain = [start[row].clone().requires_grad_() for row in range(count)]
    theirs = [torch.optim.AdamW([p], lr, (0.9, 0.99), 1e-8, 0.1) for p, lr in zip(plain, rates, strict=True)]
    for step in range(5):
        grads = gradients(step, count, size)
        out = [row for row in range(count) if step in skips.get(row, ())]
        spoiled = grads.clone()
        spoiled[out] = torch.nan
        # Half of them sit out because the host says so, half because the device sees that their numbers are not finite.
        finite = torch.tensor([row not in out for row in range(count)])
        told = [None if row in out and step % 2 else rates[row] for row in range(count)]
        packed.step(spoiled, told, torch.full((count,), 2.0), finite)
        for row in set(range(count)) - set(out):
            plain[row].grad = grads[row] * 0.5
            theirs[row].step()
    for row in range(count):
        torch.testing.assert_close(values[row], plain[row].detach(), rtol=1e-6, atol=1e-7)
        assert packed.counts[row] == 5 - len(skips.get(row, ()))
    if skips.get(1) == {0, 1, 2, 3, 4}:
        assert torch.equal(values[1], start[1]) and not packed.mean[1].any()


def test_a_rows_step_does_not_depend_on_the_pack() -> None:
    grads = gradients(3, 4, 11)
    together, alone = torch.ones(4, 11), torch.ones(1, 11)
    PackedAdamW(together, 0.9, 0.99, 1e-8, 0.1).step(
        grads.clone(), [1e-2, None, 1e-3, 1e-4], torch.ones(4), torch.ones(4) > 0
    )
    PackedAdamW(alone, 0.9, 0.99, 1e-8, 0.1).step(grads[2:3].clone(), [1e-3], torch.ones(1), torch.ones(1) > 0)
    assert torch.equal(together[2], alone[0])


def test_layers_are_views_of_one_matrix() -> None:
    factors = FlatFactors(SHAPES, 3, RANK)
    assert factors.values.shape == (3, RANK * (5 + 3 + 2 + 7))
    for name, (out, inner) in SHAPES.items():
        down, up = factors.layers[name]
        assert down.shape == (3, RANK, inner) and up.shape == (3, out, RANK)
        assert down.is_leaf and up.is_leaf
    factors.values.copy_(torch.arange(3 * 34.0).view(3, 34))
    spread = torch.cat([part.detach().flatten(1) for pair in factors.layers.values() for part in pair], dim=1)
    assert torch.equal(spread, factors.values)
    for weight in (1, 2):
        parts = [part for pair in factors.layers.values() for part in pair]
        factors.backward(torch.stack([(part[1] * weight).sum() for part in parts]).sum(), add=weight > 1)
    assert not factors.grads[[0, 2]].any()
    assert set(factors.grads[1].tolist()) == {3.0}


def test_a_start_changes_nothing_and_depends_on_its_generator_alone() -> None:
    wide = {"first": (300, 200)}
    many, one = FlatFactors(wide, 3, 8), FlatFactors(wide, 1, 8)
    for index in (2, 0, 1):
        many.draw_down(index, torch.Generator().manual_seed(index))
    one.draw_down(0, torch.Generator().manual_seed(2))
    assert torch.equal(many.values[2], one.values[0]) and not torch.equal(many.values[1], many.values[2])
    down, up = many.layers["first"]
    assert not up.any()
    assert down.std().item() == pytest.approx(1 / 8, rel=0.05)
