"""The grid that all sheets lie on: where cells are, what stands around them, and that no two overlap."""

from __future__ import annotations

import io
from itertools import pairwise, product

import numpy as np
import pytest
from PIL import Image

from tasks.figures.grid import INK, PAPER, RULE, Grid, Spacing, fit
from tests.made_run import png

BENCH = Spacing(cell=96, gap=4, under=8, left=190, top=18, font=11)
STRIPS = Spacing(over=18)


def has(grid: Grid, box: tuple[int, int, int, int], colour: tuple[int, int, int]) -> bool:
    """Whether a colour is anywhere in a part of the paper."""
    return bool((np.asarray(grid.image.crop(box)) == colour).all(axis=-1).any())


def colours(image: Image.Image) -> set[tuple[int, ...]]:
    """All colours of a picture."""
    return {tuple(colour) for colour in np.unique(np.asarray(image).reshape(-1, 3), axis=0).tolist()}


@pytest.mark.parametrize("spacing", [Spacing(), STRIPS, BENCH])
def test_cells_lie_on_the_paper_and_apart(spacing: Spacing) -> None:
    grid = Grid(3, 2, spacing)
    corners = [[grid.corner(column, row) for column in range(3)] for row in range(2)]
    for line in corners:
        assert all(b[0] - a[0] == spacing.cell + spacing.gap and a[1] == b[1] for a, b in pairwise(line))
    down = corners[1][0][1] - corners[0][0][1]
    assert down == spacing.cell + spacing.gap + spacing.over + spacing.under
    right, bottom = corners[1][2][0] + spacing.cell, corners[1][2][1] + spacing.cell + spacing.under
    assert (right + spacing.gap, bottom + spacing.gap) == grid.image.size


def test_a_picture_fills_its_cell_and_no_other() -> None:
    grid = Grid(2, 2)
    wide = Image.new("RGB", (90, 30), (0, 200, 0))
    wide.paste((200, 0, 0), (0, 0, 30, 30))  # cut off: only the middle square is shown
    file = io.BytesIO()
    wide.save(file, format="PNG")
    grid.show(1, 0, file.getvalue())
    left, top = grid.corner(1, 0)
    cell = grid.image.crop((left, top, left + 160, top + 160))
    assert colours(cell) == {(0, 200, 0)}
    grid.image.paste(PAPER, (left, top, left + 160, top + 160))
    assert colours(grid.image) == {PAPER}


def test_what_is_missing_is_crossed_out() -> None:
    grid = Grid(1, 1)
    grid.show(0, 0, None)
    left, top = grid.corner(0, 0)
    assert [grid.image.getpixel((left + n, top + n)) for n in (0, 40, 80, 160)] == [RULE] * 4
    assert grid.image.getpixel((left + 40, top + 80)) == PAPER


@pytest.mark.parametrize("spacing", [Spacing(), STRIPS])
def test_words_stand_under_over_and_in_cells_and_never_on_a_neighbour(spacing: Spacing) -> None:
    for column, row in product(range(2), range(2)):
        grid = Grid(2, 2, spacing)
        left, top = grid.corner(column, row)
        grid.write_under(column, row, "under it")
        assert has(grid, (left, top + 160, left + 160, top + 160 + spacing.under), INK)
        grid.image.paste(PAPER, (left, top + 160, left + 160, top + 160 + spacing.under))
        if spacing.over:
            grid.write_over(row, "over the row")
            assert has(grid, (spacing.left, top - spacing.over, 160, top), INK)
            grid.image.paste(PAPER, (spacing.left, top - spacing.over, 200, top))
        assert not has(grid, (0, 0, *grid.image.size), INK)
        grid.write_in(column, row, "a prompt that is written out in the cell " * 12)
        grid.image.paste(PAPER, (left, top, left + 161, top + 161))
        assert colours(grid.image) == {PAPER}


def test_fit_keeps_the_middle_of_a_picture() -> None:
    assert fit(png(1, 64)).size == (160, 160) and fit(png(1, 64), 32).size == (32, 32)
