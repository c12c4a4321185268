"""Packed layers: each row its own adapter, exactly the base where there is none, and a UNet left as it was."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from blora.adapters.adapter import Adapter
from blora.adapters.blocks import target_layers
from blora.adapters.factors import Factors
from blora.adapters.packed import PackedLinear, Rows, inject, stack
from blora.errors import KeyMismatchError, TopologyError
from blora.models.model import Base

IN, OUT, TOKENS = 6, 5, 3
EXACT = 1e-12
"""Relative tolerance of the algebra in double precision; strengths in the tests are powers of two or 0."""


def make_layer(count: int, rank: int, rows: Rows, seed: int = 0) -> PackedLinear:
    draw = torch.Generator().manual_seed(seed)
    base = nn.Linear(IN, OUT, dtype=torch.float64)
    down = torch.randn(count, rank, IN, generator=draw, dtype=torch.float64)
    up = torch.randn(count, OUT, rank, generator=draw, dtype=torch.float64)
    return PackedLinear(base, down, up, rows)


def one_by_one(layer: PackedLinear, hidden: Tensor, adapters: list[int | None], strengths: list[float]) -> Tensor:
    """Compute each row alone with the merged weight: the plain meaning of an adapter."""
    rows = []
    for row, index, strength in zip(hidden, adapters, strengths, strict=True):
        weight = layer.base.weight
        if index is not None:
            weight = weight + strength * layer.up[index] @ layer.down[index]
        rows.append(row @ weight.T + layer.base.bias)
    return torch.stack(rows)


def unet_inputs(base: Base, rows: int, seed: int = 0) -> dict[str, Any]:
    """Make inputs of a UNet of the tiny base's shape; a row's numbers depend on its index alone."""

    def randn(*shape: int) -> Tensor:
        return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed + i)) for i in range(rows)])

    config = base.unet.config
    pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
    return {
        "sample": randn(4, 8, 8),
        "timestep": torch.tensor([100 * (i + 1) for i in range(rows)]),
        "encoder_hidden_states": randn(77, config.cross_attention_dim),
        "added_cond_kwargs": {"text_embeds": randn(pooled), "time_ids": torch.full((rows, 6), 32.0)},
    }


def random_adapter(base: Base, rank: int, seed: int, size: float = 0.3) -> Adapter:
    """Make an adapter of both halves with random weights that are no longer zero."""
    draw = torch.Generator().manual_seed(seed)
    layers = {}
    for name in (*target_layers(base.unet, "content"), *target_layers(base.unet, "style")):
        out, inner = base.unet.get_parameter(f"{name}.weight").shape
        down = torch.randn(rank, inner, generator=draw) / inner**0.5
        layers[name] = Factors(down, torch.randn(out, rank, generator=draw) * size / rank**0.5)
    return Adapter(layers)


@settings(deadline=None, max_examples=60)
@given(st.data(), st.integers(1, 5), st.integers(1, 4), st.integers(1, 8))
def test_any_layout_equals_one_by_one(data: st.DataObject, count: int, rank: int, batch: int) -> None:
    index = st.one_of(st.none(), st.integers(0, count - 1))
    adapters = data.draw(st.lists(index, min_size=batch, max_size=batch))
    strengths = data.draw(st.lists(st.sampled_from([0.0, 0.5, 1.0, -2.0]), min_size=batch, max_size=batch))
    layer = make_layer(count, rank, Rows(adapters, strengths, count=count))
    hidden = torch.randn(batch, TOKENS, IN, generator=torch.Generator().manual_seed(batch), dtype=torch.float64)
    torch.testing.assert_close(layer(hidden), one_by_one(layer, hidden, adapters, strengths), rtol=EXACT, atol=EXACT)


@pytest.mark.parametrize(("count", "each"), [(1, 1), (1, 4), (2, 3), (3, 1), (5, 2)])
def test_regular_layout_equals_the_same_rows_gathered(count: int, each: int) -> None:
    regular = Rows.regular(count, each, 0.5)
    assert regular.each == each
    layer = make_layer(count, 2, regular)
    hidden = torch.randn(count * each, TOKENS, IN, dtype=torch.float64)
    together = layer(hidden)
    backwards = list(range(count * each))[::-1]
    regular.set([row // each for row in backwards], 0.5, count=count)
    assert regular.each == (each if count == 1 else 0)
    torch.testing.assert_close(layer(hidden.flip(0)).flip(0), together, rtol=EXACT, atol=EXACT)


def test_work_is_not_a_loop_over_adapters() -> None:
    class Count(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.calls: Counter[str] = Counter()

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.calls[str(func)] += 1
            return func(*args, **(kwargs or {}))

    def operations(rows: Rows, count: int) -> Counter[str]:
        layer, hidden = make_layer(count, 2, rows), torch.randn(len(rows), TOKENS, IN, dtype=torch.float64)
        with Count() as seen, torch.no_grad():
            layer(hidden)
        return seen.calls

    two, five = operations(Rows.regular(2, 3), 2), operations(Rows.regular(5, 3), 5)
    assert two == five
    assert two["aten.bmm.default"] == two["aten.baddbmm.default"] == 1
    assert not any("clone" in name or "copy" in name or "index" in name for name in two), two
    assert operations(Rows([0, 1, 0]), 2) == operations(Rows([4, 0, 3, 1, 2]), 5)


def test_rows_without_an_adapter_are_exactly_the_base() -> None:
    layer = make_layer(2, 3, Rows([1, None, 0, 1], [1.0, 1.0, 0.0, 2.0]))
    hidden = torch.randn(4, TOKENS, IN, dtype=torch.float64)
    base, out = layer.base(hidden), layer(hidden)
    assert torch.equal(out[1:3], base[1:3])
    assert not torch.equal(out[0], base[0]) and not torch.equal(out[3], base[3])
    layer.rows.set([None] * 4)
    assert layer.rows.idle and torch.equal(layer(hidden), base)


def test_gradients_stay_with_their_adapter() -> None:
    layer = make_layer(3, 2, Rows.regular(3, 2))
    layer.down.requires_grad_(), layer.up.requires_grad_()
    hidden = torch.randn(6, TOKENS, IN, dtype=torch.float64)
    layer(hidden)[2:4].square().sum().backward()
    assert layer.down.grad is not None and layer.up.grad is not None
    assert not layer.down.grad[[0, 2]].any() and not layer.up.grad[[0, 2]].any()
    assert layer.down.grad[1].all() and layer.up.grad[1].all()


def test_a_row_of_nan_does_not_reach_its_neighbours(base: Base) -> None:
    adapters = [random_adapter(base, 2, 0), random_adapter(base, 2, 1)]
    factors = stack(adapters, adapters[0].layers)
    inputs = unet_inputs(base, 2)
    with inject(base.unet, factors, Rows([0, 1])), torch.no_grad():
        clean = base.unet(**inputs).sample
        inputs["sample"][1] = torch.nan
        poisoned = base.unet(**inputs).sample
    assert torch.equal(poisoned[0], clean[0])
    assert poisoned[1].isnan().all()


def test_a_unet_row_equals_its_own_adapter_merged(base: Base) -> None:
    adapters = [random_adapter(base, 2, 0), random_adapter(base, 4, 1)]
    inputs = unet_inputs(base, 3)
    before = {name: value.clone() for name, value in base.unet.state_dict().items()}
    with torch.no_grad():
        plain = base.unet(**inputs).sample
        content = inject(base.unet, stack(adapters, target_layers(base.unet, "content")), Rows([1, 0, None]))
        style = inject(base.unet, stack(adapters, target_layers(base.unet, "style")), Rows([0, None, 1], [1, 1, 0.5]))
        packed = base.unet(**inputs).sample
        content.eject(), style.eject()
        chosen = [(adapters[1], 1.0, adapters[0], 1.0), (adapters[0], 1.0, None, 0.0), (None, 0.0, adapters[1], 0.5)]
        for row, (content_of, content_strength, style_of, style_strength) in enumerate(chosen):
            for adapter, strength in ((content_of, content_strength), (style_of, style_strength)):
                half = {} if adapter is None else (adapter.content if adapter is content_of else adapter.style).layers
                for name, factors in half.items():
                    base.unet.get_parameter(f"{name}.weight").add_(strength * factors.delta)
            merged = base.unet(**inputs).sample[row]
            base.unet.load_state_dict(before)
            torch.testing.assert_close(packed[row], merged, rtol=1e-4, atol=1e-5)
            assert (merged - plain[row]).abs().max() > 1e-2, "the adapter must matter for this test to mean anything"


def test_adapters_in_the_unets_format_are_stacked_to_the_same_bits_and_each_is_converted_once(base: Base) -> None:
    """What a slot's threads convert ahead, its main thread only lays side by side."""
    adapters = [random_adapter(base, 2, 0), random_adapter(base, 4, 1)]
    batch = [adapters[index] for index in (0, 1, 0, 0)]
    ahead = {id(adapter): adapter.in_format(torch.bfloat16) for adapter in adapters}
    counted, layers = Conversions(), target_layers(base.unet, "content")
    with counted:
        late = stack(batch, layers, dtype=torch.bfloat16)
        assert counted.count == 2 * 2 * len(layers), "an adapter that occurs twice is converted twice"
        counted.count = 0
        early = stack([ahead[id(adapter)] for adapter in batch], layers, dtype=torch.bfloat16)
        assert not counted.count
    for name, (down, up) in late.items():
        assert torch.equal(down, early[name][0]) and torch.equal(up, early[name][1]) and len(down) == len(up) == 4
        assert torch.equal(down[0], down[2]) and not down[0][2:].any() and down[1][2:].any()


class Conversions(TorchDispatchMode):
    """Counts tensors that are brought to another number format."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._to_copy.default
        return func(*args, **(kwargs or {}))


def test_eject_restores_the_unet_exactly(base: Base) -> None:
    adapter = random_adapter(base, 2, 0)
    modules = dict(base.unet.named_modules())
    inputs = unet_inputs(base, 1)
    with torch.no_grad():
        before = base.unet(**inputs).sample
        with (
            pytest.raises(RuntimeError, match="midway"),
            inject(base.unet, stack([adapter], adapter.layers), Rows([0])),
        ):
            assert not torch.equal(base.unet(**inputs).sample, before)
            assert base.unet.state_dict().keys() != modules.keys()
            raise RuntimeError("midway")
        injection = inject(base.unet, stack([adapter], adapter.layers), Rows([0]))
        injection.eject(), injection.eject()
        assert torch.equal(base.unet(**inputs).sample, before)
    after = dict(base.unet.named_modules())
    assert after.keys() == modules.keys() and all(after[name] is modules[name] for name in modules)


def test_ranks_may_differ(base: Base) -> None:
    adapters = [random_adapter(base, rank, rank) for rank in (1, 4, 2)]
    name = target_layers(base.unet, "style")[0]
    down, up = stack(adapters, [name])[name]
    assert down.shape[:2] == (3, 4) and up.shape[::2] == (3, 4)
    for index, adapter in enumerate(adapters):
        torch.testing.assert_close(up[index] @ down[index], adapter.layers[name].delta)
    assert stack([], [name]) == {}


def test_misuse_is_named(base: Base) -> None:
    adapter = random_adapter(base, 2, 0)
    style = target_layers(base.unet, "style")
    with pytest.raises(ValueError, match="layout of 2"):
        make_layer(1, 1, Rows([0, 0]))(torch.randn(3, TOKENS, IN, dtype=torch.float64))
    with pytest.raises(ValueError, match="as many strengths"):
        Rows([0, 1], [1.0])
    with pytest.raises(ValueError, match="None and 0 to 1"):
        Rows([0, 2], count=2)
    with pytest.raises(KeyMismatchError, match=r"adapter 1 of 2"):
        stack([adapter, adapter.content], style)
    with pytest.raises(TopologyError, match="no such layer"):
        inject(base.unet, {"up_blocks.9.to_q": (torch.zeros(1, 1, 1), torch.zeros(1, 1, 1))}, Rows([0]))
    with pytest.raises(ValueError, match="1 -> 1 beside"):
        inject(base.unet, {style[0]: (torch.zeros(1, 1, 1), torch.zeros(1, 1, 1))}, Rows([0]))
    factors = stack([adapter], style)
    with inject(base.unet, factors, Rows([0])), pytest.raises(TopologyError, match="PackedLinear"):
        inject(base.unet, factors, Rows([0]))
