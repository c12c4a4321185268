"""The drawn sets: the same things drawn by many hands, published under free licences, and the things that they share.

A thing or a set marked held_out is never trained on.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import tarfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CATEGORIES = ("Animals & Nature", "Food & Drink", "Travel & Places", "Activities", "Objects")
NAMES_PACKAGE = "emoji-datasource@16.0.0"


@dataclass(frozen=True)
class DrawnSet:
    """One hand.

    Attributes:
        name: Short name.
        words: What a caption calls it.
        package: Where npm has it, with the version.
        form: "iconify", "openmoji", "webp" or "font".
        licence: Of the drawings.
        geometry: Sets that share a geometry draw the same shapes.
        coloured: Whether redrawing it in other colours makes sense.
        held_out: Never trained on.
        folder: Of an openmoji package, the one with the drawings.
    """

    name: str
    words: str
    package: str
    form: str
    licence: str
    geometry: str
    coloured: bool = True
    held_out: bool = False
    folder: str = ""


_FLUENT, _ONE = "@iconify-json/fluent-emoji", "@iconify-json/emojione"
_BY, _SHARE_ALIKE = "CC-BY-4.0", "CC-BY-SA-4.0"
SETS: tuple[DrawnSet, ...] = (
    DrawnSet("noto", "noto", "@iconify-json/noto@1.2.9", "iconify", "Apache-2.0", "noto"),
    DrawnSet("noto-v1", "blob", "@iconify-json/noto-v1@1.2.5", "iconify", "Apache-2.0", "noto-v1"),
    DrawnSet("twemoji", "flat twitter", "@iconify-json/twemoji@1.2.5", "iconify", _BY, "twemoji"),
    DrawnSet("fluent-3d", "glossy 3d render", "@lobehub/fluent-emoji-3d@1.1.0", "webp", "MIT", "fluent"),
    DrawnSet("fluent-color", "shaded gradient", f"{_FLUENT}@1.2.7", "iconify", "MIT", "fluent"),
    DrawnSet("fluent-flat", "flat fluent", f"{_FLUENT}-flat@1.2.6", "iconify", "MIT", "fluent"),
    DrawnSet(
        "fluent-ink", "high contrast stencil", f"{_FLUENT}-high-contrast@1.2.6", "iconify", "MIT", "fluent-ink", False
    ),
    DrawnSet("emojione", "emojione", f"{_ONE}@1.2.3", "iconify", _BY, "emojione"),
    DrawnSet("emojione-mono", "monotone silhouette", f"{_ONE}-monotone@1.2.1", "iconify", _BY, "emojione", False),
    DrawnSet("noto-mono", "black line font", "@fontsource/noto-emoji@5.3.2", "font", "OFL-1.1", "noto-mono", False),
    DrawnSet("openmoji", "openmoji", "openmoji@17.0.0", "openmoji", _SHARE_ALIKE, "openmoji", True, True, "color/svg"),
    DrawnSet(
        "openmoji-line",
        "openmoji line",
        "openmoji@17.0.0",
        "openmoji",
        _SHARE_ALIKE,
        "openmoji",
        False,
        True,
        "black/svg",
    ),
    DrawnSet("emojione-v1", "emojione one", f"{_ONE}-v1@1.2.3", "iconify", _SHARE_ALIKE, "emojione-v1", True, True),
)


def unpack(data: Path, package: str) -> Path:
    """Folder with the package's files; fetched with npm when the archive is not in `data` yet."""
    name, version = package.rsplit("@", 1)
    stem = f"{name.lstrip('@').replace('/', '-')}-{version}"
    folder = data / "raw" / stem
    if not (folder / "package.json").exists():
        archive = data / f"{stem}.tgz"
        if not archive.exists():
            subprocess.run(["npm", "pack", "--silent", package, "--pack-destination", str(data)], check=True)
        with tarfile.open(archive) as tar:
            tar.extractall(data / "raw" / f"{stem}.part", filter="data")
        (data / "raw" / f"{stem}.part" / "package").rename(folder)
    return folder


def _slug(text: str) -> str:
    return "-".join(
        "".join(c if c.isalnum() else " " for c in text.lower().replace("'", "").replace("\u2019", "")).split()
    )


def base_code(text: str) -> str:
    """A code point as all sets spell it: upper case, without the mark that asks for a picture in place of a letter."""
    return text.upper().replace("-FE0F", "")


def stable_hash(text: str) -> int:
    """The same number in every process and on every machine."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def list_things(data: Path) -> tuple[list[dict[str, Any]], dict[str, list[str]]]:
    """Object-like things, and for each code point the names under which the sets may know it."""
    table = json.loads((unpack(data, NAMES_PACKAGE) / "emoji.json").read_text())
    notes = json.loads((unpack(data, "openmoji@17.0.0") / "data/openmoji.json").read_text())
    annotations = {base_code(o["hexcode"]): o["annotation"].replace("\u2019", "'") for o in notes}
    names: dict[str, list[str]] = defaultdict(list)
    for code, text in annotations.items():
        names[code].append(_slug(text))
    for drawn in SETS:
        chars = unpack(data, drawn.package) / "chars.json"
        if drawn.form == "iconify" and chars.exists():
            for code, name in json.loads(chars.read_text()).items():
                names[base_code(code)].append(name)
    things = []
    for row in table:
        code = base_code(row["unified"])
        names[code] += [_slug(row["name"] or "")] + [_slug(s) for s in row["short_names"]]
        if row["category"] in CATEGORIES and row["subcategory"] != "time" and code in annotations:
            name, held_out = annotations[code].split(":")[0], stable_hash("thing " + code) % 5 == 0
            things.append({"code": code, "name": name, "category": row["category"], "held_out": held_out})
    return things, names
