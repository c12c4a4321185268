"""Clips side by side, moving: each one's source first, then it in its styles, ``report/clips.gif``."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from manifests.store.parallel import in_parallel
from manifests.store.store import Store
from tasks.figures.grid import Grid
from tasks.pictures import encoded
from tasks.planning.clips import PlannedClip

MOST_COLUMNS = 6
"""Styles of one clip on the moving sheet."""

MOST_ROWS = 6
"""Clips on the moving sheet, evenly taken from all; `blora export` has every one of them."""


def draw_clips(store: Store, clips: Sequence[PlannedClip]) -> bytes:
    """A moving sheet: a row for each clip, its source first, then it in its styles; a missing frame holds the last one.

    Returns:
        An animated GIF, at the pace of the first clip; shorter clips start again.
    """
    rows: dict[str, list[PlannedClip]] = {}
    for clip in clips:
        rows.setdefault(clip.name, []).append(clip)
    names = list(rows)[:: max(1, -(-len(rows) // MOST_ROWS))]
    grid = Grid(1 + max(min(len(rows[name]), MOST_COLUMNS) for name in names), len(names))
    cells: list[tuple[int, int, list[bytes | None]]] = []
    for row, name in enumerate(names):
        for column, (label, keys) in enumerate(_cells(name, rows[name])):
            grid.frame(column, row)
            grid.write_under(column, row, label)
            cells.append((column, row, in_parallel(store, store.find, keys)))
    sheets = []
    for number in range(max(len(rows[name][0].frames) for name in names)):
        for column, row, pictures in cells:
            if (picture := pictures[number % len(pictures)]) is not None:
                grid.show(column, row, picture)
        sheets.append(grid.image.copy())
    return moving(sheets, clips[0].frames_per_second)


def _cells(name: str, clips: Sequence[PlannedClip]) -> list[tuple[str, list[str]]]:
    """A row of the sheet: label and keys of the frames, of the source and of the clip in each style."""
    several = len({clip.seed for clip in clips}) > 1
    cells = [(name, [frame.source_key for frame in clips[0].frames])]
    for clip in clips[:MOST_COLUMNS]:
        label = clip.style_name + (f", seed {clip.seed}" if several else "")
        cells.append((label, [frame.key for frame in clip.frames]))
    return cells


def moving(frames: Sequence[Image.Image], frames_per_second: float) -> bytes:
    """Frames as an endless animated GIF, with one palette for all of them, so that colours do not jump.

    GIF counts time in hundredths of a second: other paces are rounded.
    """
    width, height = frames[0].size
    side = max(1, int(len(frames) ** 0.5))
    montage = Image.new("RGB", (width * side, height * -(-len(frames) // side)))
    for number, frame in enumerate(frames):
        montage.paste(frame, (number % side * width, number // side * height))
    montage.thumbnail((2048, 2048))
    palette = montage.quantize(256)
    first, *rest = (frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames)
    shown_ms = max(20, round(100 / frames_per_second) * 10)  # players slow shorter ones down
    return encoded(
        first, "GIF", save_all=True, append_images=rest, duration=shown_ms, loop=0, disposal=1, optimize=False
    )
