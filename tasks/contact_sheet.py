"""The contact sheet: rows share a content, columns share a style, the references stand along the edges."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw, ImageFont

CELL_PX = 160
GAP_PX = 6
LABEL_PX = 18
INK, PAPER, RULE = (32, 32, 36), (255, 255, 255), (214, 214, 220)


def contact_sheet(
    contents: Sequence[tuple[str, bytes | None]],
    styles: Sequence[tuple[str, bytes | None]],
    cells: Mapping[tuple[str, str], bytes | None],
) -> bytes:
    """Lay out a grid.

    Args:
        contents: (name, picture bytes) of each row; without a picture the name is a prompt and is written out.
        styles: (name, picture bytes) of each column, likewise.
        cells: picture bytes by (content name, style name); None is crossed out, what was never asked for left blank.

    Returns:
        A PNG.
    """
    pitch_x, pitch_y = CELL_PX + GAP_PX, CELL_PX + GAP_PX + LABEL_PX
    width, height = pitch_x * (len(styles) + 1) + GAP_PX, pitch_y * (len(contents) + 1) + GAP_PX
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=12)

    def place(column: int, row: int, picture: bytes | None, label: str) -> None:
        left, top = GAP_PX + column * pitch_x, GAP_PX + row * pitch_y
        if picture is None:
            draw.rectangle((left, top, left + CELL_PX, top + CELL_PX), outline=RULE)
            draw.line((left, top, left + CELL_PX, top + CELL_PX), fill=RULE)
        else:
            sheet.paste(fit(picture), (left, top))
        draw.text((left + 2, top + CELL_PX + 2), _shorten(label), fill=INK, font=font)

    def head(column: int, row: int, name: str, picture: bytes | None) -> None:
        if picture is not None:
            place(column, row, picture, name)
            return
        left, top = GAP_PX + column * pitch_x, GAP_PX + row * pitch_y
        draw.rectangle((left, top, left + CELL_PX, top + CELL_PX), outline=RULE)
        draw.multiline_text((left + 8, top + 8), _wrapped(name), fill=INK, font=font)

    for column, (name, picture) in enumerate(styles, start=1):
        head(column, 0, name, picture)
    for row, (name, picture) in enumerate(contents, start=1):
        head(0, row, name, picture)
        for column, (style, _) in enumerate(styles, start=1):
            if (name, style) in cells:
                place(column, row, cells[name, style], "")
    draw.line((pitch_x, 0, pitch_x, height), fill=RULE)
    draw.line((0, pitch_y, width, pitch_y), fill=RULE)
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG")
    return buffer.getvalue()


def fit(picture: bytes) -> Image.Image:
    """The middle square of a picture, at the size of a cell."""
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side)).resize((CELL_PX, CELL_PX), Image.Resampling.LANCZOS)


def sliced(pictures: Sequence[bytes], weights: Sequence[float]) -> bytes:
    """Upright slices of pictures side by side, as wide as their weights: what a mix refers to.

    Returns:
        A PNG.
    """
    card, left, total = Image.new("RGB", (CELL_PX, CELL_PX), PAPER), 0.0, sum(weights)
    for picture, weight in zip(pictures, weights, strict=True):
        right = left + CELL_PX * weight / total
        box = (round(left), 0, round(right), CELL_PX)
        card.paste(fit(picture).crop(box), box[:2])
        left = right
    buffer = io.BytesIO()
    card.save(buffer, format="PNG")
    return buffer.getvalue()


def tiled(pictures: Sequence[bytes]) -> bytes:
    """Pictures in one square cell, a row after the other: the photos of one object.

    Returns:
        A PNG.
    """
    side = math.ceil(math.sqrt(len(pictures)))
    cell = CELL_PX // side
    card = Image.new("RGB", (CELL_PX, CELL_PX), PAPER)
    for number, picture in enumerate(pictures):
        card.paste(
            fit(picture).resize((cell, cell), Image.Resampling.LANCZOS), (number % side * cell, number // side * cell)
        )
    buffer = io.BytesIO()
    card.save(buffer, format="PNG")
    return buffer.getvalue()


def _wrapped(prompt: str, columns: int = 23, most: int = 9) -> str:
    """A prompt in as many lines as a cell holds."""
    lines = textwrap.wrap(prompt, columns)
    return "\n".join(lines if len(lines) <= most else [*lines[: most - 1], "…"])


def _shorten(label: str, most: int = 24) -> str:
    return label if len(label) <= most else label[: most - 1] + "…"
