"""Build the pictures: the same things drawn by many hands, in many looks.

    python -m blora.embedded.drawings.build --data DIR [--workers 2]

Downloads the drawn sets with ``npm pack`` (unless the archives already lie in DIR), renders every object-like thing of
every set at 128 px with transparency, and redraws the drawings in the looks of ``named_looks``. Leaves in DIR:

    renders.npy    (things, sets, 128, 128, 4) uint8, transparent drawings
    have.npy       (things, sets) bool
    pictures.npy   (pictures, 128, 128, 3) uint8
    index.npz      per picture: thing, set, look, geometry (pictures of one geometry share their layout exactly)
    things.json    per thing: code point, name, category, held_out
    looks.json     per look: name, words, held_out
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import Executor, ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from blora.embedded.drawings.looks import Look
from blora.embedded.drawings.named_looks import HELD_OUT_NAMED, NAMED, random_look
from blora.embedded.drawings.render import SIDE_PX, render_set
from blora.embedded.drawings.sets import SETS, list_things, stable_hash

RANDOM_LOOKS = 160


def place(drawing: np.ndarray, key: str) -> np.ndarray:
    """Scale, shift and maybe mirror a drawing; the key decides, so one geometry always lands in the same place."""
    rng = np.random.default_rng(stable_hash("place " + key))
    side = int(SIDE_PX * rng.uniform(0.66, 1.0))
    free = SIDE_PX - side
    left, top = (int(rng.integers(-4, free + 5)) for _ in range(2))
    picture = Image.fromarray(drawing).resize((side, side), Image.Resampling.LANCZOS)
    if rng.random() < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    out = Image.new("RGBA", (SIDE_PX, SIDE_PX))
    out.paste(picture, (left, top))
    return np.asarray(out)


def all_looks() -> list[tuple[Look, bool]]:
    """Every look with its held_out mark: one a drawn set (on white), the named, the held-out, the random ones."""
    native = [(Look(s.name, s.words), s.held_out) for s in SETS]
    chance = [(random_look(seed), False) for seed in range(RANDOM_LOOKS)]
    return native + [(k, False) for k in NAMED] + [(k, True) for k in HELD_OUT_NAMED] + chance


def plan_pictures(things: list[dict[str, Any]], have: np.ndarray, named_each: int, random_each: int) -> np.ndarray:
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
            rng = np.random.default_rng(stable_hash(f"looks {thing['code']} {drawn.name}"))
            named = first_named + rng.choice(len(NAMED), named_each, replace=False)
            chance = first_random + rng.choice(RANDOM_LOOKS, random_each, replace=False)
            held = range(first_held, first_random) if drawn.name == "noto" and thing["held_out"] else ()
            rows += [(c, s, int(k), geometry) for k in (*named, *chance, *held)]
    return np.array(rows, np.int32)


def render(data: Path, pool: Executor, least_sets: int) -> None:
    """Write renders.npy, have.npy and things.json; things that fewer sets drew are left out."""
    things, names = list_things(data)
    jobs = [pool.submit(render_set, data, drawn, things, names) for drawn in SETS]
    renders = np.stack([job.result() for job in jobs], 1)
    have = np.asarray(renders[..., 3].reshape(len(things), len(SETS), -1).any(-1))
    keep = np.flatnonzero(have.sum(1) >= least_sets)
    np.save(data / "renders.npy", renders[keep])
    np.save(data / "have.npy", have[keep])
    (data / "things.json").write_text(json.dumps([things[i] for i in keep], indent=1))


def compose(data: Path, rows: np.ndarray, begin: int) -> int:
    """Draw a stretch of the planned pictures into pictures.npy; returns how many."""
    renders = np.load(data / "renders.npy", mmap_mode="r")
    pictures = np.load(data / "pictures.npy", mmap_mode="r+")
    looks = [look for look, _ in all_looks()]
    for offset, (c, s, k, _) in enumerate(rows):
        pictures[begin + offset] = looks[k].draw(place(renders[c, s], f"{c} {SETS[s].geometry}"))
    pictures.flush()
    return len(rows)


def main() -> None:
    """Command line."""
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
            render(data, pool, args.least_sets)
        things, have = json.loads((data / "things.json").read_text()), np.load(data / "have.npy")
        rows = plan_pictures(things, have, args.named_each, args.random_each)
        looks = [{"name": look.name, "words": look.words, "held_out": held} for look, held in all_looks()]
        (data / "looks.json").write_text(json.dumps(looks, indent=1))
        np.savez(data / "index.npz", thing=rows[:, 0], set=rows[:, 1], look=rows[:, 2], geometry=rows[:, 3])
        shape = (len(rows), SIDE_PX, SIDE_PX, 3)
        np.lib.format.open_memmap(data / "pictures.npy", "w+", np.uint8, shape).flush()
        step = -(-len(rows) // (8 * args.workers))
        jobs = [pool.submit(compose, data, rows[i : i + step], i) for i in range(0, len(rows), step)]
        done = sum(job.result() for job in jobs)
    print(f"{len(things)} things ({sum(t['held_out'] for t in things)} held out), {len(looks)} looks, {done} pictures")


if __name__ == "__main__":
    main()
