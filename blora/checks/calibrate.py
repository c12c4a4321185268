"""Measure from which number on a defect is one: ``python -m blora.checks.calibrate`` writes ``limits.json``.

    python -m blora.checks.calibrate                                 # the embedded model, on the paired benchmark
    python -m blora.checks.calibrate --base ./sdxl --preset paper --pictures ./mine --device cuda:0 --print

What is good and what is bad is known, because it is made so:

| defect | good | bad |
|---|---|---|
| reconstruction_distance | reconstructions against their own image | against others; what the base draws alone |
| split_image | real drawings | two drawings, shrunk, in one picture; halves of two |
| grey_collapse | reconstructions; drawings alike in style | the image with 20 % and 35 % of its colours' spread |
| white_background | the same | images that are not white, the border's colour made white; faded |
| style_copy | the real drawing asked for | the style image; its thing as another hand draws it |
| structure_loss | the same; photographs in others' colours | these faded to 10 % and 20 %, or blurred by 5 % and 10 % |

A limit is where the mean of both error rates is least, in the middle of the values that give it; the rates are of the
same pictures. Trained adapters may be bad themselves, so that a false alarm may be none. Things are of the validation
split; the test split is not used.

The photographs are those that scikit-image carries. Pictures of one's own (``--pictures``) take their place; they have
no other drawings of their style and no truth: what needs those is left out, and ``style_copy`` has no limit.
``--print`` gives the limits as settings for a manifest instead of writing them.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from blora.benchmark.drawings import load_paired, make_pairs
from blora.checks.defects import RECIPE
from blora.checks.evidence import SEEDS, Drawings, Picture, gather_evidence
from blora.models.model import load_base
from blora.settings.presets import PRESETS
from blora.settings.resolve import resolve
from blora.training.photos import read_pixels

__all__ = ["own_drawings", "paired_drawings"]

FILE: Final = Path(__file__).parent / "limits.json"
PAIRS: Final = 100
COLOUR: Final = ("astronaut", "cat", "coffee", "hubble_deep_field", "immunohistochemistry", "retina", "rocket")
GREY: Final = ("brick", "camera", "cell", "coins", "grass", "gravel", "moon")
PHOTOGRAPH_PX: Final = 256


def paired_drawings() -> Drawings:
    """The validation drawings of the paired benchmark."""
    paired = load_paired()
    things, styles = paired.members("validation"), len(paired.styles)
    places = [(thing, style) for thing in things for style in range(styles)]
    number = {place: index for index, place in enumerate(places)}
    alike = [(number[thing, style], number[things[(row + 3) % len(things)], style])
             for row, thing in enumerate(things) for style in range(styles)]  # fmt: skip
    truths = []
    for pair in make_pairs(paired, "validation", PAIRS):
        asked = number[pair.content], number[pair.reference]
        other_hand = number[pair.style_thing, (pair.style + 5) % styles]
        truths.append((number[pair.truth], *asked, True))
        truths += [(number[pair.reference], *asked, False), (other_hand, *asked, False)]
    pictures = [paired.pictures[place] for place in places]
    return Drawings(pictures, alike, truths, scikit_photographs())


def scikit_photographs() -> list[Picture]:
    """The photographs that scikit-image carries, each as a square.

    Raises:
        ImportError: It is not installed; the package itself does not need it.
    """
    from skimage import data

    taken = (Image.fromarray(getattr(data, name)()).convert("RGB") for name in (*COLOUR, *GREY))
    return [_square(photograph) for photograph in taken]


def _square(photograph: Image.Image) -> Picture:
    return np.asarray(photograph.resize((PHOTOGRAPH_PX, PHOTOGRAPH_PX), Image.Resampling.BOX))


def own_drawings(folder: Path) -> Drawings:
    """The pictures of a folder.

    Raises:
        ValueError: Fewer than two pictures.
    """
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp"))
    if len(paths) < 2:
        raise ValueError(f"--pictures: received {folder} with {len(paths)} pictures; accepted: a folder with 2 or more")
    pictures = [read_pixels(path) for path in paths]
    return Drawings(pictures, [], [], [_square(Image.fromarray(picture)) for picture in pictures])


def main() -> None:
    """Calibrate a base and write, or print, its limits."""
    parser = argparse.ArgumentParser(
        prog="python -m blora.checks.calibrate", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--base", default="embedded", help="embedded, a folder, or org/model@revision")
    parser.add_argument("--preset", default="demo", help=" or ".join(PRESETS))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--pictures", type=Path, help="a folder of pictures instead of the paired benchmark's")
    parser.add_argument("--adapters", type=int, default=8, help="how many are trained")
    parser.add_argument("--print", action="store_true", dest="shown", help="print settings; write nothing")
    told = parser.parse_args()
    began, settings = time.process_time(), resolve(told.preset)
    base = load_base(told.base, told.device, settings.train.precision)
    drawings = paired_drawings() if told.pictures is None else own_drawings(told.pictures)
    # Spread over things and styles: 13 shares no factor with the number of either.
    chosen = sorted({number * 13 % len(drawings.pictures) for number in range(told.adapters)})
    by_defect = gather_evidence(base, drawings, chosen, settings)
    evidence = {name: values.summary() for name, values in by_defect.items()}
    limits = {name: row["limit"] for name, row in evidence.items()}
    for name, row in evidence.items():
        errors = f"false alarms {row['false_alarms']:.1%} of {row['good']}, misses {row['misses']:.1%} of {row['bad']}"
        print(f"{name}: limit {row['limit']:.3f}, {errors}; beyond it {row['real_beyond']:.1%} of {row['real']} real")
    print(f"{time.process_time() - began:.0f} CPU seconds")
    if told.shown:
        print("settings:\n  check: " + json.dumps(limits).replace('"', ""))
        return
    entry = {
        "base": told.base,
        "preset": told.preset,
        "pictures": "paired validation" if told.pictures is None else "a folder",
        "drawings": len(drawings.pictures),
        "adapters": len(chosen),
        "reconstructions": SEEDS * len(chosen),
        "check_steps": settings.check.steps,
        "recipe": RECIPE,
        "limits": limits,
        "evidence": evidence,
    }
    known = json.loads(FILE.read_text("utf-8"))
    FILE.write_text(json.dumps(known | {base.revision: entry}, indent=1, sort_keys=True) + "\n", "utf-8")
    print(f"{base.revision}: written to {FILE}")


if __name__ == "__main__":
    main()
