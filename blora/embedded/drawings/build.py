"""Build the pictures: the same things drawn by many hands, in many looks, and icons, which widen the shapes.

    python -m blora.embedded.drawings.build --data DIR [--workers 2]

Downloads the drawn sets with ``npm pack`` (unless the archives already lie in DIR), renders every object-like thing of
every set at 128 px with transparency, and redraws the drawings in the looks of ``named_looks``. Drawings to train on
are placed twice, mirrored against each other and of another size and place; all hands' drawings of a thing in the same
way, so that one can be asked for where another is given. Leaves in DIR:

    renders.npy    (things, sets, 128, 128, 4) uint8, transparent drawings
    have.npy       (things, sets) bool
    icons.npy      (icons, 128, 128, 4) uint8
    pictures.npy   (pictures, 128, 128, 3) uint8
    index.npz      per picture: thing, look, geometry, placing, native, judged (see ``pictures``)
    things.json    per thing, then per icon: code point, name, category, held_out
    looks.json     per look: name, words, held_out
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from blora.embedded.drawings.icons import ICON_SETS, list_icons, render_icons
from blora.embedded.drawings.looks import Look
from blora.embedded.drawings.named_looks import HELD_OUT_NAMED, NAMED, random_look, white_look
from blora.embedded.drawings.render import SIDE_PX, render_set
from blora.embedded.drawings.sets import SETS, list_things, stable_hash

RANDOM_LOOKS, MORE_LOOKS = 160, 320
"""Looks drawn by lot: for drawings placed once, and as many more for the others."""
WHITE_LOOKS = 160
"""Looks by lot on white paper, which the drawn sets are on: what is asked for there must not be told by the paper."""
FIRST_NAMED = len(SETS)
FIRST_HELD = FIRST_NAMED + len(NAMED)
FIRST_RANDOM = FIRST_HELD + len(HELD_OUT_NAMED)
FIRST_WHITE = FIRST_RANDOM + RANDOM_LOOKS + MORE_LOOKS
FIRST_ICONS = FIRST_WHITE + WHITE_LOOKS
FAMILIES = sorted({s.geometry for s in SETS})


@dataclass(frozen=True)
class Each:
    """In how many looks a drawing is redrawn: of those with a name, of those by lot, of those by lot on white."""

    named: int
    random: int
    white: int


@dataclass(frozen=True)
class Planned:
    """One picture: the thing, its set (or -1: an icon), the look, and whether it is placed the other way round."""

    thing: int
    set: int
    look: int
    again: bool = False

    def key(self) -> str:
        """What pictures share whose layout is the same."""
        return f"{self.thing} {SETS[self.set].geometry if self.set >= 0 else 'icon'}"

    def placing(self) -> str:
        """What decides where the drawing stands: the thing, whoever drew it."""
        return f"{self.thing}"


def place(drawing: np.ndarray, key: str, again: bool = False) -> np.ndarray:
    """Scale, shift and maybe mirror a drawing; the key decides, so one thing always lands in the same place."""
    side, left, top, mirrored = _lot(key)
    if again:
        side, left, top, _ = _lot(f"{key} again")
    picture = Image.fromarray(drawing).resize((side, side), Image.Resampling.LANCZOS)
    if mirrored != again:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    out = Image.new("RGBA", (SIDE_PX, SIDE_PX))
    out.paste(picture, (left, top))
    return np.asarray(out)


def _lot(key: str) -> tuple[int, int, int, bool]:
    rng = np.random.default_rng(stable_hash("place " + key))
    side = int(SIDE_PX * rng.uniform(0.66, 1.0))
    left, top = (int(rng.integers(-4, SIDE_PX - side + 5)) for _ in range(2))
    return side, left, top, bool(rng.random() < 0.5)


def all_looks() -> list[tuple[Look, bool]]:
    """Every look with its held_out mark: one a drawn set (on white), the named, the held-out, those by lot, icons'."""
    native = [(Look(s.name, s.words), s.held_out) for s in SETS]
    chance = [(random_look(seed), False) for seed in range(RANDOM_LOOKS + MORE_LOOKS)]
    chance += [(white_look(seed), False) for seed in range(WHITE_LOOKS)]
    icons = [(Look(s.name, ""), False) for s in ICON_SETS]
    return native + [(k, False) for k in NAMED] + [(k, True) for k in HELD_OUT_NAMED] + chance + icons


def plan_pictures(things: list[dict[str, Any]], have: np.ndarray, each: Each) -> list[Planned]:
    """Each coloured drawing gets its own look and some drawn by lot."""
    rows = []
    for c, thing in enumerate(things):
        for s, drawn in enumerate(SETS):
            if not have[c, s]:
                continue
            rows.append(Planned(c, s, s))
            if not drawn.coloured or drawn.held_out:
                continue
            looks = _some_looks(f"{thing['code']} {drawn.name}", each, RANDOM_LOOKS)
            held = range(FIRST_HELD, FIRST_RANDOM) if drawn.name == "noto" and thing["held_out"] else ()
            rows += [Planned(c, s, k) for k in (*looks, *held)]
    return rows


def plan_again(things: list[dict[str, Any]], have: np.ndarray, each: Each) -> list[Planned]:
    """The drawings to train on once more, placed the other way round."""
    rows = []
    for c, thing in enumerate(things):
        for s, drawn in enumerate(SETS):
            if have[c, s] and not (thing["held_out"] or drawn.held_out):
                rows.append(Planned(c, s, s, again=True))
                looks = _some_looks(f"{thing['code']} {drawn.name} again", each)
                rows += [Planned(c, s, k, again=True) for k in looks if drawn.coloured]
    return rows


def plan_icons(icons: list[dict[str, Any]], first: int, each: Each) -> list[Planned]:
    """Every icon in its set's look and in some others; `first` is the number of things before them."""
    rows = []
    for c, icon in enumerate(icons, first):
        looks = _some_looks(icon["code"], each)
        rows += [Planned(c, -1, k) for k in (FIRST_ICONS + icon["icon"], *looks)]
    return rows


def _some_looks(key: str, each: Each, among: int = RANDOM_LOOKS + MORE_LOOKS) -> list[int]:
    """Some of the named looks, some of the first `among` of those by lot, and some on white."""
    rng = np.random.default_rng(stable_hash(f"looks {key}"))
    named = FIRST_NAMED + rng.choice(len(NAMED), each.named, replace=False)
    chance = FIRST_RANDOM + rng.choice(among, each.random, replace=False)
    white = FIRST_WHITE + rng.choice(WHITE_LOOKS, each.white, replace=False)
    return [int(k) for k in (*named, *chance, *white)]


def write_index(data: Path, rows: list[Planned], judged: int) -> None:
    """index.npz; the first `judged` rows are those that trainings are judged by."""
    numbers: dict[tuple[str, bool], int] = {}
    geometry = [numbers.setdefault((row.key(), row.again), len(numbers)) for row in rows]
    placing = [2 * row.thing + row.again for row in rows]
    np.savez(
        data / "index.npz",
        thing=np.array([row.thing for row in rows], np.int32),
        look=np.array([row.look for row in rows], np.int32),
        geometry=np.array(geometry, np.int32),
        placing=np.array(placing, np.int32),
        native=np.array([row.look == row.set or row.look >= FIRST_ICONS for row in rows]),
        judged=np.arange(len(rows)) < judged,
    )


def render(data: Path, pool: Executor, least_sets: int) -> None:
    """Write renders.npy, have.npy, icons.npy and things.json; things that fewer sets drew are left out."""
    things, names = list_things(data)
    jobs = [pool.submit(render_set, data, drawn, things, names) for drawn in SETS]
    renders = np.stack([job.result() for job in jobs], 1)
    have = np.asarray(renders[..., 3].reshape(len(things), len(SETS), -1).any(-1))
    keep = np.flatnonzero(have.sum(1) >= least_sets)
    np.save(data / "renders.npy", renders[keep])
    np.save(data / "have.npy", have[keep])
    icons = list_icons(data, [things[i] for i in keep])
    codes = [[icon["code"] for icon in icons if icon["icon"] == number] for number in range(len(ICON_SETS))]
    jobs = [pool.submit(render_icons, data, number, part) for number, part in enumerate(codes)]
    np.save(data / "icons.npy", np.concatenate([job.result() for job in jobs]))
    (data / "things.json").write_text(json.dumps([*(things[i] for i in keep), *icons], indent=1))


def compose(data: Path, rows: list[Planned], begin: int) -> int:
    """Draw a stretch of the planned pictures into pictures.npy; returns how many."""
    renders, icons = (np.load(data / f"{name}.npy", mmap_mode="r") for name in ("renders", "icons"))
    pictures = np.load(data / "pictures.npy", mmap_mode="r+")
    looks = [look for look, _ in all_looks()]
    for offset, row in enumerate(rows):
        drawing = icons[row.thing - len(renders)] if row.set < 0 else renders[row.thing, row.set]
        pictures[begin + offset] = looks[row.look].draw(place(drawing, row.placing(), row.again))
    pictures.flush()
    return len(rows)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--least-sets", type=int, default=11, help="drop things that fewer sets drew")
    parser.add_argument("--each", type=int, nargs=3, default=(3, 3, 1), help="looks of a drawing: named, by lot, white")
    parser.add_argument("--icon-each", type=int, nargs=3, default=(1, 1, 1), help="the same of an icon")
    args = parser.parse_args()
    data: Path = args.data
    data.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(args.workers) as pool:
        if not (data / "renders.npy").exists():
            render(data, pool, args.least_sets)
        things, have = json.loads((data / "things.json").read_text()), np.load(data / "have.npy")
        drawn, icons = things[: len(have)], things[len(have) :]
        first, again = plan_pictures(drawn, have, Each(*args.each)), plan_again(drawn, have, Each(*args.each))
        rows = first + again + plan_icons(icons, len(drawn), Each(*args.icon_each))
        looks = [{"name": look.name, "words": look.words, "held_out": held} for look, held in all_looks()]
        (data / "looks.json").write_text(json.dumps(looks, indent=1))
        write_index(data, rows, len(first))
        shape = (len(rows), SIDE_PX, SIDE_PX, 3)
        np.lib.format.open_memmap(data / "pictures.npy", "w+", np.uint8, shape).flush()
        step = -(-len(rows) // (8 * args.workers))
        jobs = [pool.submit(compose, data, rows[i : i + step], i) for i in range(0, len(rows), step)]
        done = sum(job.result() for job in jobs)
    held = sum(thing["held_out"] for thing in drawn)
    print(f"{len(drawn)} things ({held} held out), {len(icons)} icons, {len(looks)} looks, {done} pictures")


if __name__ == "__main__":
    main()
