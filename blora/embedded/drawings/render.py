"""Draws the things of a set at one size, with transparency; needs resvg_py, and fonttools and brotli for the font."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from blora.embedded.drawings.sets import DrawnSet, base_code, unpack

SIDE_PX = 128


def render_set(data: Path, drawn: DrawnSet, things: list[dict[str, Any]], names: Mapping[str, list[str]]) -> np.ndarray:
    """All things as one hand drew them, (things, side, side, 4) uint8; all-zero where the set lacks the thing."""
    folder = unpack(data, drawn.package)
    read = {"iconify": _iconify, "font": _font, "webp": _webp, "openmoji": _openmoji}[drawn.form](folder, drawn, names)
    out = np.zeros((len(things), SIDE_PX, SIDE_PX, 4), np.uint8)
    for row, thing in enumerate(things):
        drawing = read(thing["code"])
        if isinstance(drawing, str):
            drawing = raster(drawing)
        if drawing is not None:
            out[row] = np.asarray(drawing)
    return out


Reader = Callable[[str], str | Image.Image | None]
"""A set's drawing of a code point, as SVG text or a picture; None where it has none."""


def raster(svg: str) -> Image.Image:
    """An SVG as RGBA of SIDE_PX; what has the current colour is black."""
    import resvg_py

    png = resvg_py.svg_to_bytes(svg_string=svg.replace("currentColor", "#000"), width=SIDE_PX, height=SIDE_PX)
    return Image.open(io.BytesIO(bytes(png))).convert("RGBA").resize((SIDE_PX, SIDE_PX))


def _iconify(folder: Path, drawn: DrawnSet, names: Mapping[str, list[str]]) -> Reader:
    icons = json.loads((folder / "icons.json").read_text())
    aliases = icons.get("aliases", {})

    def read(code: str) -> str | None:
        for name in names[code]:
            icon = icons["icons"].get(aliases.get(name, {}).get("parent", name))
            if icon is not None:
                return iconify_svg(icons, icon)
        return None

    return read


def iconify_svg(table: Mapping[str, Any], icon: Mapping[str, Any]) -> str:
    """One icon of a set's table as an SVG of its own."""
    wide, high = (icon.get(key, table.get(key, 16)) for key in ("width", "height"))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{icon.get("left", 0)} {icon.get("top", 0)} {wide} {high}">{icon["body"]}</svg>'
    )


def _openmoji(folder: Path, drawn: DrawnSet, names: Mapping[str, list[str]]) -> Reader:
    files = _by_code(folder / drawn.folder)
    return lambda code: files[code].read_text() if code in files else None


def _webp(folder: Path, drawn: DrawnSet, names: Mapping[str, list[str]]) -> Reader:
    files = _by_code(folder / "assets")

    def read(code: str) -> Image.Image | None:
        if code not in files:
            return None
        return Image.open(files[code]).convert("RGBA").resize((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS)

    return read


def _by_code(folder: Path) -> dict[str, Path]:
    return {base_code(path.stem): path for path in folder.glob("*")}


def _font(folder: Path, drawn: DrawnSet, names: Mapping[str, list[str]]) -> Reader:
    from fontTools.ttLib import TTFont

    fonts = [TTFont(path) for path in sorted(folder.glob("files/*-400-normal.woff2"))]

    def read(code: str) -> str | None:
        for font in fonts if "-" not in code else ():
            glyph = font.getBestCmap().get(int(code, 16))
            if glyph:
                return _glyph_svg(font.getGlyphSet(), glyph)
        return None

    return read


def _glyph_svg(glyphs: Any, glyph: str) -> str | None:
    """A glyph's outline in a square with a small margin."""
    from fontTools.pens.boundsPen import BoundsPen
    from fontTools.pens.svgPathPen import SVGPathPen

    pen, box = SVGPathPen(glyphs), BoundsPen(glyphs)
    glyphs[glyph].draw(pen)
    glyphs[glyph].draw(box)
    if box.bounds is None:
        return None
    x0, y0, x1, y1 = box.bounds
    side = max(x1 - x0, y1 - y0) * 1.06
    left, top = (x0 + x1 - side) / 2, (y0 + y1 + side) / 2
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {side} {side}">'
        f'<path transform="translate({-left} {top}) scale(1 -1)" d="{pen.getCommands()}"/></svg>'
    )
