"""Single files: the same numbers as the folder, the package's own configuration, and what is refused by name."""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from blora.bases.headers import check_file
from blora.bases.locate import SDXL_FOLDER, Located, base_revision, locate_base
from blora.errors import BaseModelError
from blora.models.model import Base, load_base
from tests.blora.bases.conftest import config_of


def of_file(file: Path, folder: Path, **parts: Any) -> Base:
    """A base whose weights are in a file; its narrow configuration is that of a folder."""
    return Base(Located(str(file), folder, "revision", file, **parts))


def same(ours: torch.nn.Module, theirs: torch.nn.Module) -> bool:
    """Whether two modules hold the same numbers under the same names."""
    a, b = ours.state_dict(), theirs.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_single_file_is_the_model_of_the_folder_it_came_from(
    narrow_file: Path, narrow_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*_: object) -> None:
        raise AssertionError("a single file asks no hub")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    ours, theirs = of_file(narrow_file, narrow_folder), load_base(narrow_folder)
    assert same(ours.unet, theirs.unet) and same(ours.vae, theirs.vae)
    for (_, ours_encoder), (_, theirs_encoder) in zip(
        ours.text_encoders.load(), theirs.text_encoders.load(), strict=True
    ):
        assert same(ours_encoder, theirs_encoder)
    prompts = ["A [v]", "a pepper in [wave] style"]
    assert torch.equal(ours.encode_prompts(prompts).hidden, theirs.encode_prompts(prompts).hidden)
    latents = torch.randn(1, 4, 4, 4)
    assert (ours.decode(latents) == theirs.decode(latents)).all()


def test_the_packages_configuration_is_sdxls() -> None:
    """By the parameters that Stability's own count: no hub is needed to know SDXL."""
    with init_empty_weights():
        counted = [
            sum(p.numel() for p in model.parameters())
            for model in (
                UNet2DConditionModel.from_config(config_of("unet")),
                AutoencoderKL.from_config(config_of("vae")),
                CLIPTextModel(CLIPTextConfig(**config_of("text_encoder"))),
                CLIPTextModelWithProjection(CLIPTextConfig(**config_of("text_encoder_2"))),
            )
        ]
    assert counted == [2_567_463_684, 83_653_863, 123_060_480, 694_659_840]
    located = Located("x", SDXL_FOLDER, "revision")
    assert {path.name for path in located.tokenizers.glob("tokenizer*")} == {"tokenizer", "tokenizer_2"}
    pads = [
        json.loads((located.tokenizers / part / "tokenizer_config.json").read_text())["pad_token"]
        for part in ("tokenizer", "tokenizer_2")
    ]
    assert pads == ["<|endoftext|>", "!"]


def test_a_files_revision_is_its_sha_256(narrow_file: Path, tmp_path: Path) -> None:
    digest = hashlib.sha256(narrow_file.read_bytes()).hexdigest()
    assert base_revision(narrow_file) == base_revision(f"{narrow_file}#sha256:{digest}") == digest
    located = locate_base(f"{narrow_file}#sha256:{digest}")
    assert (located.file, located.folder, located.label) == (narrow_file, SDXL_FOLDER, "narrow.safetensors")
    with pytest.raises(BaseModelError, match=f"another file than its SHA-256 says.*{digest}"):
        locate_base(f"{narrow_file}#sha256:{'0' * 64}")
    with pytest.raises(BaseModelError, match="no SHA-256"):
        base_revision(f"{narrow_file}#sha256:{digest[:12]}")


def test_what_a_fine_tune_says_of_its_noise_is_heard(tmp_path: Path) -> None:
    marks = {"v_pred": torch.tensor([]), "ztsnr": torch.tensor([])}
    save_file({name: torch.zeros(shape) for name, shape in WHOLE.items()} | marks, tmp_path / "v.safetensors")
    located = locate_base(tmp_path / "v.safetensors")
    assert located.scheduler["prediction_type"] == "v_prediction" and located.scheduler["rescale_betas_zero_snr"]


def test_a_tensor_too_few_or_another_width_is_told(narrow_file: Path, narrow_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match=r"not SDXL's tensors.*size mismatch"):
        load_base(narrow_file)  # with the package's full-size configuration
    tensors = load_file(narrow_file)
    del tensors["model.diffusion_model.output_blocks.0.1.transformer_blocks.9.attn1.to_q.weight"]
    save_file(tensors, tmp_path / "pruned.safetensors")
    with pytest.raises(BaseModelError, match=r"without up_blocks\.0\.attentions\.0.*\.9\.attn1"):
        of_file(tmp_path / "pruned.safetensors", narrow_folder)


FLUX = {"double_blocks.0.img_attn.qkv.weight": (2, 2)}
UNET_4 = {"model.diffusion_model.input_blocks.0.0.weight": (320, 4, 3, 3)}
UNET_9 = {"model.diffusion_model.input_blocks.0.0.weight": (320, 9, 3, 3)}
WHOLE = UNET_4 | {
    "first_stage_model.decoder.conv_in.weight": (1,),
    "conditioner.embedders.0.transformer.text_model.final_layer_norm.weight": (1,),
    "conditioner.embedders.1.model.ln_final.weight": (1,),
}


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (UNET_4 | {"cond_stage_model.transformer.text_model.x": (1,)}, r"Stable Diffusion 1\.5, not SDXL"),
        (UNET_4 | {"cond_stage_model.model.ln_final.weight": (1,)}, "Stable Diffusion 2, not SDXL"),
        (UNET_4 | {"conditioner.embedders.0.model.ln_final.weight": (1,)}, "SDXL's refiner, not its base.*take the"),
        (WHOLE | UNET_9, "an inpainting model"),
        (UNET_9 | {"cond_stage_model.transformer.text_model.x": (1,)}, "an inpainting model"),
        (FLUX, "FLUX's transformer without text encoders.*rest: "),
        ({f"model.diffusion_model.{name}": shape for name, shape in FLUX.items()}, "FLUX's transformer without"),
        (FLUX | {"single_stream_modulation.lin.weight": (1,)}, r"FLUX\.2 in one file, not FLUX\.1"),
        ({"model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight": (1,)}, "Stable Diffusion 3, not SDXL"),
        ({"lora_unet_input_blocks_4_1_proj_in.lora_down.weight": (1, 1)}, "a LoRA, not a base.*fuse: "),
        ({"unet.down_blocks.1.attentions.0.proj_in.lora_A.weight": (1, 1)}, "a LoRA, not a base"),
        ({"decoder.conv_in.weight": (1,), "encoder.conv_in.weight": (1,)}, "an autoencoder alone.*vae: "),
        ({"first_stage_model.decoder.conv_in.weight": (1,)}, "an autoencoder alone"),
        ({"down_blocks.0.resnets.0.conv1.weight": (1,)}, "one part of a folder in diffusers' layout"),
        (UNET_4, "not a whole model.*without autoencoder, text encoder, second text encoder"),
        ({name: shape for name, shape in WHOLE.items() if "first_stage" not in name}, "without its autoencoder.*vae: "),
        ({"x": (1,)}, "not a whole model"),
    ],
)
def test_other_files_are_refused_by_what_they_are(tmp_path: Path, shapes: dict[str, Any], message: str) -> None:
    file = tmp_path / "model.safetensors"
    save_file({name: torch.zeros(shape) for name, shape in shapes.items()}, file)
    for use in (load_base, base_revision):  # a plan says so, too
        with pytest.raises(BaseModelError, match=message):
            use(file)
    save_file({name: torch.zeros(shape) for name, shape in WHOLE.items()}, file)
    assert check_file(file, "it").has_vae


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("model.ckpt", lambda file: torch.save({"x": 1}, file), "a pickle, which can run code"),
        ("model.safetensors", lambda file: torch.save({"x": 1}, file), "a pickle, which can run code"),
        ("model.safetensors", lambda file: file.write_text("version https://git-lfs.github.com/spec/v1\n"), "Git LFS"),
        ("model.safetensors", _cut, "not a whole safetensors file.*download it again"),
        ("model.safetensors", lambda file: file.write_bytes(b""), "not a whole safetensors file"),
        ("model.safetensors", lambda file: file.write_bytes(b"\xff" * 64), "not a whole safetensors file"),
    ],
)
def test_what_is_no_safetensors_file_is_refused(
    narrow_file: Path, tmp_path: Path, name: str, write: Callable[[Path], object], message: str
) -> None:
    file = tmp_path / name
    shutil.copy(narrow_file, file)
    write(file)
    with pytest.raises(BaseModelError, match=message):
        load_base(file)
