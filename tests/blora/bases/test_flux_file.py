"""FLUX's transformer in one file of the original layout, with everything else from a folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FluxTransformer2DModel
from diffusers.loaders.single_file_utils import convert_flux_transformer_checkpoint_to_diffusers
from safetensors.torch import load_file, save_file
from torch import Tensor

from blora.bases.layers import flux_state
from blora.bases.locate import base_revision, files_to_fetch, locate_base
from blora.bases.spec import parse_base
from blora.errors import BaseModelError, TopologyError
from blora.models.model import load_base
from tasks.downloads import base_family, read_config
from tasks.memory import memory_model
from tests.tiny_flux import save_tiny_flux

WIDTH = 32


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_flux(tmp_path_factory.mktemp("flux") / "dev")


@pytest.fixture(scope="module")
def file(folder: Path) -> Path:
    """The transformer of that folder as its original code writes it."""
    model: Any = FluxTransformer2DModel.from_pretrained(folder, subfolder="transformer")
    path = folder.parent / "flux1-dev.safetensors"
    save_file(original(model.state_dict()), path)
    return path


def original(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of diffusers' transformer by the original code's names, written down from its ``flux/model.py``."""
    renamed = {
        "x_embedder": "img_in", "context_embedder": "txt_in", "proj_out": "final_layer.linear",
        "time_text_embed.timestep_embedder.linear_1": "time_in.in_layer",
        "time_text_embed.timestep_embedder.linear_2": "time_in.out_layer",
        "time_text_embed.text_embedder.linear_1": "vector_in.in_layer",
        "time_text_embed.text_embedder.linear_2": "vector_in.out_layer",
        "time_text_embed.guidance_embedder.linear_1": "guidance_in.in_layer",
        "time_text_embed.guidance_embedder.linear_2": "guidance_in.out_layer",
    }  # fmt: skip
    made: dict[str, Tensor] = {}

    def take(theirs: str, *ours: str, ends: tuple[str, ...] = ("weight", "bias")) -> None:
        for end in ends:
            made[f"{theirs}.{end}"] = torch.cat([state[f"{one}.{end}"] for one in ours])

    for ours, theirs in renamed.items():
        if f"{ours}.weight" in state:
            take(theirs, ours)
    for end in ("weight", "bias"):
        scale, shift = state[f"norm_out.linear.{end}"].chunk(2)
        made[f"final_layer.adaLN_modulation.1.{end}"] = torch.cat([shift, scale])
    for start in {name.rpartition(".attn.")[0] for name in state if ".attn.norm_q" in name}:
        number = start.rpartition(".")[2]
        if start.startswith("single"):
            to = f"single_blocks.{number}"
            take(f"{to}.linear1", *(f"{start}.{part}" for part in ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")))
            take(f"{to}.linear2", f"{start}.proj_out")
            take(f"{to}.modulation.lin", f"{start}.norm.linear")
            norms = {f"{to}.norm": ("norm_q", "norm_k")}
        else:
            to = f"double_blocks.{number}"
            for stream, suffix, qkv, out in (
                ("img", "", ("to_q", "to_k", "to_v"), "to_out.0"),
                ("txt", "_context", ("add_q_proj", "add_k_proj", "add_v_proj"), "to_add_out"),
            ):
                take(f"{to}.{stream}_attn.qkv", *(f"{start}.attn.{part}" for part in qkv))
                take(f"{to}.{stream}_attn.proj", f"{start}.attn.{out}")
                take(f"{to}.{stream}_mlp.0", f"{start}.ff{suffix}.net.0.proj")
                take(f"{to}.{stream}_mlp.2", f"{start}.ff{suffix}.net.2")
                take(f"{to}.{stream}_mod.lin", f"{start}.norm1{suffix}.linear")
            norms = {
                f"{to}.img_attn.norm": ("norm_q", "norm_k"),
                f"{to}.txt_attn.norm": ("norm_added_q", "norm_added_k"),
            }
        for theirs, (query, key) in norms.items():
            made[f"{theirs}.query_norm.scale"] = state[f"{start}.attn.{query}.weight"]
            made[f"{theirs}.key_norm.scale"] = state[f"{start}.attn.{key}.weight"]
    return made


def said(model: Path | str, rest: Path | str, **more: str) -> str:
    return json.dumps({"model": str(model), "rest": str(rest), **more})


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_it_loads_to_the_numbers_of_the_folder_it_was_made_of(
    prefix: str, file: Path, folder: Path, tmp_path: Path
) -> None:
    """Also beside other parts, as ComfyUI's checkpoints have it; and the folder's own weights need not be there."""
    tensors = {f"{prefix}{name}": value for name, value in load_file(file).items()}
    extra = {"vae.decoder.conv_in.bias": torch.zeros(4)} if prefix else {}
    save_file(tensors | extra, tmp_path / "flux.safetensors")
    shutil.copytree(folder, tmp_path / "rest", ignore=shutil.ignore_patterns("diffusion_pytorch_model*"))
    shutil.copytree(folder / "vae", tmp_path / "rest" / "vae", dirs_exist_ok=True)
    base, whole = load_base(said(tmp_path / "flux.safetensors", tmp_path / "rest")), load_base(folder)
    ours, theirs = base.unet.state_dict(), whole.unet.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())
    assert torch.equal(base.encode_prompts(["a cat"]).hidden, whole.encode_prompts(["a cat"]).hidden)
    assert base.family.part == "transformer" and base.scheduler_config == whole.scheduler_config


def test_plain_fp8_is_what_its_numbers_say(file: Path, folder: Path, tmp_path: Path) -> None:
    small = {name: value.to(torch.float8_e4m3fn) for name, value in load_file(file).items()}
    save_file(small, tmp_path / "fp8.safetensors")
    loaded = load_base(said(tmp_path / "fp8.safetensors", folder)).unet.state_dict()
    numbers = flux_state({name: value.float() for name, value in small.items()}, WIDTH)
    assert all(torch.equal(loaded[name], value) for name, value in numbers.items())


@pytest.mark.parametrize("guided", [True, False])
def test_names_and_shapes_at_full_size_are_those_that_diffusers_makes(guided: bool) -> None:
    with torch.device("meta"):
        full: Any = FluxTransformer2DModel(guidance_embeds=guided)
    wanted = {name: value.shape for name, value in full.state_dict().items()}
    tensors = original(full.state_dict())
    assert len(tensors) == (780 if guided else 776)
    ours = {name: value.shape for name, value in flux_state(tensors, 3072).items()}
    theirs = {name: value.shape for name, value in convert_flux_transformer_checkpoint_to_diffusers(tensors).items()}
    assert ours == theirs == wanted


def test_what_is_missing_or_does_not_fit_is_said(file: Path, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(TopologyError, match=r"without text encoders, tokenizers and autoencoder.*rest: black-forest"):
        base_revision(file)
    with pytest.raises(BaseModelError, match="rest beside a whole model"):
        locate_base(said(folder, folder))
    schnell = save_tiny_flux(tmp_path / "schnell", guided=False)
    with pytest.raises(TopologyError, match=r"two models.*guidance_embeds True, not False.*FLUX.1-schnell"):
        locate_base(said(file, schnell))
    with pytest.raises(TopologyError, match="rest is no FLUX"):
        locate_base(said(file, parse_base("embedded").model))
    tensors = load_file(file)
    save_file({**tensors, "scaled_fp8": torch.zeros(1)}, tmp_path / "scaled.safetensors")
    with pytest.raises(BaseModelError, match=r"scaled fp8.*quantize: fp8"):
        base_revision(said(tmp_path / "scaled.safetensors", folder))
    save_file({k: v for k, v in tensors.items() if k != "txt_in.bias"}, tmp_path / "cut.safetensors")
    with pytest.raises(BaseModelError, match=r"not FLUX.1's tensors.*context_embedder.bias"):
        load_base(said(tmp_path / "cut.safetensors", folder))
    save_file({"double_blocks.0.img_mod.lin.weight": torch.zeros(1)}, tmp_path / "part.safetensors")
    with pytest.raises(TopologyError, match=r"not FLUX.1's tensors.*img_in.weight"):
        base_revision(said(tmp_path / "part.safetensors", folder))


def test_both_places_are_its_revision_and_the_planner_asks_the_rest(file: Path, folder: Path) -> None:
    spec = said(file, folder)
    assert parse_base(parse_base(spec).text) == parse_base(spec)
    assert base_revision(spec) not in (base_revision(folder), base_revision(said(file, folder, quantize="nf4")))
    assert base_family(spec) == "flux"
    assert read_config(spec, "transformer") == read_config(str(folder), "transformer")
    assert memory_model(spec) == memory_model(str(folder))


def test_of_the_rest_no_transformer_is_fetched() -> None:
    names = [f"{part}/model.safetensors" for part in ("transformer", "text_encoder", "text_encoder_2", "vae")]
    place = f"org/flux@{'0a' * 20}"
    told = ["transformer/config.json", "tokenizer_2/tokenizer.json"]
    assert files_to_fetch(place, [*told, *names], is_rest=True) == [*told, *names[1:]]
    assert files_to_fetch(place, [*told, *names]) == [*told, *names]
