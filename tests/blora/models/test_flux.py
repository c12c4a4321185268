"""FLUX.1 behind the seam: pictures as FluxPipeline draws them, training as plain PEFT does it.

Tolerances as in test_sample.py and test_train.py, and for the same reasons.
"""

from __future__ import annotations

import copy
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FluxPipeline
from diffusers.loaders.lora_conversion_utils import _convert_kohya_flux_lora_to_diffusers
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from blora.adapters.adapter import Adapter, mix
from blora.adapters.blocks import block_of, target_layers
from blora.adapters.factors import Factors
from blora.adapters.load import load_adapter
from blora.adapters.safetensors_bytes import pack_safetensors, unpack_safetensors
from blora.errors import BaseModelError, KeyMismatchError, SettingsError, TopologyError
from blora.models import memory, sizes
from blora.models.model import Base, load_base
from blora.sampling.draw import Draw
from blora.sampling.sample import sample, sample_latents
from blora.settings.sampling import SampleSettings
from blora.settings.training import TrainSettings
from blora.training.items import TrainItem
from blora.training.noise import draw_noise, seeded
from blora.training.photos import prepare_photos
from blora.training.train import train
from tasks.planning.cost import FLUX_PROMPT_TOKENS, FLUX_TOKEN_PX, FLUX_TRAIN_TFLOP
from tests.benchmarks.full_size import FullSizeFlux
from tests.benchmarks.operations import both_halves, draws_of, stepper_of
from tests.benchmarks.peak import peak_bytes
from tests.blora.adapters.test_packed import random_adapter
from tests.blora.models.test_model import change_json
from tests.blora.small_training import SavedCheckpoints, bit_equal, distance, item, recipe
from tests.plain_peft import begin, descend, trained_adapter
from tests.tiny_flux import save_tiny_flux

AGAINST_DIFFUSERS = 2e-4
PACKED, PEFT = 1e-3, 1e-4
QUICK = SampleSettings(steps=3, width_px=32, height_px=48, guidance_scale=3.5)


def layers_of(base: Base) -> tuple[str, ...]:
    return (*target_layers(base.unet, "content"), *target_layers(base.unet, "style"))


def test_the_split_is_by_the_numbers_of_single_stream_blocks(flux: Base) -> None:
    assert [block_of(f"single_transformer_blocks.{n}.attn.to_q") for n in (0, 9, 10, 37)] == [
        *["content"] * 2,
        *["style"] * 2,
    ]
    assert block_of("transformer_blocks.3.attn.to_q") is None, "blocks of two streams are trained by nobody"
    assert [len(target_layers(flux.unet, half)) for half in ("content", "style")] == [10 * 3, 2 * 3]
    with pytest.raises(TopologyError, match="no cross-attention"):
        target_layers(flux.unet, "content", "crossattn_kv")


@pytest.mark.parametrize("guided", [True, False])
def test_the_same_picture_as_fluxpipeline_with_the_stores_files(guided: bool, tmp_path: Path) -> None:
    folder = save_tiny_flux(tmp_path / "base", guided=guided)
    flux = load_base(folder)
    content, style = random_adapter(flux, rank=4, seed=1).content, random_adapter(flux, rank=4, seed=2).style
    pipeline: Any = FluxPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    for half, adapter in (("content", content), ("style", style)):
        adapter.save_half(tmp_path / f"{half}.safetensors")
        pipeline.load_lora_weights(tmp_path, weight_name=f"{half}.safetensors", adapter_name=half)
    pipeline.set_adapters(["content", "style"], [0.9, 1.1])
    halves = [load_adapter(tmp_path / f"{half}.safetensors", flux.unet) for half in ("content", "style")]
    draw = Draw(*halves, "A [c] in [s] style", seed=0, content_strength=0.9, style_strength=1.1)

    def theirs(output_type: str) -> Any:
        return pipeline(
            draw.prompt, num_inference_steps=3, guidance_scale=3.5, height=48, width=32, output_type=output_type,
            generator=[torch.Generator().manual_seed(0)], max_sequence_length=64,
        ).images  # fmt: skip

    ours, factor = sample_latents(flux, [draw], QUICK), flux.vae_scale_factor
    wanted = FluxPipeline._unpack_latents(theirs("latent"), 48, 32, factor)
    torch.testing.assert_close(ours, wanted, atol=AGAINST_DIFFUSERS, rtol=0)
    (picture,) = sample(flux, [draw], QUICK)
    assert np.abs(picture.astype(int) - np.asarray(theirs("pil")[0]).astype(int)).max() <= 1
    plain = sample_latents(flux, [replace(draw, content=None, style=None)], QUICK)
    assert (ours - plain).abs().max() > 100 * AGAINST_DIFFUSERS, "the adapters must show, or agreement says nothing"
    other = sample_latents(flux, [draw], QUICK.model_copy(update={"guidance_scale": 1.0}))
    assert torch.equal(ours, other) != guided


@pytest.mark.parametrize(("guided", "shifted", "tokens"), [(True, True, 512), (False, False, 256), (False, True, 512)])
def test_t5_reads_as_many_tokens_as_the_model_was_made_for(
    guided: bool, shifted: bool, tokens: int, tmp_path: Path
) -> None:
    """FLUX.1-dev, -schnell, and a dev whose distilled guidance was trained away; the tokenizers say 512 everywhere."""
    folder = save_tiny_flux(tmp_path / "base", guided=guided)
    change_json(folder / "tokenizer_2" / "tokenizer_config.json", model_max_length=512)
    change_json(folder / "scheduler" / "scheduler_config.json", use_dynamic_shifting=shifted)
    pipeline: Any = FluxPipeline.from_pretrained(folder)
    prompt = "a cat " * 60
    wanted, pooled, _ = pipeline.encode_prompt(prompt, None, max_sequence_length=tokens)
    ours = load_base(folder).encode_prompts([prompt])
    assert ours.hidden.shape[1] == tokens
    torch.testing.assert_close(ours.hidden, wanted)
    torch.testing.assert_close(ours.pooled, pooled)
    short, _, _ = pipeline.encode_prompt(prompt, None, max_sequence_length=64)
    assert not torch.allclose(short, wanted[:, :64]), "how many are read must show, or agreement says nothing"


def test_one_file_for_other_programs_draws_the_same(flux: Base, flux_folder: Path, tmp_path: Path) -> None:
    one, other = random_adapter(flux, rank=4, seed=1), random_adapter(flux, rank=2, seed=2)
    both = mix(one.content.scaled(0.5), other.style)
    both.save(tmp_path / "both.safetensors", "diffusers")
    pipeline: Any = FluxPipeline.from_pretrained(flux_folder)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.load_lora_weights(tmp_path, weight_name="both.safetensors")
    pipeline.fuse_lora()
    for name in layers_of(flux):
        delta = pipeline.transformer.get_submodule(name).weight - flux.unet.get_submodule(name).weight
        torch.testing.assert_close(delta, both.layers[name].delta, atol=1e-3, rtol=0)
    back = load_adapter(tmp_path / "both.safetensors", flux.unet)
    assert distance(both, back) < 1e-3


def test_kohyas_file_holds_the_same_deltas_to_diffusers_own_reader(tmp_path: Path) -> None:
    """At FLUX.1's real width, which that reader takes for granted."""
    draw, width = torch.Generator().manual_seed(0), 3072
    names = [f"single_transformer_blocks.{block}.attn.to_{part}" for block in (0, 11) for part in "qkv"]
    layers = {
        name: Factors(torch.randn(2, width, generator=draw), torch.randn(width, 2, generator=draw) / 100)
        for name in names
    }
    (file,) = Adapter(layers).save(tmp_path / "both.safetensors")
    tensors, _ = unpack_safetensors(file.read_bytes())
    assert tensors["lora_unet_single_blocks_0_linear1.lora_up.weight"].shape == (7 * width, 6)
    read = _convert_kohya_flux_lora_to_diffusers(dict(tensors))
    for name, factors in layers.items():
        up, down = (read[f"transformer.{name}.lora_{part}.weight"].float() for part in "BA")
        torch.testing.assert_close(up @ down, factors.delta, atol=2e-3, rtol=0)
    idle = [value for key, value in read.items() if ".proj_mlp.lora_B" in key]
    assert all(not value.any() for value in idle), "the feed-forward is left alone"
    back = load_adapter(file)
    assert all(torch.allclose(back.layers[name].delta, factors.delta, atol=2e-3) for name, factors in layers.items())


def test_a_larger_lora_of_the_family_is_refused_or_taken_out_of_by_its_blocks(flux: Base, tmp_path: Path) -> None:
    """As ai-toolkit and diffusers write them: all linear layers of blocks of both kinds."""
    adapter, more = random_adapter(flux, rank=2, seed=1), {}
    for name in (
        "single_transformer_blocks.0.proj_mlp",
        "single_transformer_blocks.3.proj_out",
        "transformer_blocks.0.attn.to_q",
    ):
        out, inner = flux.unet.get_parameter(f"{name}.weight").shape
        more |= {
            f"transformer.{name}.lora_A.weight": torch.ones(2, inner),
            f"transformer.{name}.lora_B.weight": torch.ones(out, 2),
        }
    (file,) = adapter.save(tmp_path / "all.safetensors", "diffusers")
    tensors, _ = unpack_safetensors(file.read_bytes())
    data = pack_safetensors({**tensors, **more}, {})
    with pytest.raises(KeyMismatchError, match=r"does not use.*only-blocks"):
        load_adapter(data, flux.unet)
    assert distance(adapter, load_adapter(data, flux.unet, only="blocks")) < 1e-3


def test_rows_keep_their_bits_and_strength_is_linear(flux: Base) -> None:
    one, other = random_adapter(flux, rank=4, seed=1), random_adapter(flux, rank=4, seed=2)
    row, beside = Draw(one, other, "a cat", 3, 0.7, 1.2), Draw(other, one, "a red kite over the sea", 5)
    first = sample_latents(flux, [row, beside], QUICK)[0]
    assert torch.equal(first, sample_latents(flux, [replace(beside, seed=9), row], QUICK)[1])
    alone = sample_latents(flux, [row], QUICK)[0]
    torch.testing.assert_close(alone, first, atol=AGAINST_DIFFUSERS, rtol=0)
    folded = replace(row, content=one.scaled(0.7), style=other.scaled(1.2), content_strength=1.0, style_strength=1.0)
    torch.testing.assert_close(sample_latents(flux, [folded], QUICK)[0], alone, atol=AGAINST_DIFFUSERS, rtol=0)


def test_packed_training_equals_one_by_one_and_a_resumed_one_is_bit_equal(flux: Base, tmp_path: Path) -> None:
    checkpoints = SavedCheckpoints(tmp_path)
    settings = recipe(steps=4, batch_size=2, timestep_sampling="logit_normal", checkpoint_every_steps=2)
    items = [item(0), replace(item(1), prompt="A [v] cat")]
    packed = train(flux, items, settings, on_checkpoint=checkpoints)
    for one, result in zip(items, packed, strict=True):
        assert distance(train(flux, [one], settings)[0], result) < PACKED
    assert all(map(bit_equal, packed, train(flux, items, settings, checkpoint=checkpoints[0])))
    assert bit_equal(
        train(flux, items[:1], recipe(steps=2, checkpointing="on"))[0], train(flux, items[:1], recipe(steps=2))[0]
    )


def test_training_equals_plain_peft(flux: Base) -> None:
    settings = recipe(steps=20, alpha=2.0, weight_decay=0.01, timestep_sampling="logit_normal", epsilon=1e-4)
    expected = flux_with_peft(flux, copy.deepcopy(flux.unet), item(0), settings)
    assert distance(expected, train(flux, [item(0)], settings)[0]) < PEFT


def test_what_a_base_of_this_kind_cannot_do_is_refused(flux: Base, flux_folder: Path, tmp_path: Path) -> None:
    for changes in ({"negative_prompt": "blurry"}, {"guidance_interval": (0.1, 2.0)}, {"guidance_from": "base"}):
        with pytest.raises(SettingsError, match="no negative row"):
            sample(flux, [Draw(None, None, "a cat", 0)], QUICK.model_copy(update=changes))
    with pytest.raises(SettingsError, match="prompt of its own"):
        sample(flux, [Draw(None, None, "a cat", 0, content_prompt="a dog")], QUICK)
    with pytest.raises(SettingsError, match="a multiple of 8"):
        sample(flux, [Draw(None, None, "a cat", 0)], QUICK.model_copy(update={"width_px": 36}))
    with pytest.raises(SettingsError, match="flow matching"):
        sample(flux, [Draw(None, None, "a cat", 0)], QUICK.model_copy(update={"scheduler": "euler"}))
    random_adapter(flux, rank=1, seed=0).content.save_half(tmp_path / "lora.safetensors")
    with pytest.raises(BaseModelError, match="fused into SDXL alone"):
        load_base(f'{{"model": "{flux_folder}", "fuse": [{{"lora": "{tmp_path}/lora.safetensors"}}]}}')


def test_a_folder_built_otherwise_is_refused_by_name(tmp_path: Path) -> None:
    folder = save_tiny_flux(tmp_path / "flux")
    change_json(folder / "transformer" / "config.json", num_single_layers=10, joint_attention_dim=7)
    with pytest.raises(TopologyError, match=r"10 single-stream blocks.*tokens of 32, not 7 numbers"):
        load_base(folder)
    for part in ("text_encoder_2", "tokenizer_2"):  # as FLUX.2 [klein] has none
        shutil.rmtree(folder / part)
    change_json(folder / "transformer" / "config.json", _class_name="Flux2Transformer2DModel")
    with pytest.raises(TopologyError, match=r"FLUX\.2, not FLUX\.1.*take FLUX\.1-dev"):
        load_base(folder)


@pytest.fixture(scope="module")
def full() -> FullSizeFlux:
    """FLUX.1-dev's transformer on the device meta."""
    return FullSizeFlux()


def test_operations_and_bytes_of_flux_are_counted(full: FullSizeFlux) -> None:
    """What `blora plan` reckons with; plain PEFT on plain diffusers takes the same 133.6 TFLOP a step at 1024 px."""
    settings = TrainSettings(precision="bf16", rank=16, checkpointing="off")
    with stepper_of(full, settings, 1) as stepper:
        draws = draws_of(full, settings, 1)
        live = peak_bytes(lambda: stepper.run(draws, [1.0]), full.unet.parameters())
        with FlopCounterMode(display=False) as counter:
            stepper.run(draws, [1.0])
    assert live == pytest.approx(sizes.FLUX.kept_per_row * sizes.FLUX.rows(1024, 1024), rel=0.01)
    tokens = (1024 / FLUX_TOKEN_PX) ** 2 + FLUX_PROMPT_TOKENS
    linear, squared = FLUX_TRAIN_TFLOP
    assert counter.get_total_flops() / 1e12 == pytest.approx(linear * tokens + squared * tokens**2, rel=0.002)
    assert sum(p.numel() for p in full.unet.parameters()) == sizes.FLUX.unet_parameters
    assert sum(map(sum, both_halves(full).values())) == sizes.FLUX.adapter_parameters_per_rank
    like = sizes.ModelSize.like(full.unet.config, 8, sizes.FLUX.adapter_parameters_per_rank)
    assert like.unet_parameters == pytest.approx(sizes.FLUX.unet_parameters, rel=0.02)


@pytest.mark.parametrize(
    ("budget_gb", "expected"),
    [(80, (3, False, "leave", False)), (48, (1, False, "leave", False)), (32, (1, True, "cpu", False))],
)
def test_a_budget_gets_the_best_way_that_fits(budget_gb: int, expected: tuple[int, bool, str, bool]) -> None:
    plan = memory.plan_memory(budget_gb * sizes.GB, TrainSettings(precision="bf16", rank=16), sizes.FLUX)
    assert (plan.size, plan.checkpointing, plan.encoders, plan.vae_in_tiles) == expected


def flux_with_peft(base: Base, transformer: Any, one: TrainItem, settings: TrainSettings) -> Adapter:
    """Train one adapter the usual way, as train_dreambooth_lora_flux.py does; random numbers and picture are shared."""
    names, generator = list(layers_of(base)), seeded(one.key, settings.seed)
    optimizer = begin(base, transformer, names, settings, generator)
    (photo,), prompt = prepare_photos(base, one.images, settings), base.encode_prompts([settings.prompt])
    for step in range(settings.steps):
        rows = draw_noise(generator, (photo,), step, settings, 1000, one.key)
        noise = torch.stack([row.noise for row in rows])
        latents = photo.mean + photo.std * torch.stack([row.posterior for row in rows])
        count, channels, height, width = latents.shape
        sigmas = torch.tensor([(row.timestep + 1) / 1000 for row in rows])
        share = sigmas[:, None, None, None]
        noisy: Tensor = (1.0 - share) * latents + share * noise
        predicted = transformer(
            hidden_states=FluxPipeline._pack_latents(noisy, count, channels, height, width),
            timestep=sigmas,
            guidance=torch.ones(count) if base.unet.config.guidance_embeds else None,
            pooled_projections=prompt.pooled.repeat(count, 1),
            encoder_hidden_states=prompt.hidden.repeat(count, 1, 1),
            txt_ids=torch.zeros(prompt.hidden.shape[1], 3),
            img_ids=FluxPipeline._prepare_latent_image_ids(1, height // 2, width // 2, noisy.device, noisy.dtype),
            return_dict=False,
        )[0]
        sides = height * base.vae_scale_factor, width * base.vae_scale_factor
        unpacked = FluxPipeline._unpack_latents(predicted, *sides, base.vae_scale_factor)
        loss = torch.nn.functional.mse_loss(unpacked, noise - latents)
        descend(loss, optimizer, settings)
    return trained_adapter(transformer, names, settings)
