"""Build the training pictures: the same things drawn by many hands, in many looks.

    python -m blora.embedded.training.data --data DIR [--workers 2]

Downloads the drawn sets with ``npm pack`` (unless the archives already lie in DIR), renders every object-like thing of
every set at 128 px with transparency, and redraws the drawings in the looks of ``looks.py``. Leaves in DIR:

    renders.npy    (things, sets, 128, 128, 4) uint8, transparent drawings
    pictures.npy   (pictures, 128, 128, 3) uint8
    index.npz      per picture: thing, set, look, geometry (pictures of one geometry share their layout exactly)
    things.json    per thing: code point, name, category, held_out
    looks.json     per look: name, words, held_out

Needs the optional packages resvg_py, fonttools and brotli. A thing or look marked held_out is never trained on.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import subprocess
import tarfile
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from blora.embedded.training.looks import HELD_OUT_NAMED, NAMED, Look, random_look

SIZE = 128
CATEGORIES = ("Animals & Nature", "Food & Drink", "Travel & Places", "Activities", "Objects")
RANDOM_LOOKS = 160
NAMES_PACKAGE = "emoji-datasource@16.0.0"


@dataclass(frozen=True)
class DrawnSet:
    """One hand: a published set of drawings, the words for it, and how its pictures may be used."""

    name: str
    words: str
    package: str
    form: str  # iconify | openmoji | webp | font
    licence: str
    geometry: str  # sets that share a geometry draw the same shapes
    coloured: bool = True
    held_out: bool = False
    folder: str = ""


SETS: tuple[DrawnSet, ...] = (
    DrawnSet("noto", "noto", "@iconify-json/noto@1.2.9", "iconify", "Apache-2.0", "noto"),
    DrawnSet("noto-v1", "blob", "@iconify-json/noto-v1@1.2.5", "iconify", "Apache-2.0", "noto-v1"),
    DrawnSet("twemoji", "flat twitter", "@iconify-json/twemoji@1.2.5", "iconify", "CC-BY-4.0", "twemoji"),
    DrawnSet("fluent-3d", "glossy 3d render", "@lobehub/fluent-emoji-3d@1.1.0", "webp", "MIT", "fluent"),
    DrawnSet("fluent-color", "shaded gradient", "@iconify-json/fluent-emoji@1.2.7", "iconify", "MIT", "fluent"),
    DrawnSet("fluent-flat", "flat fluent", "@iconify-json/fluent-emoji-flat@1.2.6", "iconify", "MIT", "fluent"),
    DrawnSet(
        "fluent-ink",
        "high contrast stencil",
        "@iconify-json/fluent-emoji-high-contrast@1.2.6",
        "iconify",
        "MIT",
        "fluent-ink",
        coloured=False,
    ),
    DrawnSet("emojione", "emojione", "@iconify-json/emojione@1.2.3", "iconify", "CC-BY-4.0", "emojione"),
    DrawnSet(
        "emojione-mono",
        "monotone silhouette",
        "@iconify-json/emojione-monotone@1.2.1",
        "iconify",
        "CC-BY-4.0",
        "emojione",
        coloured=False,
    ),
    DrawnSet(
        "noto-mono", "black line font", "@fontsource/noto-emoji@5.3.2", "font", "OFL-1.1", "noto-mono", coloured=False
    ),
    DrawnSet(
        "openmoji",
        "openmoji",
        "openmoji@17.0.0",
        "openmoji",
        "CC-BY-SA-4.0",
        "openmoji",
        held_out=True,
        folder="color/svg",
    ),
    DrawnSet(
        "openmoji-line",
        "openmoji line",
        "openmoji@17.0.0",
        "openmoji",
        "CC-BY-SA-4.0",
        "openmoji",
        coloured=False,
        held_out=True,
        folder="black/svg",
    ),
    DrawnSet(
        "emojione-v1",
        "emojione one",
        "@iconify-json/emojione-v1@1.2.3",
        "iconify",
        "CC-BY-SA-4.0",
        "emojione-v1",
        held_out=True,
    ),
)


def unpack(data: Path, package: str) -> Path:
    """Folder with the package's files; fetched with npm when the archive is not in `data` yet."""
    name, version = package.rsplit("@", 1)
    stem = f"{name.lstrip('@').replace('/', '-')}-{version}"
    folder = data / "raw" / stem
    if not (folder / "package.json").exists():
        archive = data / f"{stem}.tgz"
        if not archive.exists():
            subprocess.run(["npm", "pack", package, "--pack-destination", str(data)], check=True)
        with tarfile.open(archive) as tar:
            tar.extractall(data / "raw" / f"{stem}.part", filter="data")
        (data / "raw" / f"{stem}.part" / "package").rename(folder)
    return folder


def _slug(text: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in text.lower().replace("'", "").replace("’", "")).split())


def _code(text: str) -> str:
    return text.upper().replace("-FE0F", "")


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def list_things(data: Path) -> tuple[list[dict], dict[str, list[str]]]:
    """Object-like things, and for each code point the names under which the sets may know it."""
    table = json.loads((unpack(data, NAMES_PACKAGE) / "emoji.json").read_text())
    notes = json.loads((unpack(data, "openmoji@17.0.0") / "data/openmoji.json").read_text())
    names: dict[str, list[str]] = defaultdict(list)
    plain = {_code(o["hexcode"]): o["annotation"].replace("’", "'") for o in notes}
    for code, text in plain.items():
        names[code].append(_slug(text))
    for drawn in SETS:
        chars = unpack(data, drawn.package) / "chars.json"
        if drawn.form == "iconify" and chars.exists():
            for code, name in json.loads(chars.read_text()).items():
                names[_code(code)].append(name)
    things = []
    for row in table:
        code = _code(row["unified"])
        names[code] += [_slug(row["name"] or "")] + [_slug(s) for s in row["short_names"]]
        if row["category"] in CATEGORIES and row["subcategory"] != "time" and code in plain:
            text = plain[code].split(":")[0]
            things.append(
                {"code": code, "name": text, "category": row["category"], "held_out": _hash("thing " + code) % 5 == 0}
            )
    return things, names


def _font_svg(fonts: list, code: str) -> str | None:
    from fontTools.pens.boundsPen import BoundsPen
    from fontTools.pens.svgPathPen import SVGPathPen

    if "-" in code:
        return None
    for font in fonts:
        glyph = font.getBestCmap().get(int(code, 16))
        if glyph:
            glyphs = font.getGlyphSet()
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
    return None


def render_set(data: Path, drawn: DrawnSet, things: list[dict], names: dict[str, list[str]]) -> np.ndarray:
    """All things as one hand drew them; all-zero where the set lacks the thing."""
    import resvg_py

    out = np.zeros((len(things), SIZE, SIZE, 4), np.uint8)
    folder = unpack(data, drawn.package)
    icons: dict = json.loads((folder / "icons.json").read_text()) if drawn.form == "iconify" else {}
    fonts: list = []
    if drawn.form == "font":
        from fontTools.ttLib import TTFont

        fonts = [TTFont(p) for p in sorted(folder.glob("files/*-400-normal.woff2"))]
    files = {_code(p.stem): p for p in (folder / (drawn.folder or "assets")).glob("*")} if not icons else {}
    for row, thing in enumerate(things):
        svg = None
        if drawn.form == "iconify":
            for name in names[thing["code"]]:
                name = icons.get("aliases", {}).get(name, {}).get("parent", name)
                if name in icons["icons"]:
                    icon = icons["icons"][name]
                    wide, high = icon.get("width", icons.get("width", 16)), icon.get("height", icons.get("height", 16))
                    svg = (
                        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
                        f'viewBox="{icon.get("left", 0)} {icon.get("top", 0)} {wide} {high}">{icon["body"]}</svg>'
                    )
                    break
        elif drawn.form == "font":
            svg = _font_svg(fonts, thing["code"])
        elif thing["code"] in files:
            if drawn.form == "webp":
                picture = (
                    Image.open(files[thing["code"]]).convert("RGBA").resize((SIZE, SIZE), Image.Resampling.LANCZOS)
                )
                out[row] = np.asarray(picture)
            else:
                svg = files[thing["code"]].read_text()
        if svg is not None:
            png = resvg_py.svg_to_bytes(svg_string=svg.replace("currentColor", "#000"), width=SIZE, height=SIZE)
            out[row] = np.asarray(Image.open(io.BytesIO(bytes(png))).convert("RGBA").resize((SIZE, SIZE)))
    return out


def place(drawing: np.ndarray, key: str) -> np.ndarray:
    """Scale, shift and maybe mirror a drawing; the key decides, so one geometry always lands in the same place."""
    rng = np.random.default_rng(_hash("place " + key))
    side = int(SIZE * rng.uniform(0.66, 1.0))
    free = SIZE - side
    left, top = (int(rng.integers(-4, free + 5)) for _ in range(2))
    picture = Image.fromarray(drawing).resize((side, side), Image.Resampling.LANCZOS)
    if rng.random() < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    out = Image.new("RGBA", (SIZE, SIZE))
    out.paste(picture, (left, top))
    return np.asarray(out)


def all_looks() -> list[tuple[Look, bool]]:
    """Every look with its held_out mark: one a drawn set (on white), the named, the held-out, the random ones."""
    native = [(Look(s.name, s.words), s.held_out) for s in SETS]
    chance = [(random_look(seed), False) for seed in range(RANDOM_LOOKS)]
    return native + [(k, False) for k in NAMED] + [(k, True) for k in HELD_OUT_NAMED] + chance


def plan_pictures(things: list[dict], have: np.ndarray, named_each: int, random_each: int) -> np.ndarray:
    """Rows (thing, set, look, geometry). Each coloured drawing gets its own look and some drawn by lot."""
    first_named = len(SETS)
    first_held = first_named + len(NAMED)
    first_random = first_held + len(HELD_OUT_NAMED)
    families = sorted({s.geometry for s in SETS})
    rows = []
    for c, thing in enumerate(things):
        for s, drawn in enumerate(SETS):
            if not have[c, s]:
                continue
            geometry = c * len(families) + families.index(drawn.geometry)
            rows.append((c, s, s, geometry))
            if not drawn.coloured or drawn.held_out:
                continue
            rng = np.random.default_rng(_hash(f"looks {thing['code']} {drawn.name}"))
            named = first_named + rng.choice(len(NAMED), named_each, replace=False)
            chance = first_random + rng.choice(RANDOM_LOOKS, random_each, replace=False)
            held = range(first_held, first_random) if drawn.name == "noto" and thing["held_out"] else ()
            rows += [(c, s, int(k), geometry) for k in (*named, *chance, *held)]
    return np.array(rows, np.int32)


def _compose(data: Path, part: np.ndarray, begin: int) -> int:
    renders = np.load(data / "renders.npy", mmap_mode="r")
    pictures = np.load(data / "pictures.npy", mmap_mode="r+")
    looks = [k for k, _ in all_looks()]
    for offset, (c, s, k, _) in enumerate(part):
        drawing = place(renders[c, s], f"{c} {SETS[s].geometry}")
        pictures[begin + offset] = looks[k].draw(drawing)
    pictures.flush()
    return len(part)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--least-sets", type=int, default=11, help="drop things that fewer sets drew")
    parser.add_argument("--named-each", type=int, default=3)
    parser.add_argument("--random-each", type=int, default=3)
    args = parser.parse_args()
    data: Path = args.data
    data.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(args.workers) as pool:
        if not (data / "renders.npy").exists():
            things, names = list_things(data)
            jobs = [pool.submit(render_set, data, drawn, things, names) for drawn in SETS]
            renders = np.stack([job.result() for job in jobs], 1)
            have = renders[..., 3].reshape(len(things), len(SETS), -1).any(-1)
            keep = np.flatnonzero(have.sum(1) >= args.least_sets)
            np.save(data / "renders.npy", renders[keep])
            np.save(data / "have.npy", have[keep])
            (data / "things.json").write_text(json.dumps([things[i] for i in keep], indent=1))
        things, have = json.loads((data / "things.json").read_text()), np.load(data / "have.npy")
        rows = plan_pictures(things, have, args.named_each, args.random_each)
        looks = [{"name": k.name, "words": k.words, "held_out": held} for k, held in all_looks()]
        (data / "looks.json").write_text(json.dumps(looks, indent=1))
        np.savez(data / "index.npz", thing=rows[:, 0], set=rows[:, 1], look=rows[:, 2], geometry=rows[:, 3])
        np.lib.format.open_memmap(data / "pictures.npy", "w+", np.uint8, (len(rows), SIZE, SIZE, 3)).flush()
        step = -(-len(rows) // (8 * args.workers))
        jobs = [pool.submit(_compose, data, rows[i : i + step], i) for i in range(0, len(rows), step)]
        done = sum(job.result() for job in jobs)
    print(f"{len(things)} things ({sum(t['held_out'] for t in things)} held out), {len(looks)} looks, {done} pictures")


if __name__ == "__main__":
    main()
