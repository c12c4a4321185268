"""What people read: the contact sheet, the score table, artifacts with hostile names, and the price of a plan."""

from __future__ import annotations

import io
import json

import pytest
from PIL import Image

from blora.adapters.blocks import BLOCKS, target_layers
from blora.models.model import load_base
from blora.settings.block_split import BlockSplit
from blora.settings.score_meanings import lower_is_better, overall
from tasks.dispatch.artifacts import _plain
from tasks.figures.contact_sheet import contact_sheet
from tasks.figures.grid import CELL_PX
from tasks.memory import PARAMETERS_PER_RANK, parameters_per_rank
from tasks.review.score_order import default_sort
from tasks.review.score_table import ScoreRow, render


def _png(colour: tuple[int, int, int], size: tuple[int, int] = (30, 20)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, format="PNG")
    return buffer.getvalue()


def test_a_sheet_has_contents_in_rows_and_styles_in_columns() -> None:
    red, green, blue = (200, 0, 0), (0, 200, 0), (0, 0, 200)
    data = contact_sheet([("c", _png(red))], [("s", _png(green)), ("t", _png(red))], {("c", "s"): _png(blue)})
    sheet = Image.open(io.BytesIO(data))

    def at(column: int, row: int) -> tuple[int, ...]:
        x = round((column + 0.5) * sheet.width / 3)
        y = round(row * sheet.height / 2 + CELL_PX / 3)
        return tuple(sheet.getpixel((x, y)))  # type: ignore[arg-type]

    assert (at(0, 1), at(1, 0), at(2, 0), at(1, 1)) == (red, green, red, blue)
    assert at(2, 1) == (255, 255, 255)  # missing: blank and crossed out


@pytest.mark.parametrize("name", ["<img src=x onerror=alert(1)>", "a|b", "![x](y)", "line\nbreak", "`code`"])
def test_a_hostile_name_stays_text_in_an_artifact(name: str) -> None:
    shown = _plain(name)
    for letter in "<|`\n":
        assert letter not in shown.replace("\\" + letter, "")
    assert "![" not in shown


def test_the_table_in_its_three_forms() -> None:
    rows = [ScoreRow("id1", "pepper, red", "wave", 0, "k1", {"transfer": 0.5, "colour_distance": 12.0})]
    assert json.loads(render(rows, "json"))[0]["transfer"] == 0.5
    assert '"pepper, red",wave,0,12.0,0.5,yes,k1' in render(rows, "csv")
    formula = ScoreRow("3", '=HYPERLINK("x")', "+cmd", 0, "k3", {"transfer": -0.5})
    assert """\n"'=HYPERLINK(""x"")",'+cmd,0,-0.5,yes,k3\n""" in render([formula], "csv")
    assert "pepper, red" in render(rows, "table") and "0.500" in render(rows, "table")
    with pytest.raises(ValueError, match="accepted: table, csv, json"):
        render(rows, "xml")


def test_which_way_is_better() -> None:
    assert lower_is_better("colour_distance") and lower_is_better("leakage_lite0")
    assert lower_is_better("texture_distance"), "a new score's name says it"
    assert not lower_is_better("transfer")


def test_the_number_of_parameters_is_that_of_the_layers() -> None:
    unet = load_base("embedded").unet
    layers = [unet.get_submodule(name) for half in ("content", "style") for name in target_layers(unet, half)]  # type: ignore[arg-type]
    assert parameters_per_rank("embedded") == sum(layer.in_features + layer.out_features for layer in layers)
    read = [unet.get_submodule(n) for half in BLOCKS for n in target_layers(unet, half, "crossattn_kv")]  # type: ignore[arg-type]
    assert parameters_per_rank("embedded", "crossattn_kv") == sum(
        layer.in_features + layer.out_features for layer in read
    )
    for content in ("down_blocks.2.attentions.0-1", "down_blocks.1.attentions.0", "mid_block.attentions.0"):
        split = BlockSplit(content=(content,), style=("up_blocks.0.attentions.1-", "up_blocks.1.attentions.2"))
        named = [name for half in BLOCKS for name in target_layers(unet, half, split=split)]  # type: ignore[arg-type]
        layers = [unet.get_submodule(name) for name in named]
        expected = sum(layer.in_features + layer.out_features for layer in layers)
        assert parameters_per_rank("embedded", split=split) == expected
    assert parameters_per_rank("org/model@" + "0" * 40) * 64 == PARAMETERS_PER_RANK["attention"] * 64 == 28_180_480


def test_the_headline_is_of_both_sides_and_goes_on_below_zero() -> None:
    real = {"content_lite0": 0.25, "style_lite0": 0.77, "colour_distance": 9.0}
    content_copy = {"content_lite0": 1.0, "style_lite0": 0.67, "colour_distance": 54.0}
    style_copy = {"content_lite0": 0.07, "style_lite0": 1.0, "colour_distance": 0.0}
    assert overall(real) == pytest.approx(1)
    assert overall(content_copy) == pytest.approx(0, abs=1e-9) and overall(style_copy) == pytest.approx(0, abs=1e-9)
    poorer, poorest = (overall({**style_copy, "content_lite0": value}) for value in (0.0, -0.1))
    assert poorer is not None and poorest is not None and poorest < poorer < 0, "no ties at the bad end"
    assert overall({"content_lite0": 0.5}) is None and overall({**real, "transfer": 0.0}) == overall(real)
    assert default_sort(["transfer", "transfer_csd", "overall"]) == "overall"


def test_every_score_is_explained() -> None:
    from blora.settings.score_meanings import KINDS, direction, explained, meanings

    assert explained("leakage_lite0").label == "style's subject leaked in (Lite0)"
    assert direction("leakage_lite0") == "low is good" == direction("colour_distance")
    assert explained("harmonic_mean_csd").label == "content and style, plain mean (CSD)"
    assert explained("new_thing").label == "new thing"
    assert len(meanings(KINDS)) == len(KINDS)
