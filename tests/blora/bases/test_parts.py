"""Several parts of a base: an autoencoder of its own and fused LoRAs, as diffusers has them; what the revision says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionXLPipeline, UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor

from blora.bases.fuse import fuse_lora
from blora.bases.locate import Located, base_revision
from blora.bases.parts import load_part
from blora.bases.spec import KNOWN, BaseSpec, Fused, parse_base
from blora.errors import BaseModelError, KeyMismatchError, TopologyError
from blora.models.model import load_base
from tests.ldm import ldm_tensors, unet_name

LAYERS = (
    "conv_in",
    "time_embedding.linear_1",
    "add_embedding.linear_2",
    "down_blocks.0.resnets.1.conv1",
    "down_blocks.0.downsamplers.0.conv",
    "down_blocks.1.resnets.0.conv_shortcut",
    "down_blocks.2.attentions.1.proj_in",
    "mid_block.resnets.1.time_emb_proj",
    "mid_block.attentions.0.transformer_blocks.3.ff.net.0.proj",
    "up_blocks.0.attentions.0.transformer_blocks.9.attn2.to_out.0",
    "up_blocks.1.upsamplers.0.conv",
    "up_blocks.2.resnets.2.conv2",
)
"""One of every kind that the LoRAs of few steps hold."""


def lora(unet: Any, name: Callable[[str], str], form: str, alpha: float | None) -> dict[str, Tensor]:
    """A LoRA of rank 4 with random numbers under the names of a form."""
    torch.manual_seed(0)
    tensors: dict[str, Tensor] = {}
    for layer in LAYERS:
        weight = unet.get_submodule(layer).weight
        is_conv = weight.ndim == 4
        down, up = torch.randn(4, *weight.shape[1:]), torch.randn(weight.shape[0], 4, *((1, 1) if is_conv else ()))
        for part, value in (("down", down), ("up", up)):
            tensors[form.format(name=name(layer), part=part, letter="A" if part == "down" else "B")] = value * 0.1
        if alpha is not None:
            tensors[f"lora_unet_{name(layer)}.alpha"] = torch.tensor(alpha)
    return tensors


KOHYA = "lora_unet_{name}.lora_{part}.weight"
FORMS = {
    "kohya": (lambda layer: layer.replace(".", "_"), KOHYA, 2.0),
    "kohya, original blocks": (lambda layer: unet_name(f"{layer}.")[:-1].replace(".", "_"), KOHYA, 2.0),
    "diffusers": (lambda layer: layer, "unet.{name}.lora.{part}.weight", None),
    "peft": (lambda layer: layer, "unet.{name}.lora_{letter}.weight", None),
}


@pytest.fixture(scope="module")
def narrow_unet(narrow_folder: Path) -> UNet2DConditionModel:
    return UNet2DConditionModel.from_pretrained(narrow_folder, subfolder="unet")


@pytest.fixture(scope="module")
def fused_by_diffusers(narrow_folder: Path) -> dict[str, Tensor]:
    """Weights with the LoRA at 0.35, by the pipeline's own loader; of kohya's names it would drop add_embedding."""
    pipeline = StableDiffusionXLPipeline.from_pretrained(narrow_folder)
    name, form, alpha = FORMS["peft"]
    pipeline.load_lora_weights(lora(pipeline.unet, name, form, alpha))
    pipeline.fuse_lora(lora_scale=0.35)
    pipeline.unload_lora_weights()
    return {layer: pipeline.unet.get_submodule(layer).weight.detach().clone() for layer in LAYERS}


@pytest.mark.parametrize("form", FORMS)
def test_a_lora_is_fused_as_diffusers_does(
    form: str,
    narrow_folder: Path,
    narrow_unet: Any,
    fused_by_diffusers: dict[str, Tensor],
    tmp_path: Path,
) -> None:
    name, keys, alpha = FORMS[form]
    save_file(lora(narrow_unet, name, keys, alpha), tmp_path / "lora.safetensors")
    weight = 0.7 if alpha else 0.35  # alpha 2 of rank 4 is a half
    fuse = ((tmp_path / "lora.safetensors", weight),)
    located = Located("x", narrow_folder, "revision", fuse=fuse)
    ours = load_part(UNet2DConditionModel, located, "unet", torch.device("cpu"), torch_dtype=torch.float32)
    for layer in LAYERS:
        before = narrow_unet.get_submodule(layer).weight
        assert not torch.equal(ours.get_submodule(layer).weight, before)
        torch.testing.assert_close(ours.get_submodule(layer).weight, fused_by_diffusers[layer], rtol=1e-4, atol=1e-5)
    untouched = "up_blocks.0.attentions.0.transformer_blocks.8.attn2.to_q"
    assert torch.equal(ours.get_submodule(untouched).weight, narrow_unet.get_submodule(untouched).weight)


def kohya(alpha: Tensor, rank: int = 1) -> dict[str, Tensor]:
    """An update of the first convolution of the narrow UNet (32 channels), with its alpha."""
    name = "lora_unet_conv_in"
    factors = {
        f"{name}.lora_down.weight": torch.ones(rank, 4, 3, 3),
        f"{name}.lora_up.weight": torch.ones(32, rank, 1, 1),
    }
    return {**factors, f"{name}.alpha": alpha}


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (
            {"lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": torch.ones(1, 1)},
            "updates of text encoders",
        ),
        ({"lora_unet_conv_in.hada_w1_a": torch.ones(1, 1)}, "no LoRA of this UNet"),
        ({"lora_unet_conv_in.lora_down.weight": torch.ones(1, 4, 3, 3)}, "factors do not fit"),
        ({"lora_unet_conv_in.alpha": torch.ones(1)}, "factors do not fit"),
        (kohya(torch.ones(2)), "alpha is not one number"),
        (kohya(torch.zeros(1)), "alpha says two things"),
        (kohya(torch.ones(1), rank=0), "rank 0|factors do not fit"),
        (
            {
                "unet.conv_in.lora_A.weight": torch.ones(1, 4, 3, 3),
                "unet.conv_in.lora_B.weight": torch.ones(9, 1, 1, 1),
            },
            r"factors do not fit the layer.*\(32, 4, 3, 3\).*made for SDXL",
        ),
        ({"unet.conv_in.lora_A.weight": torch.full((1, 4, 3, 3), torch.nan)}, "not finite"),
    ],
)
def test_what_does_not_land_whole_is_refused(
    narrow_unet: Any, tmp_path: Path, tensors: dict[str, Tensor], message: str
) -> None:
    save_file(tensors, tmp_path / "lora.safetensors")
    with pytest.raises(KeyMismatchError, match=message):
        fuse_lora(narrow_unet, tmp_path / "lora.safetensors", 1.0)


def test_an_autoencoder_of_its_own_takes_the_models_place(
    epsilon_folder: Path, narrow_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a folder; as a file with and without the prefix of a whole model, and with diffusers' names."""
    vae = AutoencoderKL.from_pretrained(narrow_folder, subfolder="vae")
    of_folder = load_base(json.dumps({"model": str(epsilon_folder), "vae": str(narrow_folder / "vae")}))
    assert (of_folder.vae_scale_factor, of_folder.name) == (8, "epsilon + vae")
    for name, value in vae.state_dict().items():
        assert torch.equal(of_folder.vae.state_dict()[name], value)
    prefix = "first_stage_model."
    monkeypatch.setattr("blora.bases.parts.SDXL_FOLDER", narrow_folder)  # the configuration of a file alone
    whole = {n: v.contiguous() for n, v in ldm_tensors(narrow_folder).items() if n.startswith(prefix)}
    for tensors in (whole, {n.removeprefix(prefix): v for n, v in whole.items()}, vae.state_dict()):
        save_file(tensors, tmp_path / "vae.safetensors")
        located = Located("x", narrow_folder, "revision", vae=tmp_path / "vae.safetensors")
        ours = load_part(AutoencoderKL, located, "vae", torch.device("cpu"), torch_dtype=torch.float32)
        for name, value in vae.state_dict().items():
            assert torch.equal(ours.state_dict()[name], value)
    other = shutil.copytree(narrow_folder / "vae", tmp_path / "flux")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "latent_channels": 16}))
    with pytest.raises(TopologyError, match=r"the autoencoder does not fit.*16 channels.*4 channels"):
        load_base(json.dumps({"model": str(epsilon_folder), "vae": str(other)}))


def test_every_part_is_in_the_revision_and_a_plain_base_keeps_its_own(epsilon_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"a")
    (tmp_path / "b.safetensors").write_bytes(b"b")
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "config.json").write_text("{}")

    def revision(**parts: object) -> str:
        return base_revision(json.dumps({"model": str(epsilon_folder), **parts}))

    a, b = ({"lora": str(tmp_path / f"{name}.safetensors")} for name in "ab")
    seen = [
        revision(),
        revision(vae=str(tmp_path / "vae")),
        revision(fuse=[a]),
        revision(fuse=[{**a, "weight": 0.5}]),
        revision(fuse=[b]),
        revision(fuse=[a, b]),
        revision(vae=str(tmp_path / "vae"), fuse=[a]),
    ]
    assert len(set(seen)) == len(seen) and seen[0] == base_revision(epsilon_folder)
    assert revision(fuse=[{**a, "weight": 1}]) == seen[2], "a weight that is said is the one that is meant"
    (tmp_path / "a.safetensors").write_bytes(b"another")
    assert revision(fuse=[a]) != seen[2]


def test_known_names_stand_for_commits_alone_and_among_parts() -> None:
    assert all("@" in base.model for base in KNOWN.values())
    assert base_revision("sdxl") == "462165984030d82259a11f4367a4eed129e94a7b"
    assert parse_base('{"model": "sdxl"}') == parse_base("sdxl") == KNOWN["sdxl"]
    more = parse_base('{"model": "sdxl+lightning8", "vae": "x.safetensors", "fuse": [{"lora": "y.safetensors"}]}')
    assert more.fuse == (*KNOWN["sdxl+lightning8"].fuse, Fused("y.safetensors")) and more.vae == "x.safetensors"
    assert parse_base(more.text) == more
    assert BaseSpec("/home/me/a.safetensors", "/home/me/vae", (Fused("/x/l.safetensors", 0.5),)).label == (
        "a.safetensors + vae + l.safetensors x 0.5"
    )


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "{}",
        '{"model": 1}',
        '{"model": "sdxl", "vea": "x"}',
        '{"model": "sdxl", "fuse": [{"weight": 1}]}',
        '{"model": "sdxl", "fuse": [{"lora": "x", "weight": "much"}]}',
        '{"model": "sdxl", "fuse": [{"lora": "x", "scale": 1}]}',
        '{"model": "sdxl", "fuse": ["x"]}',
    ],
)
def test_parts_of_another_form_are_refused(text: str) -> None:
    with pytest.raises(BaseModelError, match=r'unreadable base model.*"fuse"'):
        parse_base(text)
