"""Adapters of the keys and values of cross-attention alone: trained, kept in files, and beside those of all layers."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from blora.adapters.adapter import Adapter, blend_adapters
from blora.adapters.blocks import target_layers
from blora.adapters.load import load_adapter
from blora.errors import KeyMismatchError
from blora.models.model import Base
from blora.sampling.draw import Draw
from blora.sampling.sample import sample_latents
from blora.settings.training import TrainSettings
from blora.training.items import TrainItem
from blora.training.train import train
from tests.blora.adapters.test_packed import random_adapter
from tests.blora.sampling.test_sample import QUICK

AGAINST_EXPLICIT = 5e-4
"""As in test_blend: three steps of tiny latents of order one, in fp32."""


def reading(adapter: Adapter) -> Adapter:
    """What an adapter has of keys and values of cross-attention."""
    layers = {name: factors for name, factors in adapter.layers.items() if name.endswith(("attn2.to_k", "attn2.to_v"))}
    return Adapter(layers, adapter.metadata)


def test_a_training_of_them_changes_no_other_layer_and_its_file_comes_back(base: Base, tmp_path: Path) -> None:
    settings = TrainSettings(layers="crossattn_kv", resolution_px=32, rank=2, learning_rate=1e-2, steps=3)
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    (result,) = train(base, [TrainItem((pixels,), key="pepper")], settings)
    adapter = result.adapter
    assert adapter is not None
    wanted = [name for half in ("content", "style") for name in target_layers(base.unet, half)]
    assert adapter.layers.keys() == {name for name in wanted if name.endswith(("attn2.to_k", "attn2.to_v"))}
    assert all(float(factors.delta.abs().max()) > 0 for factors in adapter.layers.values())
    adapter.style.save_half(tmp_path / "style.safetensors")
    back = load_adapter(tmp_path / "style.safetensors", base.unet)
    assert back.layers.keys() == adapter.style.layers.keys()


def test_one_beside_an_adapter_of_all_layers_is_its_explicit_delta(base: Base) -> None:
    whole, other = random_adapter(base, 3, 0), random_adapter(base, 5, 1)
    alone = reading(other)
    draws = [Draw(whole.content, alone.style, "a", 0), Draw(alone.content, whole.style, "b", 1)]
    together = sample_latents(base, draws, QUICK.model_copy(update={"batch_size": 2}))
    for number, draw in enumerate(draws):
        changed = copy.copy(base)
        changed.unet = copy.deepcopy(base.unet)
        for half in (draw.content, draw.style):
            assert half is not None
            for name, factors in half.layers.items():
                changed.unet.get_submodule(name).weight.data += factors.delta
        explicit = sample_latents(changed, [Draw(None, None, draw.prompt, draw.seed)], QUICK)[0]
        torch.testing.assert_close(together[number], explicit, atol=AGAINST_EXPLICIT, rtol=0)


def test_a_blend_of_both_kinds_is_the_sum_of_what_each_has(base: Base) -> None:
    whole, other = random_adapter(base, 3, 0).style, random_adapter(base, 5, 1).style
    for parts in ([(whole, 0.7), (reading(other), 0.4)], [(reading(other), 0.4), (whole, 0.7)]):
        mixed = blend_adapters(parts)
        assert mixed.layers.keys() == whole.layers.keys()
        for name, factors in mixed.layers.items():
            wanted = 0.7 * whole.layers[name].delta
            if name in reading(other).layers:
                wanted = wanted + 0.4 * other.layers[name].delta
            torch.testing.assert_close(factors.delta, wanted, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("missing", ["attn2.to_v", "attn2.to_k"])
def test_one_that_lacks_a_part_of_one_attention_is_refused(base: Base, missing: str, tmp_path: Path) -> None:
    style = reading(random_adapter(base, 2, 0)).style
    gone = next(name for name in style.layers if name.endswith(missing))
    Adapter({name: f for name, f in style.layers.items() if name != gone}).save_half(tmp_path / "cut.safetensors")
    with pytest.raises(KeyMismatchError, match="layers missing"):
        load_adapter(tmp_path / "cut.safetensors")
    attention = gone.rpartition(".")[0]
    Adapter({name: f for name, f in style.layers.items() if not name.startswith(attention)}).save_half(
        tmp_path / "fewer.safetensors"
    )
    with pytest.raises(KeyMismatchError, match="layers missing"):
        load_adapter(tmp_path / "fewer.safetensors", base.unet)
