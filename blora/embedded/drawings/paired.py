"""Build the benchmark's drawings: held-out things, each drawn in every style, so that the truth of a transfer is known.

    python -m blora.embedded.drawings.paired --data DIR

Reads what ``build`` left in DIR and writes ``blora/embedded/paired``: one PNG a style (things in rows of
eight), so that each file has one licence, and ``index.json``. The same DIR gives the same pixels; a digest of them is
in the index. Only held-out things that every set draws are taken, in the order of a hash, the first few for
validation. Drawings stand in the middle, at one size, and are never mirrored: unlike in training, place says nothing.

A style is a drawn set as it is, or one set's drawings redrawn in a look. Sets that share outlines are one *hand*.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from blora.embedded.drawings.build import all_looks
from blora.embedded.drawings.render import SIDE_PX as DRAWN_PX
from blora.embedded.drawings.sets import SETS, DrawnSet, stable_hash

OUT = Path(__file__).parent.parent / "paired"
COLUMNS = 8
VALIDATION, TEST = 16, 32
DRAWING_PX = 106
"""Side of the drawing on a paper of DRAWN_PX: the middle of what training saw."""
STYLES = (
    ("noto", ""),
    ("twemoji", ""),
    ("fluent-3d", ""),
    ("fluent-ink", ""),
    ("openmoji", ""),
    ("openmoji-line", ""),
    ("noto", "blueprint"),
    ("twemoji", "sunset"),
    ("emojione", "night"),
    ("emojione", "gold"),
    ("noto-v1", "coral"),
    ("fluent-flat", "autumn"),
)
"""(set, look); an empty look is the set's own."""
HANDS = {"fluent-ink": "fluent"}
"""Its own geometry by name, the same outlines by eye."""


def _centred(rgba: np.ndarray) -> np.ndarray:
    small = Image.fromarray(rgba).resize((DRAWING_PX, DRAWING_PX), Image.Resampling.LANCZOS)
    out = Image.new("RGBA", (DRAWN_PX, DRAWN_PX))
    out.paste(small, ((DRAWN_PX - DRAWING_PX) // 2,) * 2)
    return np.asarray(out)


def _reduced(picture: np.ndarray, side: int) -> np.ndarray:
    """By area, rounded; DRAWN_PX must be a multiple of `side`."""
    factor = DRAWN_PX // side
    cells = picture.reshape(side, factor, side, factor, 3).astype(np.uint16)
    return ((cells.sum((1, 3)) + factor**2 // 2) // factor**2).astype(np.uint8)


def _atlas(pictures: np.ndarray) -> Image.Image:
    side = pictures.shape[1]
    sheet = np.full((-(-len(pictures) // COLUMNS) * side, COLUMNS * side, 3), 255, np.uint8)
    for number, picture in enumerate(pictures):
        top, left = number // COLUMNS * side, number % COLUMNS * side
        sheet[top : top + side, left : left + side] = picture
    return Image.fromarray(sheet)


def _style_entry(drawn: DrawnSet, look: str, words: str, held_out: bool) -> dict[str, Any]:
    name = look or drawn.name
    return {
        "name": name,
        "words": words,
        "set": drawn.name,
        "hand": HANDS.get(drawn.name, drawn.geometry),
        "package": drawn.package,
        "licence": drawn.licence,
        "seen": not (held_out or drawn.held_out),
        "file": f"{name}.png",
    }


def write(data: Path, out: Path, side: int) -> str:
    """Write the sheets and the index; returns what was written, in words."""
    things = json.loads((data / "things.json").read_text())
    have, renders = np.load(data / "have.npy"), np.load(data / "renders.npy", mmap_mode="r")
    rows = [row for row, thing in enumerate(things) if thing["held_out"] and have[row].all()]
    rows = sorted(rows, key=lambda row: stable_hash("paired " + things[row]["code"]))[: VALIDATION + TEST]
    looks = {look.name: (look, held_out) for look, held_out in all_looks()}
    sets = {drawn.name: (column, drawn) for column, drawn in enumerate(SETS)}
    out.mkdir(parents=True, exist_ok=True)
    digest, styles = hashlib.sha256(), []
    for name, redrawn in STYLES:
        column, drawn = sets[name]
        look, held_out = looks[redrawn or name]
        pictures = np.stack([_reduced(look.draw(_centred(renders[row, column])), side) for row in rows])
        digest.update(pictures.tobytes())
        styles.append(_style_entry(drawn, redrawn, look.words, held_out))
        _atlas(pictures).save(out / styles[-1]["file"], optimize=True)
    split = ["validation"] * VALIDATION + ["test"] * TEST
    chosen = [
        {"code": things[row]["code"], "name": things[row]["name"], "split": part}
        for row, part in zip(rows, split, strict=True)
    ]
    about = {"version": 1, "side_px": side, "columns": COLUMNS, "pixels_sha256": digest.hexdigest()}
    (out / "index.json").write_text(json.dumps({**about, "styles": styles, "things": chosen}, indent=1) + "\n")
    size = sum(path.stat().st_size for path in out.glob("*.png"))
    return f"{len(rows)} things x {len(styles)} styles, {size / 1e6:.2f} MB in {out}"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--side", type=int, default=64, help="of the pictures; a divisor of 128")
    args = parser.parse_args()
    print(write(args.data, args.out, args.side))


if __name__ == "__main__":
    main()
