"""Pictures on a grid: square cells of one size, words under them, over a row, or beside it."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image, ImageDraw

from tasks.figures import lettering
from tasks.pictures import decoded

CELL_PX = 160
GAP_PX = 6
LINE_PX = 18
_LINE_PITCH = 1.35
INK, PAPER, RULE = (32, 32, 36), (255, 255, 255), (214, 214, 220)


@dataclass(frozen=True)
class Spacing:
    """How cells lie on the paper, in pixels.

    Attributes:
        cell: side of a cell.
        gap: between cells.
        over: free space over each row of cells.
        under: free space under each.
        left: from the edge of the paper to the first column.
        top: from the edge of the paper to the first row.
        font: size of the words.
    """

    cell: int = CELL_PX
    gap: int = GAP_PX
    over: int = 0
    under: int = LINE_PX
    left: int = GAP_PX
    top: int = GAP_PX
    font: int = 12


class Grid:
    """Paper with cells to be filled.

    Attributes:
        image: the paper.
        draw: for what no other method draws.
    """

    def __init__(self, columns: int, rows: int, spacing: Spacing | None = None) -> None:
        """Lay out empty paper."""
        self._spacing = spacing = spacing or Spacing()
        self._pitch = spacing.cell + spacing.gap, spacing.cell + spacing.gap + spacing.over + spacing.under
        size = spacing.left + columns * self._pitch[0], spacing.top + rows * self._pitch[1]
        self.image = Image.new("RGB", size, PAPER)
        self.draw = ImageDraw.Draw(self.image)

    def corner(self, column: int, row: int) -> tuple[int, int]:
        """The upper left corner of a cell."""
        spacing = self._spacing
        return spacing.left + column * self._pitch[0], spacing.top + spacing.over + row * self._pitch[1]

    def show(self, column: int, row: int, picture: bytes | None) -> None:
        """Put the middle square of a picture into a cell; None crosses the cell out."""
        if picture is None:
            self.frame(column, row)
            left, top = self.corner(column, row)
            self.draw.line((left, top, left + self._spacing.cell, top + self._spacing.cell), fill=RULE)
        else:
            self.image.paste(fit(picture, self._spacing.cell), self.corner(column, row))

    def frame(self, column: int, row: int) -> None:
        """Draw a line around a cell."""
        left, top = self.corner(column, row)
        self.draw.rectangle((left, top, left + self._spacing.cell, top + self._spacing.cell), outline=RULE)

    def write(self, at: tuple[float, float], text: str) -> None:
        """Write one line anywhere, from its upper left corner."""
        lettering.write(self.draw, at, text, self._spacing.font, INK)

    def write_in(self, column: int, row: int, text: str) -> None:
        """Write a text out in a cell, on as many lines as it holds."""
        self.frame(column, row)
        left, top = self.corner(column, row)
        font, cell = self._spacing.font, self._spacing.cell
        pitch = round(font * _LINE_PITCH)
        for number, line in enumerate(lettering.wrapped(text, cell - 16, (cell - 16) // pitch, font)):
            self.write((left + 8, top + 8 + number * pitch), line)

    def write_under(self, column: int, row: int, label: str) -> None:
        """Write a label under a cell, as much of it as fits there."""
        left, top = self.corner(column, row)
        label = lettering.shortened(label, self._spacing.cell - 4, self._spacing.font)
        self.write((left + 2, top + self._spacing.cell + 2), label)

    def write_over(self, row: int, title: str) -> None:
        """Write a title over a row."""
        left, top = self.corner(0, row)
        self.write((left, top - self._spacing.over), title)


def fit(picture: bytes, side_px: int = CELL_PX) -> Image.Image:
    """The middle square of a picture, at the size of a cell; a grey one where it cannot be read."""
    try:
        image = decoded(picture)
    except OSError:  # a sheet is for looking: it shows an empty cell
        return Image.new("RGB", (side_px, side_px), RULE)
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side)).resize((side_px, side_px), Image.Resampling.LANCZOS)
