"""An adapter as a file for other programs: their names, their metadata, and the deltas that they read back."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer

from blora.adapters.adapter import Adapter, blend_adapters, mix
from blora.adapters.blocks import target_layers
from blora.adapters.factors import Factors
from blora.adapters.forms import fits_sdxl
from blora.adapters.load import load_adapter
from blora.adapters.safetensors_bytes import unpack_safetensors
from blora.errors import KeyMismatchError
from tests import tiny

ROUNDING = 2e-3
"""Factors are stored in fp16: relative error of a delta."""


def made(unet: torch.nn.Module, half: str, rank: int = 4, seed: int = 0) -> Adapter:
    """One half with random factors."""
    random = torch.Generator().manual_seed(seed)
    layers = {}
    for name in target_layers(unet, half):  # type: ignore[arg-type]
        out, into = unet.get_submodule(name).weight.shape  # type: ignore[union-attr, misc]
        down, up = torch.randn(rank, into, generator=random), torch.randn(out, rank, generator=random)
        layers[name] = Factors(down, up)
    return Adapter(layers, {"prompt": "A [v]", "key": half})


@pytest.fixture(scope="module")
def unet() -> UNet2DConditionModel:
    return tiny.unet()


@pytest.fixture(scope="module")
def whole(unet: UNet2DConditionModel) -> Adapter:
    """Content of rank 4 at .8, and a mix of two styles (rank 6 + 2): ranks differ from layer to layer."""
    style = blend_adapters([(made(unet, "style", 6, 1), 0.7), (made(unet, "style", 2, 2), 0.3)])
    return mix(made(unet, "content").scaled(0.8), style)


def deltas_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Weight deltas of every layer that peft has put into a model, scale included."""
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, BaseTunerLayer):
            (active,) = module.active_adapters
            found[name.removeprefix("base_model.model.")] = module.get_delta_weight(active).detach()  # type: ignore[operator]
    return found


def assert_same(found: dict[str, torch.Tensor], adapter: Adapter) -> None:
    assert found.keys() == adapter.layers.keys()
    for name, factors in adapter.layers.items():
        error = (found[name] - factors.delta).norm() / factors.delta.norm()
        assert error < ROUNDING, (name, float(error))


@pytest.mark.parametrize("form", ["kohya", "diffusers"])
def test_diffusers_reads_one_file_in_one_call(tmp_path: Path, whole: Adapter, form: Any) -> None:
    base = tiny.save_tiny_base(tmp_path / "base")
    (path,) = whole.save(tmp_path / "new" / "cat.safetensors", form)
    pipeline = DiffusionPipeline.from_pretrained(base)
    assert isinstance(pipeline, StableDiffusionXLPipeline)
    pipeline.load_lora_weights(str(path.parent), weight_name=path.name)
    assert_same(deltas_of(pipeline.unet), whole)


def test_peft_reads_a_folder(tmp_path: Path, whole: Adapter) -> None:
    written = whole.save(tmp_path / "cat", "peft")
    assert [path.name for path in written] == ["adapter_model.safetensors", "adapter_config.json"]
    assert_same(deltas_of(PeftModel.from_pretrained(tiny.unet(), str(tmp_path / "cat"))), whole)


@pytest.mark.parametrize("form", ["kohya", "diffusers"])
def test_our_own_loader_reads_it_back(tmp_path: Path, whole: Adapter, unet: UNet2DConditionModel, form: Any) -> None:
    (path,) = whole.save(tmp_path / "cat.safetensors", form)
    read = load_adapter(path, unet)
    assert_same({name: factors.delta for name, factors in read.layers.items()}, whole)


def sdxl_names() -> list[str]:
    """The 160 attention projections of SDXL's two blocks as kohya writes them: ten layers, two attentions each."""
    return [
        f"lora_unet_up_blocks_0_attentions_{block}_transformer_blocks_{layer}_attn{attention}_{projection}"
        for block in (0, 1)
        for layer in range(10)
        for attention in (1, 2)
        for projection in ("to_q", "to_k", "to_v", "to_out_0")
    ]


@pytest.fixture(scope="module")
def full_size() -> Adapter:
    """An adapter of SDXL's own widths, of rank 1."""
    layers = {}
    for half in (0, 1):
        for layer in range(10):
            for attention in (1, 2):
                for projection in ("to_q", "to_k", "to_v", "to_out.0"):
                    into = 2048 if attention == 2 and projection in ("to_k", "to_v") else 1280
                    name = f"up_blocks.0.attentions.{half}.transformer_blocks.{layer}.attn{attention}.{projection}"
                    layers[name] = Factors(torch.ones(1, into), torch.ones(1280, 1))
    return Adapter(layers, {"prompt": "A [v] cat"})


def test_every_name_is_one_that_other_programs_know(tmp_path: Path, full_size: Adapter) -> None:
    (path,) = full_size.save(tmp_path / "cat.safetensors", name="my cat")
    tensors, said = unpack_safetensors(path.read_bytes())
    parts = ("lora_down.weight", "lora_up.weight", "alpha")
    assert sorted(tensors) == sorted(f"{name}.{part}" for name in sdxl_names() for part in parts)
    assert said["ss_base_model_version"] == "sdxl_base_v1-0"
    assert said["ss_output_name"] == said["modelspec.title"] == "my cat"
    assert said["modelspec.architecture"] == "stable-diffusion-xl-v1-base/lora"
    assert said["modelspec.trigger_phrase"] == "A [v] cat"
    assert (said["ss_network_dim"], said["ss_network_alpha"]) == ("1", "1")
    assert json.loads(said["ss_tag_frequency"]) == {"blora": {"A [v] cat": 1}}
    begin = 8 + int.from_bytes(path.read_bytes()[:8], "little")
    assert said["sshs_model_hash"] == hashlib.sha256(path.read_bytes()[begin:]).hexdigest()
    assert path.read_bytes() == full_size.save(tmp_path / "again.safetensors", name="my cat")[0].read_bytes()


def test_a_file_for_another_base_does_not_say_sdxl(tmp_path: Path, whole: Adapter) -> None:
    (path,) = whole.save(tmp_path / "cat.safetensors")
    said = unpack_safetensors(path.read_bytes())[1]
    assert not fits_sdxl(whole.layers)
    assert not {"ss_base_model_version", "modelspec.architecture"} & said.keys()
    assert said["ss_network_dim"] == said["ss_network_alpha"] == "8"


def test_what_cannot_be_written_is_refused_and_nothing_is_left(
    tmp_path: Path, unet: UNet2DConditionModel, whole: Adapter
) -> None:
    with pytest.raises(ValueError, match=r"accepted: a file whose name ends in \.safetensors"):
        whole.save(tmp_path / "cat.bin")
    with pytest.raises(ValueError, match="no layers"):
        Adapter({}).save(tmp_path / "cat.safetensors")
    with pytest.raises(ValueError, match="accepted: kohya, diffusers, peft"):
        whole.save(tmp_path / "cat.safetensors", "webui")  # type: ignore[arg-type]
    stray = Adapter({"mid_block.attentions.0.proj_in": Factors(torch.ones(1, 2), torch.ones(2, 1))})
    with pytest.raises(ValueError, match=r"mid_block\.attentions\.0\.proj_in"):
        stray.save(tmp_path / "cat.safetensors")
    with pytest.raises(KeyMismatchError, match="not finite in fp16"):
        made(unet, "style").scaled(1e6).save(tmp_path / "cat.safetensors")
    assert not list(tmp_path.iterdir())
