"""Other splits than the usual ones: trained, kept in files of every form, and drawn beside each other."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from diffusers import FluxPipeline, StableDiffusionXLPipeline
from diffusers.loaders.lora_conversion_utils import _convert_kohya_flux_lora_to_diffusers
from torch import nn

from blora.adapters.adapter import Adapter, blend_adapters, mix
from blora.adapters.blocks import SPLIT_KEY, carries, target_layers
from blora.adapters.factors import Factors
from blora.adapters.load import load_adapter
from blora.adapters.safetensors_bytes import unpack_safetensors
from blora.bases.topology import blocks_there, split_faults
from blora.errors import KeyMismatchError, SettingsError
from blora.models.model import Base
from blora.sampling.draw import Draw
from blora.sampling.sample import sample_each, sample_latents
from blora.settings.block_split import SPLITS, BlockSplit, Half, Stretch, own_split
from blora.settings.resolve import resolve
from blora.settings.sampling import SampleSettings
from blora.settings.training import TrainSettings
from blora.training.train import train
from tests.benchmarks.full_size import FullSizeFlux
from tests.blora.models.test_flux import flux_with_peft
from tests.blora.small_training import bit_equal, distance, item, recipe
from tests.tiny import unet

AGAINST_DIFFUSERS = 2e-4
QUICK = SampleSettings(steps=2, width_px=32, height_px=32, guidance_scale=2.0)
USUAL = own_split(flux=False)
FRONT = BlockSplit(content=("down_blocks.2.attentions.0-1",), style=("up_blocks.0.attentions.2",))
TURNED = BlockSplit(content=USUAL.style, style=USUAL.content)
DOUBLE = BlockSplit(content=("transformer_blocks.0",), style=("single_transformer_blocks.3-7",))


def random_split(base: Base, split: BlockSplit, seed: int, rank: int = 4) -> Adapter:
    """Make an adapter of both halves of a split with random weights that are no longer zero."""
    draw, layers = torch.Generator().manual_seed(seed), {}
    for name in (name for half in get_args(Half) for name in target_layers(base.unet, half, split=split)):
        out, inner = base.unet.get_parameter(f"{name}.weight").shape
        down = torch.randn(rank, inner, generator=draw) / inner**0.5
        layers[name] = Factors(down, torch.randn(out, rank, generator=draw) * 0.3 / rank**0.5)
    return Adapter(layers, {SPLIT_KEY: split.model_dump_json()})


@pytest.mark.parametrize("denoiser", [unet(), FullSizeFlux().unet], ids=["sdxl", "flux"])
def test_the_blocks_that_a_configuration_tells_are_those_of_the_denoiser(denoiser: nn.Module) -> None:
    config: Any = denoiser.config
    there = [Stretch.read(name) for name in blocks_there(config)]
    layers = [name for name, _ in denoiser.named_modules() if carries(name)]
    assert layers and all(any(stretch.holds(layer) for stretch in there) for layer in layers)
    for stretch in there:
        assert stretch.last is not None
        for number in range(stretch.first, stretch.last + 1):
            assert any(Stretch(stretch.stem, number, number).holds(layer) for layer in layers)


def test_a_named_split_of_flux_has_the_layers_that_its_sources_tell() -> None:
    full: Any = FullSizeFlux().unet
    counts = {
        name: [len(target_layers(full, half, split=SPLITS[name])) for half in get_args(Half)]  # type: ignore[index]
        for name in ("splitflux", "b-lora-flux")
    }
    assert counts == {"splitflux": [30, 84], "b-lora-flux": [10 * 8, 9 * 8]}
    named = [*target_layers(full, "content"), *target_layers(full, "style")]
    assert sum(64 * sum(full.get_submodule(name).weight.shape) for name in named) == 44_826_624, "44.83 million"
    assert [fault.field for fault in split_faults(recipe(blocks=USUAL), full.config)] == [
        "train.blocks.content",
        "train.blocks.style",
    ]
    assert split_faults(recipe(blocks="b-lora-flux"), full.config) == []


@pytest.mark.parametrize(("kind", "split"), [("sdxl", FRONT), ("flux", DOUBLE)])
def test_the_named_blocks_are_trained_and_their_file_says_so(
    kind: str, split: BlockSplit, base: Base, flux: Base
) -> None:
    model = flux if kind == "flux" else base
    halves = [target_layers(model.unet, half, split=split) for half in get_args(Half)]
    by_setting = train(model, [item(0)], recipe(blocks=split))[0]
    by_layers = train(model, [item(0)], recipe(), layers=(*halves[0], *halves[1]))[0]
    assert bit_equal(by_layers, by_setting) and by_setting.adapter is not None
    adapter = by_setting.adapter
    assert [set(adapter.content.layers), set(adapter.style.layers)] == [set(halves[0]), set(halves[1])]
    back = load_adapter(adapter.style.save_half(), model.unet)
    assert back.split == split and set(back.style.layers) == set(halves[1]) and not back.content.layers
    usual = train(model, [item(0)], recipe(steps=1))[0].adapter
    assert usual is not None and "blocks" not in usual.metadata


def test_candidates_whose_blocks_lie_in_the_front_share_no_front(base: Base) -> None:
    settings = recipe(blocks=FRONT, batch_size=2)
    items = [replace(item(0), key=key, draws="both") for key in ("first", "second")]
    packed = train(base, items, settings)
    for one, result in zip(items, packed, strict=True):
        assert distance(train(base, [one], settings)[0], result) < 1e-3


def test_what_the_base_does_not_have_is_refused_before_anything_is_computed(base: Base) -> None:
    with pytest.raises(SettingsError) as caught:
        train(base, [item(0)], recipe(blocks="b-lora-flux"))
    content, style = caught.value.faults
    assert (content.received, style.received) == ("transformer_blocks.9-18", "transformer_blocks.0-8")
    assert (
        content.accepted.startswith("down_blocks.1.attentions.0-1, ")
        and "up_blocks.0.attentions.0-2" in content.accepted
    )


CONSTRAINED = {"blocks": ["single_transformer_blocks.10-11"], "factor": 2}
"""SplitFlux's."""


def test_a_constrained_rank_trains_as_in_plain_peft_and_draws_as_in_fluxpipeline(
    flux: Base, flux_folder: Path, tmp_path: Path
) -> None:
    settings = recipe(steps=10, rank_constraint=CONSTRAINED, epsilon=1e-4)
    (result,) = train(flux, [item(0)], settings)
    expected = flux_with_peft(flux, copy.deepcopy(flux.unet), item(0), settings)
    assert distance(expected, result) < 1e-4 and result.adapter is not None
    ranks = {name: factors.rank for name, factors in result.adapter.layers.items()}
    assert {ranks[f"single_transformer_blocks.{n}.attn.to_q"] for n in (10, 11)} == {2}
    assert sorted(ranks.values()) == [2] * 6 + [4] * 30
    full: Any = FullSizeFlux().unet
    named = [*target_layers(full, "content"), *target_layers(full, "style")]
    splitflux = TrainSettings(rank_constraint=CONSTRAINED)
    weights = [64 // splitflux.constrained(name) * sum(full.get_submodule(name).weight.shape) for name in named]
    assert sum(weights) == 43_646_976, "the paper tells 43.65 million"
    result.adapter.style.save_half(tmp_path / "style.safetensors")
    pipeline: Any = FluxPipeline.from_pretrained(flux_folder)
    pipeline.load_lora_weights(tmp_path, weight_name="style.safetensors")
    pipeline.fuse_lora()
    for name, factors in result.adapter.style.layers.items():
        delta = pipeline.transformer.get_submodule(name).weight - flux.unet.get_submodule(name).weight
        torch.testing.assert_close(delta, factors.delta, atol=1e-5, rtol=0.01)


def test_a_constraint_is_part_of_the_id_and_fits_rank_and_base(flux: Base) -> None:
    plain, one = TrainSettings(), TrainSettings(rank_constraint=CONSTRAINED)
    assert one.identity() == plain.identity() | {"rank_constraint": CONSTRAINED}
    with pytest.raises(SettingsError, match=r"multiple of rank_constraint\.factor, 2"):
        resolve("paper", {"train.rank": 3, "train.rank_constraint": CONSTRAINED})
    with pytest.raises(SettingsError, match=r"rank_constraint\.blocks.*no such blocks.*30-31"):
        train(flux, [item(0)], recipe(rank_constraint={"blocks": ["single_transformer_blocks.30-31"]}))


@pytest.mark.parametrize(("kind", "split"), [("sdxl", FRONT), ("flux", DOUBLE)])
def test_every_form_keeps_the_split(kind: str, split: BlockSplit, base: Base, flux: Base, tmp_path: Path) -> None:
    model = flux if kind == "flux" else base
    one, other = random_split(model, split, seed=1), random_split(model, split, rank=2, seed=2)
    both = mix(one.content.scaled(0.5), other.style)
    assert both.split == split
    for form in ("kohya", "diffusers", "peft"):
        path = tmp_path / (form if form == "peft" else f"{form}.safetensors")
        file, *_ = both.save(path, form)
        back = load_adapter(file, model.unet)
        assert back.split == split and distance(both, back) < 1e-3
        assert set(back.content.layers) == set(both.content.layers)


def test_a_file_of_other_blocks_is_whole_to_diffusers(base: Base, epsilon_folder: Path, tmp_path: Path) -> None:
    both = mix(random_split(base, FRONT, seed=1).content, random_split(base, FRONT, rank=2, seed=2).style)
    both.save(tmp_path / "diffusers.safetensors", "diffusers")
    pipeline: Any = StableDiffusionXLPipeline.from_pretrained(epsilon_folder)
    pipeline.load_lora_weights(tmp_path, weight_name="diffusers.safetensors")
    pipeline.fuse_lora()
    for name, factors in both.layers.items():
        delta = pipeline.unet.get_submodule(name).weight - base.unet.get_submodule(name).weight
        torch.testing.assert_close(delta, factors.delta, atol=1e-3, rtol=0)


def test_blocks_with_two_streams_draw_as_in_fluxpipeline(flux: Base, flux_folder: Path, tmp_path: Path) -> None:
    content, style = random_split(flux, DOUBLE, seed=1).content, random_split(flux, DOUBLE, seed=2).style
    mix(content, style).save(tmp_path / "both.safetensors", "diffusers")
    pipeline: Any = FluxPipeline.from_pretrained(flux_folder)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.load_lora_weights(tmp_path, weight_name="both.safetensors")
    theirs = pipeline(
        "A [c]", num_inference_steps=2, guidance_scale=2.0, height=32, width=32, output_type="latent",
        generator=torch.Generator().manual_seed(0), max_sequence_length=64,
    ).images  # fmt: skip
    back = load_adapter(tmp_path / "both.safetensors", flux.unet)
    ours = sample_latents(flux, [Draw(back, back, "A [c]", 0)], QUICK)
    wanted = FluxPipeline._unpack_latents(theirs, 32, 32, flux.vae_scale_factor)
    torch.testing.assert_close(ours, wanted, atol=AGAINST_DIFFUSERS, rtol=0)
    plain = sample_latents(flux, [Draw(None, None, "A [c]", 0)], QUICK)
    assert (ours - plain).abs().max() > 100 * AGAINST_DIFFUSERS, "the adapters must show, or agreement says nothing"


def test_kohyas_file_of_a_block_with_two_streams_holds_the_same_deltas(tmp_path: Path) -> None:
    """To diffusers' own reader, at FLUX.1's real width, which that takes for granted."""
    draw, width = torch.Generator().manual_seed(0), 3072
    projections = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
    layers = {
        f"transformer_blocks.9.attn.{projection}": Factors(
            torch.randn(2, width, generator=draw), torch.randn(width, 2, generator=draw) / 100
        )
        for projection in projections
    }
    said = {"blocks": SPLITS["b-lora-flux"].model_dump_json()}
    (file,) = Adapter(layers, said).save(tmp_path / "content.safetensors")
    tensors, told = unpack_safetensors(file.read_bytes())
    assert (told["ss_base_model_version"], told["modelspec.architecture"]) == ("flux1", "flux-1/lora")
    read, again = _convert_kohya_flux_lora_to_diffusers(dict(tensors)), load_adapter(file)
    assert again.split == SPLITS["b-lora-flux"] and again.layers.keys() == layers.keys()
    for name, factors in layers.items():
        up, down = (read[f"transformer.{name}.lora_{part}.weight"].float() for part in "BA")
        torch.testing.assert_close(up @ down, factors.delta, atol=2e-3, rtol=0)
        torch.testing.assert_close(again.layers[name].delta, factors.delta, atol=2e-3, rtol=0)


def test_pictures_of_one_batch_may_have_adapters_of_different_splits(base: Base) -> None:
    """A layer that is content to one is style to another: each picture is what it is alone."""
    usual, turned, front = (random_split(base, split, seed=n) for n, split in enumerate((USUAL, TURNED, FRONT)))
    draws = [
        Draw(usual, usual, "A [c]", 0, 0.8, 1.1),
        Draw(turned, turned, "A [c]", 1, 1.2, 0.7, content_prompt="a storm"),
        Draw(front, usual, "A [c]", 2),
        Draw(None, None, "A [c]", 3),
        Draw(usual, front, "A [c]", 4, content_prompt="a storm"),
    ]
    together = sample_latents(base, draws, QUICK.model_copy(update={"batch_size": 5}))
    for draw, latent in zip(draws, together, strict=True):
        alone = sample_latents(base, [draw], QUICK)[0]
        torch.testing.assert_close(alone, latent, atol=AGAINST_DIFFUSERS, rtol=0)
        if draw.content:
            bare = sample_latents(base, [replace(draw, content=None)], QUICK)[0]
            assert (bare - alone).abs().max() > 10 * AGAINST_DIFFUSERS, "each half must show"


def test_halves_that_overlap_are_refused_and_only_their_picture(base: Base) -> None:
    usual, turned = random_split(base, USUAL, seed=0), random_split(base, TURNED, seed=1)
    good, bad = Draw(usual, usual, "A [c]", 0), Draw(turned, usual, "A [c]", 0)
    first, second = sample_each(base, [good, bad], QUICK)
    assert isinstance(second, KeyMismatchError) and "overlap" in str(second) and "b-lora" not in str(first)
    with pytest.raises(KeyMismatchError, match="splits that overlap"):
        mix(turned, usual)
    with pytest.raises(KeyMismatchError, match="content to one and style to another"):
        blend_adapters([(turned.content, 0.5), (usual.style, 0.5)])
    with pytest.raises(KeyMismatchError, match="different layers"):
        blend_adapters([(turned.content, 0.5), (usual.content, 0.5)])
    halves = blend_adapters([(turned.content, 0.5), (random_split(base, TURNED, seed=2).content, 0.5)])
    assert halves.split == TURNED and set(halves.content.layers) == set(turned.content.layers)
