"""Build the benchmark's drawings: held-out things, each drawn in every style, so that the truth of a transfer is known.

    python -m blora.embedded.training.paired --data DIR

Reads what ``data.py`` left in DIR and writes ``blora/embedded/paired``: one PNG a style (things in rows of eight, 64 px
each), so that each file has one licence, and ``index.json``. The same DIR gives the same pixels; a digest of them is
in the index. Only held-out things that every set draws are taken, in the order of a hash, the first few for
validation. Drawings stand in the middle, at one size, and are never mirrored: unlike in training, place says nothing.

A style is a drawn set as it is, or one set's drawings redrawn in a look. Sets that share outlines are one *hand*.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np
from PIL import Image

from blora.embedded.training.data import SETS, SIZE, DrawnSet, _hash, all_looks

OUT = Path(__file__).parent.parent / "paired"
SIDE_PX, COLUMNS = 64, 8
VALIDATION, TEST = 16, 32
DRAWING_PX = 106  # of SIZE: the middle of what training saw
# (set, look); an empty look is the set's own.
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
HANDS = {"fluent-ink": "fluent"}  # its own geometry by name, the same outlines by eye


def _drawing(rgba: np.ndarray) -> np.ndarray:
    small = Image.fromarray(rgba).resize((DRAWING_PX, DRAWING_PX), Image.Resampling.LANCZOS)
    out = Image.new("RGBA", (SIZE, SIZE))
    out.paste(small, ((SIZE - DRAWING_PX) // 2,) * 2)
    return np.asarray(out)


def _halved(picture: np.ndarray) -> np.ndarray:
    cells = picture.reshape(SIDE_PX, SIZE // SIDE_PX, SIDE_PX, SIZE // SIDE_PX, 3).astype(np.uint16)
    return ((cells.sum((1, 3)) + 2) // 4).astype(np.uint8)


def _atlas(pictures: np.ndarray) -> Image.Image:
    sheet = np.full((-(-len(pictures) // COLUMNS) * SIDE_PX, COLUMNS * SIDE_PX, 3), 255, np.uint8)
    for number, picture in enumerate(pictures):
        top, left = number // COLUMNS * SIDE_PX, number % COLUMNS * SIDE_PX
        sheet[top : top + SIDE_PX, left : left + SIDE_PX] = picture
    return Image.fromarray(sheet)


def _style(drawn: DrawnSet, look: str, words: str, held_out: bool) -> dict:
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    things = json.loads((args.data / "things.json").read_text())
    have, renders = np.load(args.data / "have.npy"), np.load(args.data / "renders.npy", mmap_mode="r")
    rows = [row for row, thing in enumerate(things) if thing["held_out"] and have[row].all()]
    rows = sorted(rows, key=lambda row: _hash("paired " + things[row]["code"]))[: VALIDATION + TEST]
    looks = {look.name: (look, held_out) for look, held_out in all_looks()}
    sets = {drawn.name: (column, drawn) for column, drawn in enumerate(SETS)}
    args.out.mkdir(parents=True, exist_ok=True)
    digest, styles = hashlib.sha256(), []
    for name, redrawn in STYLES:
        column, drawn = sets[name]
        look, held_out = looks[redrawn or name]
        pictures = np.stack([_halved(look.draw(_drawing(renders[row, column]))) for row in rows])
        digest.update(pictures.tobytes())
        styles.append(_style(drawn, redrawn, look.words, held_out))
        _atlas(pictures).save(args.out / styles[-1]["file"], optimize=True)
    split = ["validation"] * VALIDATION + ["test"] * TEST
    index = {
        "version": 1,
        "side_px": SIDE_PX,
        "columns": COLUMNS,
        "pixels_sha256": digest.hexdigest(),
        "styles": styles,
        "things": [
            {"code": things[row]["code"], "name": things[row]["name"], "split": part}
            for row, part in zip(rows, split, strict=True)
        ],
    }
    (args.out / "index.json").write_text(json.dumps(index, indent=1) + "\n")
    size = sum(path.stat().st_size for path in args.out.glob("*.png"))
    print(f"{len(rows)} things x {len(styles)} styles, {size / 1e6:.2f} MB in {args.out}")


if __name__ == "__main__":
    main()
