"""Blocks by exact name, and one parser for every dialect of keys."""

from __future__ import annotations

import pytest
import torch
from diffusers import UNet2DConditionModel
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from blora.adapters.blocks import BLOCKS, PROJECTIONS, block_of, target_layers
from blora.adapters.keys import parse_key
from blora.errors import TopologyError
from blora.models.model import Base

CONTENT, STYLE = BLOCKS["content"], BLOCKS["style"]
DIALECTS = {
    "diffusers": "unet.{layer}.lora.{half}.weight",
    "doubled prefix": "unet.unet.{layer}.lora.{half}.weight",
    "no prefix": "{layer}.lora.{half}.weight",
    "peft": "base_model.model.{layer}.lora_{letter}.weight",
    "peft in a pipeline": "unet.base_model.model.{layer}.lora_{letter}.weight",
    "peft with the adapter's name": "base_model.model.unet.{layer}.lora_{letter}.default.weight",
    "diffusers with peft": "unet.{layer}.lora_{letter}.weight",
    "doubled with peft": "unet.unet.{layer}.lora_{letter}.weight",
    "first processors": "unet.{old}_lora.{half}.weight",
    "kohya": "lora_unet_{flat}.lora_{half}.weight",
    "kohya, original names": "lora_unet_{original}.lora_{half}.weight",
}


def spell(dialect: str, layer: str, half: str) -> str:
    """Write a key of one dialect."""
    block, _, rest = layer.partition(".transformer_blocks.")
    head, _, projection = layer.partition(".to_")
    original = {CONTENT: "output_blocks_0_1", STYLE: "output_blocks_1_1"}.get(block, "?")
    return DIALECTS[dialect].format(
        layer=layer,
        half=half,
        letter={"down": "A", "up": "B"}[half],
        old=f"{head}.processor.to_{projection.removesuffix('.0')}",
        flat=layer.replace(".", "_"),
        original=f"{original}_transformer_blocks_{rest.replace('.', '_')}",
    )


layers = st.builds(
    "{}.transformer_blocks.{}.attn{}.{}".format,
    st.sampled_from([CONTENT, STYLE]),
    st.integers(0, 20),
    st.sampled_from([1, 2]),
    st.sampled_from(PROJECTIONS),
)


@given(layers, st.sampled_from(sorted(DIALECTS)), st.sampled_from(["down", "up"]))
def test_every_dialect_is_read(layer: str, dialect: str, half: str) -> None:
    assert parse_key(spell(dialect, layer, half)) == (layer, half)


@pytest.mark.parametrize(
    "key",
    [
        f"unet.{STYLE}.transformer_blocks.0.attn1.to_q.alpha",
        f"unet.{STYLE}.transformer_blocks.0.attn1.to_q.lora.alpha",
        f"lora_unet_{STYLE.replace('.', '_')}_transformer_blocks_0_attn1_to_q.alpha",
        "lora_unet_output_blocks_1_1_transformer_blocks_0_attn1_to_q.alpha",
    ],
)
def test_alpha_is_read(key: str) -> None:
    assert parse_key(key) == (f"{STYLE}.transformer_blocks.0.attn1.to_q", "alpha")


@pytest.mark.parametrize(
    ("original", "block"),
    [
        ("input_blocks_4_1", "down_blocks.1.attentions.0"),
        ("input_blocks_7_1", "down_blocks.2.attentions.0"),
        ("input_blocks_8_1", "down_blocks.2.attentions.1"),
        ("middle_block_1", "mid_block.attentions.0"),
        ("mid_block_attentions_0", "mid_block.attentions.0"),
        ("output_blocks_0_1", CONTENT),
        ("output_blocks_1_1", STYLE),
        ("output_blocks_2_1", "up_blocks.0.attentions.2"),
        ("output_blocks_3_1", "up_blocks.1.attentions.0"),
    ],
)
def test_original_block_numbers(original: str, block: str) -> None:
    key = f"lora_unet_{original}_transformer_blocks_1_attn2_to_out_0.lora_up.weight"
    assert parse_key(key) == (f"{block}.transformer_blocks.1.attn2.to_out.0", "up")


@pytest.mark.parametrize(
    "key",
    [
        "epoch",
        "lora_unet_output_blocks_1_1_proj_in.lora_down.weight",
        f"unet.{STYLE}.transformer_blocks.0.attn1.to_q.lora_magnitude_vector",
        f"unet.{STYLE}.transformer_blocks.0.attn1.to_q.dora_scale",
        f"unet.{STYLE}.transformer_blocks.0.attn1.to_q.weight",
    ],
)
def test_unknown_keys_are_not_guessed(key: str) -> None:
    assert parse_key(key) is None


@pytest.mark.parametrize(
    ("layer", "half"),
    [
        ("up_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q", "content"),
        ("up_blocks.0.attentions.1.transformer_blocks.0.attn1.to_q", "style"),
        ("up_blocks.0.attentions.10.transformer_blocks.0.attn1.to_q", None),
        ("up_blocks.0.attentions.01.transformer_blocks.0.attn1.to_q", None),
        ("up_blocks.0.attentions.1", None),
        ("down_blocks.2.up_blocks.0.attentions.1.to_q", None),
        ("xup_blocks.0.attentions.1.to_q", None),
        ("up_blocks.0.attentions.2.transformer_blocks.0.attn1.to_q", None),
    ],
)
def test_membership_is_by_exact_prefix(layer: str, half: str | None) -> None:
    assert block_of(layer) == half


def test_targets_are_the_attention_projections_of_one_block(base: Base) -> None:
    content = target_layers(base.unet, "content")
    assert len(content) == 2 * 2 * 4  # transformer layers x attentions x projections
    assert all(block_of(name) == "content" for name in content)
    assert all(isinstance(base.unet.get_submodule(name), nn.Linear) for name in content)
    assert not set(content) & set(target_layers(base.unet, "style"))
    assert not any("ff" in name or "proj" in name for name in content)


def test_a_tenth_attention_is_not_the_first() -> None:
    unet = nn.Module()
    unet.up_blocks = nn.ModuleList([nn.Module()])
    attention = nn.ModuleDict({"to_q": nn.Linear(2, 2)})
    block = nn.ModuleDict({"transformer_blocks": nn.ModuleList([nn.ModuleDict({"attn1": attention})])})
    unet.up_blocks[0].attentions = nn.ModuleDict({"1": block, "10": block})
    assert target_layers(unet, "style") == (f"{STYLE}.transformer_blocks.0.attn1.to_q",)
    with pytest.raises(TopologyError, match=r"up_blocks\.0\.attentions\.0"):
        target_layers(unet, "content")


def test_full_size_sdxl_has_the_published_counts() -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            block_out_channels=(320, 640, 1280),
            transformer_layers_per_block=(1, 2, 10),
            attention_head_dim=(5, 10, 20),
            cross_attention_dim=2048,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=2816,
        )
    names = (*target_layers(unet, "content"), *target_layers(unet, "style"))
    assert len(names) == 2 * 80
    assert sum(64 * sum(unet.get_submodule(name).weight.shape) for name in names) == 28_180_480  # type: ignore[union-attr, arg-type]
