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

A limit is where the mean of both error rates is least, in the middle of the values that give it; the rates are of the
same pictures. Trained adapters may be bad themselves, so that a false alarm may be none. Things are of the validation
split; the test split is not used.

Pictures of one's own (``--pictures``) have no other drawings of their style and no truth: what needs those is left out,
and ``style_copy`` has no limit. ``--print`` gives the limits as settings for a manifest instead of writing them.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from blora.benchmark.drawings import load_paired, make_pairs
from blora.checks.adapter_check import reconstruct
from blora.checks.broken_pictures import diptych, faded, halves, white_behind
from blora.checks.defects import RECIPE, grey_collapse, reconstruction_distance, split_image, white_background
from blora.checks.limits import LIMITS, reconstruction_settings
from blora.metrics.lite0 import load_lite0
from blora.models.model import Base, load_base
from blora.sampling.draw import Draw
from blora.sampling.sample import sample
from blora.settings.presets import Settings
from blora.settings.resolve import resolve
from blora.training.items import TrainItem
from blora.training.photos import pixel_digest, read_pixels
from blora.training.train import train

__all__ = ["Drawings", "Evidence", "choose_limit", "gather_evidence"]

FILE: Final = Path(__file__).parent / "limits.json"
SEEDS: Final = 4
"""Reconstructions of each adapter."""
PACK: Final = 4
PAIRS: Final = 100

Picture = NDArray[np.uint8]


@dataclass
class Evidence:
    """Values of one defect on what is good, what is bad, and what adapters really made (part of the good or not)."""

    good: list[float] = field(default_factory=list)
    bad: list[float] = field(default_factory=list)
    real: list[float] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """The limit with its rates."""
        limit = round(choose_limit(self.good, self.bad), 3)
        beyond = {name: float(np.mean(np.array(getattr(self, name)) > limit)) for name in ("good", "bad", "real")
                  if getattr(self, name)}  # fmt: skip
        return {
            "limit": limit,
            "false_alarms": round(beyond["good"], 4),
            "misses": round(1 - beyond["bad"], 4),
            "good": len(self.good),
            "bad": len(self.bad),
            "real": len(self.real),
            "real_beyond": round(beyond.get("real", 0.0), 4),
        }


@dataclass(frozen=True, eq=False)
class Drawings:
    """Pictures to calibrate on.

    Attributes:
        pictures: RGB uint8, of any sizes.
        alike: Pairs of numbers: two drawings in one style; none where that is not known.
        truths: (picture, content, style, is it good) as numbers, for `style_copy`; none where that is not known.
    """

    pictures: list[Picture]
    alike: list[tuple[int, int]]
    truths: list[tuple[int, int, int, bool]]


def choose_limit(good: Sequence[float], bad: Sequence[float]) -> float:
    """Where the mean of false alarms (good above it) and misses (bad not above it) is least; the middle of such values.

    Raises:
        ValueError: One side has no values.
    """
    if not good or not bad:
        raise ValueError(f"choose_limit: received {len(good)} good and {len(bad)} bad values; accepted: some of each")
    values = np.unique([*good, *bad])
    cuts = np.concatenate([(values[:-1] + values[1:]) / 2, values[-1:]])
    alarms = 1 - np.searchsorted(np.sort(good), cuts, side="right") / len(good)
    misses = np.searchsorted(np.sort(bad), cuts, side="right") / len(bad)
    best = np.flatnonzero(np.isclose(alarms + misses, (alarms + misses).min()))
    return float(np.median(cuts[best]))


def gather_evidence(base: Base, drawings: Drawings, chosen: Sequence[int], settings: Settings) -> dict[str, Evidence]:
    """Values of every defect on what is good and what is bad.

    Args:
        base: Loaded with the settings' precision.
        drawings: To calibrate on.
        chosen: Numbers of the drawings that adapters are trained on.
        settings: Recipe of training, drawing and check.
    """
    found = {name: Evidence() for name in LIMITS}
    often = settings.model_copy(update={"check": settings.check.model_copy(update={"pictures": SEEDS})})
    packs = [chosen[start : start + PACK] for start in range(0, len(chosen), PACK)]
    adapters = [adapter for pack in packs for adapter in _train(base, drawings, pack, settings)]
    alone = [Draw(None, None, settings.train.prompt, seed) for seed in range(SEEDS)]
    untrained = sample(base, alone, reconstruction_settings(settings))
    for own, made in zip(chosen, reconstruct(base, adapters, often), strict=True):
        image = drawings.pictures[own]
        others = [drawings.pictures[number] for number in chosen if number != own]
        for picture in made:
            found["reconstruction_distance"].good.append(reconstruction_distance(picture, image))
            found["reconstruction_distance"].bad += [reconstruction_distance(picture, other) for other in others]
            found["split_image"].real.append(split_image(picture))
            found["grey_collapse"].good.append(grey_collapse(picture, image))
            found["white_background"].good.append(white_background(picture, image))
        found["reconstruction_distance"].bad += [reconstruction_distance(picture, image) for picture in untrained]
    for name in ("reconstruction_distance", "grey_collapse", "white_background"):
        found[name].real = list(found[name].good)
    _add_drawn(found, drawings)
    return {name: evidence for name, evidence in found.items() if evidence.good and evidence.bad}


def _add_drawn(found: dict[str, Evidence], drawings: Drawings) -> None:
    """Add what drawings alone say."""
    pictures = drawings.pictures
    for number, picture in enumerate(pictures):
        other = pictures[(number + 7) % len(pictures)]
        found["split_image"].good.append(split_image(picture))
        if other.shape == picture.shape:
            found["split_image"].bad += [split_image(diptych(picture, other)), split_image(halves(picture, other))]
        found["split_image"].bad.append(split_image(diptych(picture, picture)))
        found["grey_collapse"].bad += [grey_collapse(faded(picture, kept), picture) for kept in (0.2, 0.35)]
        if white_background(picture, np.zeros_like(picture)) < 0.25:
            bad = [white_behind(picture), faded(picture, 0.1, 255)]
            found["white_background"].bad += [white_background(one, picture) for one in bad]
    for one, like in drawings.alike:
        found["grey_collapse"].good.append(grey_collapse(pictures[one], pictures[like]))
        found["white_background"].good.append(white_background(pictures[one], pictures[like]))
    content = _content_features(pictures) if drawings.truths else np.zeros((0, 0), np.float32)
    for number, of_content, of_style, good in drawings.truths:
        value = float(content[number] @ content[of_style] - content[number] @ content[of_content])
        (found["style_copy"].good if good else found["style_copy"].bad).append(value)


def _train(base: Base, drawings: Drawings, chosen: Sequence[int], settings: Settings) -> list[Any]:
    items = [TrainItem((drawings.pictures[n],), f"{n} {pixel_digest(drawings.pictures[n])}") for n in chosen]
    adapters = [result.adapter for result in train(base, items, settings.train)]
    return [adapter for adapter in adapters if adapter is not None]


def _content_features(pictures: Sequence[Picture]) -> NDArray[np.float32]:
    """Unit-length content features (pictures, length), as the scores have them."""
    extractor = load_lite0()
    parts = [extractor.extract(pictures[start : start + 16]).content for start in range(0, len(pictures), 16)]
    return np.concatenate([part.numpy() for part in parts])


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
    return Drawings(pictures, alike, truths)


def own_drawings(folder: Path) -> Drawings:
    """The pictures of a folder.

    Raises:
        ValueError: Fewer than two pictures.
    """
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp"))
    if len(paths) < 2:
        raise ValueError(f"--pictures: received {folder} with {len(paths)} pictures; accepted: a folder with 2 or more")
    pictures = [read_pixels(path) for path in paths]
    return Drawings(pictures, [], [])


def main() -> None:
    """Calibrate a base and write, or print, its limits."""
    parser = argparse.ArgumentParser(
        prog="python -m blora.checks.calibrate", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--base", default="embedded", help="embedded, a folder, or org/model@revision")
    parser.add_argument("--preset", default="demo", help="demo, draft or paper")
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
    found = gather_evidence(base, drawings, chosen, settings)
    evidence = {name: one.summary() for name, one in found.items()}
    limits = {name: one["limit"] for name, one in evidence.items()}
    for name, one in evidence.items():
        errors = f"false alarms {one['false_alarms']:.1%} of {one['good']}, misses {one['misses']:.1%} of {one['bad']}"
        print(f"{name}: limit {one['limit']:.3f}, {errors}; beyond it {one['real_beyond']:.1%} of {one['real']} real")
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
