"""FLUX's layers under its original code's names: read as diffusers reads them, whoever wrote them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers.loaders.lora_conversion_utils import _convert_kohya_flux_lora_to_diffusers
from torch import Tensor

from blora.adapters.adapter import Adapter
from blora.adapters.factors import Factors
from blora.adapters.keys import parse_key
from blora.adapters.load import load_adapter
from blora.adapters.safetensors_bytes import pack_safetensors, unpack_safetensors
from blora.errors import KeyMismatchError

WIDTH, RANK, ALPHA = 3072, 4, 2.0  # the width that diffusers' reader takes for granted
CONTENT, STYLE = "single_transformer_blocks.3.attn", "single_transformer_blocks.12.attn"


def trained_by_kohya(stem: str, down: str = "lora_down", up: str = "lora_up", joint: str = "_") -> dict[str, Tensor]:
    """A LoRA of two single-stream blocks: one down for queries, keys, values and feed-forward together."""
    draw = torch.Generator().manual_seed(0)
    tensors = {}
    for block in (3, 12):
        layer = f"{stem}single_blocks{joint}{block}{joint}linear1"
        tensors[f"{layer}.{down}.weight"] = torch.randn(RANK, WIDTH, generator=draw) / 10
        tensors[f"{layer}.{up}.weight"] = torch.randn(7 * WIDTH, RANK, generator=draw) / 10
        tensors[f"{layer}.alpha"] = torch.tensor(ALPHA)
    return tensors


@pytest.mark.parametrize(("stem", "joint"), [("lora_unet_", "_"), ("diffusion_model.", ".")])
def test_kohyas_own_training_is_read_as_diffusers_reads_it(stem: str, joint: str) -> None:
    tensors = trained_by_kohya(stem, joint=joint)
    read = load_adapter(pack_safetensors(tensors, {}), only="blocks")
    theirs = _convert_kohya_flux_lora_to_diffusers({key: value.clone() for key, value in tensors.items()})
    assert set(read.layers) == {f"{block}.to_{part}" for block in (CONTENT, STYLE) for part in "qkv"}
    for name, factors in read.layers.items():
        down, up = (theirs[f"transformer.{name}.lora_{part}.weight"] for part in "AB")
        torch.testing.assert_close(factors.delta, up @ down, atol=1e-6, rtol=1e-5)
        assert factors.rank == RANK
    assert read.metadata["dropped"].count("(feed-forward)") == 2
    with pytest.raises(KeyMismatchError, match=r"does not use.*feed-forward.*only-blocks"):
        load_adapter(pack_safetensors(tensors, {}))


def test_bfl_names_with_pefts_factors_and_no_prefix_are_read(caplog: pytest.LogCaptureFixture) -> None:
    tensors = trained_by_kohya("", "lora_A", "lora_B", ".")
    of_kohya = load_adapter(pack_safetensors(trained_by_kohya("lora_unet_"), {}), only="blocks")
    read = load_adapter(pack_safetensors(tensors, {}), only="blocks")
    assert all(torch.equal(read.layers[name].delta, factors.delta) for name, factors in of_kohya.layers.items())
    bare = {key: value for key, value in tensors.items() if not key.endswith("alpha")}
    whole = load_adapter(pack_safetensors(bare, {}), only="blocks")
    torch.testing.assert_close(whole.layers[f"{CONTENT}.to_q"].up, read.layers[f"{CONTENT}.to_q"].up * RANK / ALPHA)
    assert "nothing of alpha" in caplog.text


def test_our_own_file_comes_back_without_losing_rank_or_numbers(tmp_path: Path) -> None:
    """Each projection has a rank of its own; as large as fp16 keeps it."""
    draw = torch.Generator().manual_seed(1)
    ranks = {"q": 1, "k": 3, "v": 2}
    layers = {
        f"{block}.to_{part}": Factors(
            torch.randn(rank, 32, generator=draw).half().float(), torch.randn(32, rank, generator=draw).half().float()
        )
        for block in (CONTENT, STYLE)
        for part, rank in ranks.items()
    }
    (file,) = Adapter(layers).save(tmp_path / "both.safetensors", "kohya")
    read = load_adapter(file)
    assert {name: factors.rank for name, factors in read.layers.items()} == {
        name: factors.rank for name, factors in layers.items()
    }
    assert all(torch.equal(read.layers[name].delta, factors.delta) for name, factors in layers.items())


def test_other_layers_of_flux_are_known_by_all_their_names() -> None:
    known = {
        "lora_unet_single_blocks_0_linear2": "single_transformer_blocks.0.proj_out",
        "lora_unet_single_blocks_37_modulation_lin": "single_transformer_blocks.37.norm.linear",
        "diffusion_model.single_blocks.4.modulation.lin": "single_transformer_blocks.4.norm.linear",
        "lora_transformer_single_transformer_blocks_0_attn_to_q": "single_transformer_blocks.0.attn.to_q",
        "lycoris_single_transformer_blocks_12_attn_to_v": f"{STYLE}.to_v",
    }
    for stem, layer in known.items():
        assert parse_key(f"{stem}.lora_down.weight") == (layer, "down")
    for outside in ("lora_unet_double_blocks_18_img_attn_qkv", "diffusion_model.double_blocks.18.txt_mlp.0"):
        layer, _ = parse_key(f"{outside}.lora_up.weight") or ("", "")
        assert layer.startswith("transformer_blocks.18.")


def test_a_larger_lora_of_kohya_gives_its_blocks_alone() -> None:
    more = {
        "lora_unet_double_blocks_0_img_attn_qkv": (32, 96),
        "lora_unet_single_blocks_3_linear2": (160, 32),
        "lora_unet_single_blocks_3_modulation_lin": (32, 96),
        "lora_unet_img_in": (64, 32),
        "lora_unet_final_layer_linear": (32, 64),
        "lora_te1_text_model_encoder_layers_0_mlp_fc1": (32, 128),
        "lora_unet_single_blocks_3_linear1": (32, 7 * 32),
    }
    tensors = {}
    for stem, (inner, out) in more.items():
        tensors[f"{stem}.lora_down.weight"], tensors[f"{stem}.lora_up.weight"] = (
            torch.ones(2, inner),
            torch.ones(out, 2),
        )
    read = load_adapter(pack_safetensors(tensors, {}), only="blocks")
    assert set(read.layers) == {f"{CONTENT}.to_{part}" for part in "qkv"}
    assert len(read.metadata["dropped"].split(", ")) == 2 * 6 + 1
    with pytest.raises(KeyMismatchError, match="does not use"):
        load_adapter(pack_safetensors(tensors, {}))


def test_what_does_not_fit_is_refused_by_name() -> None:
    layer = "lora_unet_single_blocks_3_linear1"
    narrow = {f"{layer}.lora_down.weight": torch.ones(2, 32), f"{layer}.lora_up.weight": torch.ones(96, 2)}
    with pytest.raises(KeyMismatchError, match=r"96 numbers out of 32.*224"):
        load_adapter(pack_safetensors(narrow, {}))
    wide = narrow | {f"{layer}.lora_up.weight": torch.cat([torch.ones(96, 2), torch.zeros(128, 2)])}
    assert set(load_adapter(pack_safetensors(wide, {})).layers) == {f"{CONTENT}.to_{part}" for part in "qkv"}
    own = f"transformer.{CONTENT}.to_q"
    twice = {f"{own}.lora_A.weight": torch.ones(2, 32), f"{own}.lora_B.weight": torch.ones(32, 2)}
    with pytest.raises(KeyMismatchError, match="given twice"):
        load_adapter(pack_safetensors(wide | twice, {}))


def test_a_file_for_flux_says_what_it_is_for(tmp_path: Path) -> None:
    layers = {f"{CONTENT}.to_{part}": Factors(torch.ones(1, WIDTH), torch.ones(WIDTH, 1)) for part in "qkv"}
    for form in ("kohya", "diffusers"):
        (file,) = Adapter(layers).save(tmp_path / f"{form}.safetensors", form)  # type: ignore[arg-type]
        _, said = unpack_safetensors(file.read_bytes())
        assert (said["ss_base_model_version"], said["modelspec.architecture"]) == ("flux1", "flux-1/lora")
