"""Icons: thousands more shapes, each drawn by one hand only, so that layouts are learnt beyond the things of the sets.

None of them shares a word with a thing that is held out. Icons in one colour are given two of their own by lot, one
for what is drawn and one for the holes in it; the others are turned in hue, because a set has one palette for all.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from blora.embedded.drawings.looks import Look
from blora.embedded.drawings.render import SIDE_PX, iconify_svg, raster
from blora.embedded.drawings.sets import stable_hash, unpack


@dataclass(frozen=True)
class IconSet:
    """One set of icons: short name, npm package with its version, licence of the drawings, and whether in colours."""

    name: str
    package: str
    licence: str
    coloured: bool


_BY4 = "CC-BY-4.0"
ICON_SETS: tuple[IconSet, ...] = (
    IconSet("game-icons", "@iconify-json/game-icons@1.2.4", "CC-BY-3.0", False),
    IconSet("icon-park", "@iconify-json/icon-park@1.2.4", "Apache-2.0", True),
    IconSet("ultimate-color", "@iconify-json/streamline-ultimate-color@1.2.2", _BY4, True),
    IconSet("freehand-color", "@iconify-json/streamline-freehand-color@1.2.2", _BY4, True),
    IconSet("flat-color", "@iconify-json/flat-color-icons@1.2.3", "MIT", True),
)
_CLOSE = 4
"""Letters from which a word inside another is taken for the same ("horse" in "seahorse")."""
_IDLE = {"with", "and", "the", "for", "without", "closed", "open", "face", "left", "right", "tilted", "raised", "arrow"}
"""Words of held-out names that name no thing."""


def _words(name: str) -> set[str]:
    return {word.rstrip("s") for word in re.split(r"[^a-z]+", name.lower()) if len(word) > 2} - _IDLE


def is_near(name: str, held_out: set[str]) -> bool:
    """Whether an icon's name shares a word with the words of held-out things."""
    own = _words(name)
    return any(
        one == other or (min(len(one), len(other)) >= _CLOSE and (one in other or other in one))
        for one in own
        for other in held_out
    )


def list_icons(data: Path, things: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Icons of all sets as things, with the number of their set ("icon"); none near a held-out thing."""
    held_out = set().union(*(_words(thing["name"]) for thing in things if thing["held_out"]))
    icons = []
    for number, drawn in enumerate(ICON_SETS):
        table = json.loads((unpack(data, drawn.package) / "icons.json").read_text())
        for name in sorted(table["icons"]):
            words = name.replace("-", " ")
            if not table["icons"][name].get("hidden") and not is_near(words, held_out):
                about = {"code": f"{drawn.name}:{name}", "name": words, "category": "Icons"}
                icons.append({**about, "held_out": False, "icon": number})
    return icons


def render_icons(data: Path, number: int, codes: list[str]) -> np.ndarray:
    """Icons of one set, (icons, SIDE_PX, SIDE_PX, 4) uint8, in colours of their own."""
    drawn = ICON_SETS[number]
    table = json.loads((unpack(data, drawn.package) / "icons.json").read_text())
    out = np.zeros((len(codes), SIDE_PX, SIDE_PX, 4), np.uint8)
    for row, code in enumerate(codes):
        svg = iconify_svg(table, table["icons"][code.split(":", 1)[1]])
        drawing = np.asarray(raster(svg))
        rng = np.random.default_rng(stable_hash(f"colours {code}"))
        out[row] = turned(drawing, rng) if drawn.coloured else painted(drawing[..., 3], rng)
    return out


def turned(drawing: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """RGBA with its colours turned by lot about the gray axis."""
    turn = Look("turn", "", colours="hue", amount=float(rng.random()))
    return np.concatenate([turn.recolour(drawing[..., :3].astype(np.float32)).astype(np.uint8), drawing[..., 3:]], -1)


def painted(alpha: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A silhouette (H, W uint8) in one colour on its filled outline in another, as RGBA."""
    flooded = Image.fromarray(np.pad((alpha > 96).astype(np.uint8) * 255, 1)).copy()
    ImageDraw.floodfill(flooded, (0, 0), 128)
    inside = (np.asarray(flooded)[1:-1, 1:-1] != 128).astype(np.float32) * 255
    ink, fill = rng.integers(0, 256, (2, 3))
    if rng.random() < 0.3:
        ink = rng.integers(0, 60, 3)
    cover = alpha[..., None].astype(np.float32) / 255
    colour = ink * cover + fill * (1 - cover)
    return np.concatenate([colour, np.maximum(inside, alpha)[..., None]], -1).round().astype(np.uint8)
