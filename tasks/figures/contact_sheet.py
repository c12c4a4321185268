"""The contact sheet: rows share a content, columns share a style, the references stand along the edges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tasks.figures.grid import GAP_PX, RULE, Grid
from tasks.pictures import encoded


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
    grid = Grid(len(styles) + 1, len(contents) + 1)

    def head(column: int, row: int, name: str, picture: bytes | None) -> None:
        if picture is None:
            grid.write_in(column, row, name)
        else:
            grid.show(column, row, picture)
            grid.write_under(column, row, name)

    for column, (name, picture) in enumerate(styles, start=1):
        head(column, 0, name, picture)
    for row, (name, picture) in enumerate(contents, start=1):
        head(0, row, name, picture)
        for column, (style, _) in enumerate(styles, start=1):
            if (name, style) in cells:
                grid.show(column, row, cells[name, style])
    left, top = (edge - GAP_PX for edge in grid.corner(1, 1))
    grid.draw.line((left, 0, left, grid.image.height), fill=RULE)
    grid.draw.line((0, top, grid.image.width, top), fill=RULE)
    return encoded(grid.image)
