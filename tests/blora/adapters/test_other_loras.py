"""LoRA files of other programs: alpha wherever it is written, their names, and what cannot be read."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel
from diffusers.training_utils import _collate_lora_metadata
from peft import LoraConfig, get_peft_model
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save
from torch import Tensor

from blora.adapters.blocks import target_layers
from blora.adapters.load import load_adapter
from blora.errors import KeyMismatchError
from tests import tiny
from tests.blora.adapters.test_forms import deltas_of

ALPHAS: dict[str, dict[str, Any]] = {
    "alpha 1 of rank 4": {"r": 4, "lora_alpha": 1},
    "PEFT's own alpha of 8": {"r": 16},
    "rsLoRA": {"r": 4, "lora_alpha": 4, "use_rslora": True},
    "by pattern": {"r": 4, "lora_alpha": 4, "alpha_pattern": {"attn1.to_q": 1}},
    "by expression": {"r": 4, "lora_alpha": 4, "alpha_pattern": {r"attn1.to_[qk]": 1, "attn2.*": 2}},
    "ranks by pattern": {"r": 4, "lora_alpha": 2, "rank_pattern": {"attn2.to_v": 2}},
}


@pytest.fixture(scope="module")
def names() -> list[str]:
    unet = tiny.unet()
    return [*target_layers(unet, "content"), *target_layers(unet, "style")]


def adapted(names: list[str], told: dict[str, Any]) -> tuple[UNet2DConditionModel, LoraConfig]:
    """A UNet with random LoRAs, as PEFT sets them up."""
    config, unet = LoraConfig(target_modules=names, init_lora_weights=False, **told), tiny.unet()
    return unet, config


@pytest.mark.parametrize("told", ALPHAS.values(), ids=ALPHAS)
def test_alpha_in_the_header_that_diffusers_writes(names: list[str], tmp_path: Path, told: dict[str, Any]) -> None:
    unet, config = adapted(names, told)
    unet.add_adapter(config)
    StableDiffusionXLPipeline.save_lora_weights(
        tmp_path, unet_lora_layers=get_peft_model_state_dict(unet), **_collate_lora_metadata({"unet": unet})
    )
    assert_as_peft(load_adapter(tmp_path / "pytorch_lora_weights.safetensors", unet).layers, deltas_of(unet))


@pytest.mark.parametrize("told", ALPHAS.values(), ids=ALPHAS)
def test_alpha_in_the_configuration_that_peft_writes(names: list[str], tmp_path: Path, told: dict[str, Any]) -> None:
    unet, config = adapted(names, told)
    model = get_peft_model(unet, config)  # type: ignore[arg-type]
    model.save_pretrained(str(tmp_path))
    assert_as_peft(load_adapter(tmp_path / "adapter_model.safetensors").layers, deltas_of(model))


def assert_as_peft(layers: Any, truth: dict[str, Tensor]) -> None:
    assert layers.keys() == truth.keys()
    for name, delta in truth.items():
        torch.testing.assert_close(layers[name].delta, delta, rtol=1e-4, atol=1e-5)


SLOW = ["(\\w+)+!", "(a|a)" * 40, ".*.*.*.*x", "x" * 301, "(?=a*)b", "a{1,9}" * 9, ""]


@pytest.mark.parametrize(
    "header",
    [
        "no JSON",
        "[]",
        '{"unet.lora_alpha": "much"}',
        '{"lora_alpha": 1, "alpha_pattern": 3}',
        json.dumps({"lora_alpha": 1, "alpha_pattern": dict.fromkeys(map(str, range(10_001)), 1)}),
        *(json.dumps({"lora_alpha": 1, "alpha_pattern": {name: 1}}) for name in SLOW),
    ],
)
def test_a_header_that_cannot_be_read_is_told(names: list[str], header: str) -> None:
    data = save(factors(names, kohya), {"lora_adapter_metadata": header})
    with pytest.raises(KeyMismatchError, match="what the file says of alpha cannot be read"):
        load_adapter(data)


def test_a_file_that_says_nothing_of_alpha_is_told(names: list[str], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "blora"):
        load_adapter(save(factors(names, kohya)), name="theirs.safetensors")
        load_adapter(save({**factors(names, kohya), **alphas(names, 4.0)}), name="with alpha")
        load_adapter(save(factors(names, kohya), {"recipe_version": "1"}), name="ours")
        load_adapter(save(factors(names, kohya), {"half": "content"}), name="a half of ours")
    assert [record.getMessage() for record in caplog.records] == [
        "theirs.safetensors says nothing of alpha: a scale of one (alpha = rank) is assumed"
    ]


Dialect = Callable[[str], str]


def kohya(name: str) -> str:
    return f"lora_unet_{name.replace('.', '_')}.lora_%s.weight"


def lycoris(name: str) -> str:
    return f"lycoris_{name.replace('.', '_')}.lora_%s.weight"


def original(name: str) -> str:
    """SDXL's original code numbers the first up block's attentions 0 and 1 of its output blocks."""
    _, _, _, index, rest = name.split(".", 4)
    return f"output_blocks.{index}.1.{rest}.lora_%s.weight"


def in_comfyui(name: str) -> str:
    return f"diffusion_model.{original(name)}"


def factors(names: list[str], dialect: Dialect, rank: int = 4, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    unet, random, found = tiny.unet(), torch.Generator().manual_seed(0), {}
    for name in names:
        out, into = unet.get_submodule(name).weight.shape  # type: ignore[union-attr, misc]
        found[dialect(name) % "down"] = torch.randn(rank, into, generator=random).to(dtype)
        found[dialect(name) % "up"] = torch.randn(out, rank, generator=random).to(dtype)
    return found


def alphas(names: list[str], *values: float) -> dict[str, Tensor]:
    return {(kohya(name) % "down").replace("lora_down.weight", "alpha"): torch.tensor(values) for name in names}


@pytest.mark.parametrize("dialect", [lycoris, original, in_comfyui])
def test_further_names_give_the_same_layers(names: list[str], dialect: Dialect) -> None:
    expected, found = (
        load_adapter(save(factors(names, kohya))),
        load_adapter(save(factors(names, dialect)), tiny.unet()),
    )
    assert found.layers.keys() == expected.layers.keys()
    assert all(torch.equal(found.layers[name].delta, expected.layers[name].delta) for name in names)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.bfloat16])
def test_narrow_numbers_are_read(names: list[str], dtype: torch.dtype) -> None:
    read = load_adapter(save(factors(names, kohya, dtype=dtype)))
    assert all(f.down.dtype == torch.float32 for f in read.layers.values())


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        (lambda names: {**factors(names, kohya), **alphas(names)}, "alpha is not one number"),
        (lambda names: {**factors(names, kohya), **alphas(names, 1.0, 2.0)}, "alpha is not one number"),
        (lambda names: {**factors(names, kohya), **alphas(names, 0.0)}, "alpha says two things"),
        (lambda names: {**factors(names, kohya), **alphas(names, float("nan"))}, "not finite"),
        (lambda names: {**factors(names, kohya, rank=0), **alphas(names, 1.0)}, "factors do not multiply"),
        (lambda names: factors(names[1:], kohya), "layers missing from the file"),
    ],
    ids=["no alpha in alpha", "two alphas", "alpha 0", "alpha nan", "rank 0", "a projection lacks"],
)
def test_what_cannot_be_a_lora_is_refused(names: list[str], tensors: Callable[[list[str]], Any], said: str) -> None:
    with pytest.raises(KeyMismatchError, match=said):
        load_adapter(save(tensors(names)))


OTHERS = (
    "lora_unet_up_blocks_0_attentions_0_transformer_blocks_0_ff_net_0_proj.lora_down.weight",
    "lora_unet_up_blocks_0_attentions_0_proj_in.alpha",
    "lora_unet_input_blocks_1_0_emb_layers_1.lora_up.weight",
    "lora_te1_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight",
    "text_encoder_2.text_model.encoder.layers.0.mlp.fc1.lora_linear_layer.up.weight",
    "lora_unet_down_blocks_2_attentions_0_transformer_blocks_0_attn1_to_q.lora_up.weight",
    "unet.conv_in.lora.down.weight",
)


@pytest.mark.parametrize("key", OTHERS)
def test_layers_of_a_larger_lora(names: list[str], key: str) -> None:
    data = save({**factors(names, kohya), key: torch.ones(1, 1)})
    with pytest.raises(KeyMismatchError, match=r"layers (that this method does not use|outside the content and style)"):
        load_adapter(data)
    taken = load_adapter(data, tiny.unet(), only="blocks")
    assert taken.metadata["dropped"] == key and sorted(taken.layers) == sorted(names)


def test_a_larger_lora_with_nonsense_in_it_is_refused_all_the_same(names: list[str]) -> None:
    with pytest.raises(KeyMismatchError, match="no known dialect"):
        load_adapter(save({**factors(names, kohya), "nonsense": torch.ones(1)}), only="blocks")


def test_what_is_read_goes_out_again(names: list[str], tmp_path: Path) -> None:
    """A file of alpha 1 and rank 4, written anew, has the same deltas at a scale of one."""
    read = load_adapter(save({**factors(names, kohya), **alphas(names, 1.0)}))
    (path,) = read.save(tmp_path / "again.safetensors")
    again = load_adapter(path)
    for name in names:
        torch.testing.assert_close(again.layers[name].delta, read.layers[name].delta, rtol=1e-2, atol=1e-3)
    assert json.loads(json.dumps(dict(again.metadata)))["ss_network_alpha"] == "4"
