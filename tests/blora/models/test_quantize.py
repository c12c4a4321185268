"""Weights of the denoiser in few bits: the numbers of diffusers' own backends, and nothing else of a run changes.

What a quantised tiny FLUX draws was measured against the whole one, relative distances of latents after three steps:
nf4 0.0114, int8 0.0005, fp8 0.0031. The tolerances are twice that.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import BitsAndBytesConfig, FluxTransformer2DModel, TorchAoConfig
from torch import Tensor, nn

from blora.adapters.load import load_adapter
from blora.adapters.safetensors_bytes import unpack_safetensors
from blora.bases import spec
from blora.bases.locate import base_revision, locate_base
from blora.bases.spec import Quantization, parse_base
from blora.errors import BaseModelError, OutOfMemoryError
from blora.models import memory, sizes
from blora.models.model import Base, load_base
from blora.models.quantize import QuantizedLinear, quantize_blocks
from blora.models.sizes import GB, ModelSize
from blora.sampling.draw import Draw
from blora.sampling.sample import sample_latents
from blora.settings.sampling import SampleSettings
from blora.settings.training import TrainSettings
from blora.training.train import train
from tasks.memory import memory_model
from tests.benchmarks.full_size import FullSizeFlux
from tests.benchmarks.operations import draws_of, stepper_of
from tests.benchmarks.peak import peak_bytes
from tests.blora.adapters.test_packed import random_adapter
from tests.blora.small_training import bit_equal, distance, item, recipe

pytest.importorskip("bitsandbytes", reason="the extra quantize is not installed")
pytest.importorskip("torchao", reason="the extra quantize is not installed")

AS_DRAWN: dict[Quantization, float] = {"nf4": 0.023, "int8": 0.001, "fp8": 0.0063}
PACKED = 1e-3
QUICK = SampleSettings(steps=3, width_px=32, height_px=48, guidance_scale=3.5)
each = pytest.mark.parametrize("into", ["nf4", "int8", "fp8"])


def quantized(folder: Path | str, into: Quantization) -> Base:
    return load_base(json.dumps({"model": str(folder), "quantize": into}))


def layers_of(base: Base) -> dict[str, QuantizedLinear]:
    return {name: module for name, module in base.unet.named_modules() if isinstance(module, QuantizedLinear)}


def tensors_of(kept: Any) -> list[Tensor]:
    """What a weight in few bits is made of."""
    if (state := getattr(kept, "quant_state", None)) is not None:
        return [kept.data, state.absmax, state.offset, state.code, state.state2.absmax, state.state2.code]
    return [kept.qdata, kept.scale, *filter(lambda part: part is not None, [getattr(kept, "zero_point", None)])]


@each
def test_pictures_are_near_those_of_the_whole_base_and_rows_stay_their_own(
    into: Quantization, flux_folder: Path, flux: Base
) -> None:
    base = quantized(flux_folder, into)
    one, other = random_adapter(flux, rank=4, seed=1), random_adapter(flux, rank=4, seed=2)
    draws = [Draw(one, other, "a cat", 0), Draw(other, one, "a red kite over the sea", 1)]
    wanted, drawn = sample_latents(flux, draws, QUICK), sample_latents(base, draws, QUICK)
    assert 0 < (drawn - wanted).norm() / wanted.norm() < AS_DRAWN[into]
    alone = sample_latents(base, draws[:1], QUICK)[0]
    torch.testing.assert_close(alone, drawn[0], atol=2e-4, rtol=0)
    plain = sample_latents(base, [Draw(None, None, "a cat", 0)], QUICK)[0]
    assert (plain - alone).abs().max() > 0.02, "the adapters must show"


@each
def test_adapters_train_beside_it_alone_as_in_a_pack_and_their_files_look_the_same(
    into: Quantization, flux_folder: Path, flux: Base
) -> None:
    base, settings = quantized(flux_folder, into), recipe(steps=4)
    packed = train(base, [item(0), item(1)], settings)
    alone = train(base, [item(0)], settings)
    assert distance(alone[0], packed[0]) < PACKED
    assert bit_equal(train(base, [item(0)], recipe(steps=4, checkpointing="on"))[0], alone[0])
    usual = train(flux, [item(0)], settings)
    assert distance(usual[0], alone[0]) > 0, "it is another base"
    ours, theirs = (one[0].adapter for one in (alone, usual))
    assert ours is not None and theirs is not None
    files = [unpack_safetensors(adapter.content.save_half())[0] for adapter in (ours, theirs)]
    shapes = [{key: (value.shape, value.dtype) for key, value in file.items()} for file in files]
    assert shapes[0] == shapes[1]
    assert load_adapter(ours.content.save_half(), flux.unet).layers.keys() == ours.content.layers.keys()


def test_weights_are_those_of_diffusers_own_configurations(flux_folder: Path) -> None:
    from diffusers.quantizers.bitsandbytes.utils import dequantize_bnb_weight, replace_with_bnb_linear
    from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig

    for into, config in (("int8", Int8WeightOnlyConfig()), ("fp8", Float8WeightOnlyConfig())):
        theirs: Any = FluxTransformer2DModel.from_pretrained(
            flux_folder, subfolder="transformer", quantization_config=TorchAoConfig(config), torch_dtype=torch.float32
        )
        for name, layer in layers_of(quantized(flux_folder, into)).items():  # type: ignore[arg-type]
            assert torch.equal(layer.whole(), theirs.get_submodule(name).weight.dequantize()), name
    plain: Any = FluxTransformer2DModel.from_pretrained(flux_folder, subfolder="transformer")
    weights = plain.state_dict()
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
    replaced: Any = replace_with_bnb_linear(plain, [], quantization_config=config)
    for name, layer in layers_of(quantized(flux_folder, "nf4")).items():
        empty = replaced.get_submodule(name).weight  # diffusers fills it so; its loader wants a GPU to be there
        filled = type(empty)(weights[f"{name}.weight"], requires_grad=False, **empty.__dict__).to("cpu")
        assert torch.equal(layer.whole(), dequantize_bnb_weight(filled, filled.quant_state)), name


@each
def test_a_layer_keeps_nothing_whole_for_the_way_back(into: Quantization) -> None:
    """A layer of torchao's own does, 2 bytes a weight: at FLUX.1's size as much as the weights before."""
    torch.manual_seed(0)
    block = nn.ModuleDict({"transformer_blocks": nn.ModuleList([nn.Linear(64, 96)])})
    before = block.get_parameter("transformer_blocks.0.weight").detach().clone()
    quantize_blocks(block, into, torch.device("cpu"))
    layer: Any = block.get_submodule("transformer_blocks.0")
    kept: list[Tensor] = []

    def keep(value: Tensor) -> Tensor:
        kept.append(value)
        return value

    hidden = torch.randn(2, 5, 64, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        out = layer(hidden)
    assert kept == []
    out.backward(torch.ones_like(out))
    torch.testing.assert_close(hidden.grad, layer.whole().sum(0).expand(2, 5, 64))
    torch.testing.assert_close(out, nn.functional.linear(hidden, layer.whole(), layer.bias))
    assert 0 < (layer.whole() - before).norm() / before.norm() < 0.1


def test_sdxls_blocks_may_be_kept_so_too() -> None:
    base = quantized("embedded", "int8")
    assert base.name == "embedded in int8" and len(layers_of(base)) > 100
    usual = load_base("embedded")
    draw = [Draw(None, None, "a cat", 0)]
    small = SampleSettings(steps=3, width_px=128, height_px=128, guidance_scale=5.0)
    wanted, drawn = (sample_latents(one, draw, small) for one in (usual, base))
    assert 0 < (drawn - wanted).norm() / wanted.norm() < 0.02


def test_the_quantisation_is_part_of_the_base_only_where_it_is_said(flux_folder: Path) -> None:
    plain = base_revision(flux_folder)
    said = {into: base_revision(json.dumps({"model": str(flux_folder), "quantize": into})) for into in AS_DRAWN}
    assert len({plain, *said.values()}) == 4
    assert base_revision(json.dumps({"model": str(flux_folder)})) == plain
    text = parse_base(json.dumps({"model": "sdxl", "quantize": "nf4"})).text
    assert parse_base(text).quantize == "nf4" and parse_base(text).label.endswith(" in nf4")


def test_what_is_unknown_or_not_installed_is_refused_before_a_file_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BaseModelError, match=r"quantize 'int4', not nf4, int8, fp8"):
        parse_base('{"model": "sdxl", "quantize": "int4"}')
    monkeypatch.setattr(spec, "BACKENDS", {**spec.BACKENDS, "nf4": "no_such_package"})
    with pytest.raises(BaseModelError, match=r"not installed.*pip install no_such_package"):
        locate_base('{"model": "sdxl", "quantize": "nf4"}')


@each
def test_what_a_quantised_flux_takes_is_counted(into: Quantization) -> None:
    """On its full configuration; only what is beside the weights depends on the step."""
    full = FullSizeFlux()
    quantize_blocks(full.unet, into, full.device)
    of_blocks = {id(layer.weight): tensors_of(layer.weight) for layer in layers_of(full).values()}
    parts = [part for one in full.unet.parameters() for part in of_blocks.get(id(one), [one])]
    weights = sum(part.numel() * part.element_size() for part in parts)
    settings = TrainSettings(precision="bf16", rank=16, checkpointing="on")
    with stepper_of(full, settings, 1) as stepper:
        draws = draws_of(full, settings, 1)
        live = peak_bytes(lambda: stepper.run(draws, [1.0]), parts)
    model = replace(sizes.FLUX, quantize=into)
    row = model.recomputed_per_row * model.rows(1024, 1024)
    assert model.denoiser_bytes(2) + row == pytest.approx(weights + live, rel=0.01)
    like = replace(ModelSize.like(full.unet.config, 8, model.adapter_parameters_per_rank), quantize=into)
    assert like.denoiser_bytes(2) == pytest.approx(model.denoiser_bytes(2), rel=0.03)


def test_smaller_cards_train_flux_so() -> None:
    """The sizes of the README; no such card was at hand."""
    settings = TrainSettings(precision="bf16", rank=16)

    def pack(budget_gb: float, into: Quantization) -> tuple[int, bool, str]:
        plan = memory.plan_memory(budget_gb * GB, settings, replace(sizes.FLUX, quantize=into))
        return plan.size, plan.checkpointing, plan.encoders

    assert pack(24, "nf4") == (6, True, "leave")
    assert pack(24, "int8") == pack(24, "fp8") == pack(16, "nf4") == (3, True, "cpu")
    assert pack(12, "nf4") == (1, True, "cpu")
    with pytest.raises(OutOfMemoryError, match=r"GB or more"):
        pack(16, "int8")


def test_the_planner_reckons_with_it(flux_folder: Path) -> None:
    said = json.dumps({"model": str(flux_folder), "quantize": "nf4"})
    assert memory_model(said) == replace(memory_model(str(flux_folder)), quantize="nf4")
    assert memory_model('{"model": "sdxl", "quantize": "int8"}') == replace(sizes.SDXL, quantize="int8")
