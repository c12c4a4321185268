"""Mixes: the sum of weight deltas, exactly, and every row of a batch its own.

Tolerance on a CPU in fp32: a batch of mixes against a UNet whose weights were changed by the explicit deltas, three
steps of tiny latents of order one: 5e-4 is allowed, 3e-6 was measured.
"""

from __future__ import annotations

import copy

import pytest
import torch

import blora
from blora.adapters.adapter import Adapter
from blora.errors import KeyMismatchError
from blora.models.model import Base
from blora.sampling.draw import Draw
from blora.sampling.sample import sample_latents
from tests.blora.adapters.test_packed import random_adapter
from tests.blora.sampling.test_sample import QUICK

AGAINST_EXPLICIT = 5e-4


@pytest.fixture(scope="module")
def adapters(base: Base) -> list[Adapter]:
    """Three adapters of different ranks."""
    return [random_adapter(base, rank=rank, seed=rank) for rank in (3, 4, 7)]


def test_a_blend_is_linear_in_the_weight_deltas(adapters: list[Adapter]) -> None:
    weights = (0.7, -0.25, 1.6)
    halves = [adapter.style for adapter in adapters]
    mixed = blora.blend_adapters(list(zip(halves, weights, strict=True)))
    assert mixed.layers.keys() == halves[0].layers.keys() and mixed.rank == 3 + 4 + 7
    for name, factors in mixed.layers.items():
        wanted = sum(weight * half.layers[name].delta for half, weight in zip(halves, weights, strict=True))
        torch.testing.assert_close(factors.delta, wanted, atol=1e-6, rtol=1e-5)
        mean = sum(weight * half.layers[name].up.norm() for half, weight in zip(halves, weights, strict=True))
        assert abs(float(mean)) > 1e-3, "the factors are not all zero"


def test_one_batch_holds_different_mixes_and_each_is_its_explicit_delta(base: Base, adapters: list[Adapter]) -> None:
    one, two, three = adapters
    mixes = [
        ([(one, 0.5), (two, 0.5)], [(three, 1.0)]),
        ([(two, 1.0)], [(one, 0.2), (two, 0.3), (three, 0.9)]),
        ([(one, 1.4), (three, -0.4)], [(two, 0.6), (one, 0.6)]),
    ]
    draws = [
        Draw(
            blora.blend_adapters([(adapter.content, weight) for adapter, weight in content]),
            blora.blend_adapters([(adapter.style, weight) for adapter, weight in style]),
            "A [c] in [s] style",
            seed=number,
            content_strength=0.9,
            style_strength=1.1,
        )
        for number, (content, style) in enumerate(mixes)
    ]
    settings = QUICK.model_copy(update={"batch_size": 3})
    together = sample_latents(base, draws, settings)
    for number, (content, style) in enumerate(mixes):
        changed = copy.copy(base)
        changed.unet = copy.deepcopy(base.unet)
        for half, strength, parts in (("content", 0.9, content), ("style", 1.1, style)):
            for adapter, weight in parts:
                for name, factors in adapter.half(half).layers.items():  # type: ignore[arg-type]
                    changed.unet.get_submodule(name).weight.data += strength * weight * factors.delta
        plain = Draw(None, None, "A [c] in [s] style", seed=number)
        explicit = sample_latents(changed, [plain], settings)[0]
        torch.testing.assert_close(together[number], explicit, atol=AGAINST_EXPLICIT, rtol=0)
        bare = sample_latents(base, [plain], settings)[0]
        assert float((bare - explicit).abs().max()) > 20 * AGAINST_EXPLICIT, "the mix does something"


def test_the_ends_of_an_interpolation_are_the_adapters_themselves(base: Base, adapters: list[Adapter]) -> None:
    one, two = adapters[0].style, adapters[1].style
    ends = [Draw(None, blora.blend_adapters([(one, 1 - t), (two, t)]), "a", 0) for t in (0.0, 1.0)]
    alone = [Draw(None, one, "a", 0), Draw(None, two, "a", 0)]
    torch.testing.assert_close(
        sample_latents(base, ends, QUICK), sample_latents(base, alone, QUICK), atol=AGAINST_EXPLICIT, rtol=0
    )


def test_what_cannot_be_mixed_is_refused(adapters: list[Adapter]) -> None:
    with pytest.raises(ValueError, match="no adapter"):
        blora.blend_adapters([])
    with pytest.raises(ValueError, match="finite"):
        blora.blend_adapters([(adapters[0], float("nan"))])
    with pytest.raises(KeyMismatchError, match="different layers"):
        blora.blend_adapters([(adapters[0].content, 0.5), (adapters[1].style, 0.5)])
