"""Splits: how blocks are named, what is refused, and that the usual ones change no id."""

from __future__ import annotations

import pytest

from blora.errors import SettingsError
from blora.settings.block_split import SPLITS, BlockSplit, Stretch, own_split, splits_apart
from blora.settings.presets import PRESETS
from blora.settings.resolve import resolve
from blora.settings.training import TrainSettings

FRONT = BlockSplit(content=("down_blocks.2.attentions.0-1",), style=("up_blocks.0.attentions.1",))


@pytest.mark.parametrize(
    ("name", "inside", "outside"),
    [
        ("up_blocks.0.attentions.1", ["up_blocks.0.attentions.1"], ["up_blocks.0.attentions.10"]),
        ("up_blocks.0.attentions.0-1", ["up_blocks.0.attentions.0"], ["up_blocks.1.attentions.0"]),
        ("transformer_blocks.0-8", ["transformer_blocks.8"], ["transformer_blocks.9", "single_transformer_blocks.3"]),
        ("single_transformer_blocks.10-", ["single_transformer_blocks.57"], ["single_transformer_blocks.9"]),
        ("mid_block.attentions.0", ["mid_block.attentions.0"], ["mid_block.attentions.1"]),
    ],
)
def test_a_stretch_holds_the_layers_of_its_blocks(name: str, inside: list[str], outside: list[str]) -> None:
    stretch = Stretch.read(name)
    assert str(stretch) == name
    assert all(stretch.holds(f"{block}.attn.to_q") for block in inside)
    assert not any(stretch.holds(f"{block}.attn.to_q") or stretch.holds(f"x{inside[0]}.to_q") for block in outside)


def test_equal_choices_are_equal_however_they_are_written() -> None:
    one = BlockSplit(
        content=("transformer_blocks.3", "transformer_blocks.1-2"), style=("single_transformer_blocks.4-",)
    )
    other = BlockSplit(
        content=("transformer_blocks.1-3", "transformer_blocks.2"),
        style=("single_transformer_blocks.6-", "single_transformer_blocks.4-5"),
    )
    assert one == other and one.content == ("transformer_blocks.1-3",)


@pytest.mark.parametrize(
    ("said", "field", "message"),
    [
        ("blora", "train.blocks", "b-lora, splitflux, b-lora-flux, or {content"),
        (["up_blocks.0.attentions.0"], "train.blocks", "names of blocks"),
        (
            {"content": ["W4"], "style": ["up_blocks.0.attentions.1"]},
            "train.blocks.content",
            "blocks such as up_blocks",
        ),
        ({"content": ["transformer_blocks.8-2"], "style": ["x.1"]}, "train.blocks.content", "lower number"),
        ({"content": ["up_blocks.0.attentions.01"], "style": []}, "train.blocks.style", "at least 1 item"),
        ({"content": ["up_blocks.0.attentions.0"]}, "train.blocks.style", "required"),
        (
            {"content": ["transformer_blocks.0-9"], "style": ["transformer_blocks.9-"]},
            "train.blocks",
            "without a block in common; both have transformer_blocks.0-9",
        ),
        (
            {"content": ["transformer_blocks.0"], "style": ["up_blocks.0.attentions.0"]},
            "train.blocks",
            "one kind of base",
        ),
    ],
)
def test_what_is_no_split_is_a_fault_of_its_setting(said: object, field: str, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        resolve("paper", {"train.blocks": said})
    (fault,) = [fault for fault in caught.value.faults if fault.field == field]
    assert message in fault.accepted


def test_a_split_is_part_of_an_adapters_id_only_where_it_is_not_the_bases_own() -> None:
    plain = TrainSettings().identity()
    assert all(PRESETS[name].train.blocks is None for name in PRESETS)
    assert TrainSettings(blocks="b-lora").identity() == TrainSettings(blocks="splitflux").identity() == plain
    listed = BlockSplit(content=("up_blocks.0.attentions.0",), style=("up_blocks.0.attentions.1",))
    assert listed == own_split(flux=False) and TrainSettings(blocks=listed).identity() == plain
    named, other = TrainSettings(blocks="b-lora-flux"), TrainSettings(blocks=SPLITS["b-lora-flux"])
    assert named.identity() == other.identity()
    assert named.identity() == plain | {
        "blocks": {"content": ["transformer_blocks.9-18"], "style": ["transformer_blocks.0-8"]}
    }


def test_splits_go_together_where_content_and_style_do_not_overlap() -> None:
    usual = own_split(flux=False)
    turned = BlockSplit(content=usual.style, style=usual.content)
    assert splits_apart([usual], [FRONT]) is None and splits_apart([FRONT], [usual]) is None
    assert splits_apart([turned], [usual]) == (
        "content and style of splits that overlap",
        "content up_blocks.0.attentions.1 beside style up_blocks.0.attentions.1",
    )
    mixed = splits_apart([usual, FRONT], [usual])
    assert mixed is not None and mixed[0] == "a mix of different content blocks"
    assert splits_apart([], [usual]) is None
