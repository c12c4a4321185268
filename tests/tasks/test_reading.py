"""What people read: the contact sheet, the score table, artifacts with hostile names, and the price of a plan."""

from __future__ import annotations

import io
import json

import pytest
from PIL import Image

from blora.adapters.blocks import BLOCKS, target_layers
from blora.models.model import load_base
from tasks.dispatch.artifacts import _plain
from tasks.figures.contact_sheet import contact_sheet
from tasks.figures.grid import CELL_PX
from tasks.memory import PARAMETERS_PER_RANK, parameters_per_rank
from tasks.review.score_order import lower_is_better
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
    assert parameters_per_rank("org/model@" + "0" * 40) * 64 == PARAMETERS_PER_RANK["attention"] * 64 == 28_180_480
