"""The example manifests that the README opens: without a fault, and every picture with its licence."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from manifests.loading.load import load_manifest
from manifests.loading.pictures import check_images

EXAMPLES = Path(__file__).parents[3] / "manifests" / "examples"


@pytest.mark.parametrize(
    ("name", "pairs"),
    [
        ("demo.yaml", 16),
        ("unseen.yaml", 48),
        ("sdxl.yaml", 16),
        ("pairs.csv", 3),
        ("words.yaml", 12),
        ("mixes.yaml", 24),
        ("colour.yaml", 17),
        ("object.yaml", 4),
        ("frames.yaml", 36),
        ("candidates.yaml", 4),
    ],
)
def test_an_example_has_no_fault(name: str, pairs: int) -> None:
    loaded = load_manifest(str(EXAMPLES / name))
    assert loaded.faults == ()
    assert loaded.manifest is not None and len(loaded.manifest.pairs) == pairs
    pictures, faults = check_images(loaded.manifest)
    assert faults == ()
    twice = 5 if name == "frames.yaml" else 0  # a balloon that drifts there and back: frames it shows again
    assert len({picture.image_id for picture in pictures.values()}) == len(pictures) - twice


def test_every_picture_has_its_licence() -> None:
    table = (EXAMPLES / "LICENCES.md").read_text()
    listed = [
        name for line in table.splitlines() if line.startswith("|") for name in re.findall(r"[\w-]+\.(?:png|gif)", line)
    ]
    pictures = [path.name for path in (EXAMPLES / "pictures").rglob("*.*")]
    assert pictures
    assert Counter(listed) == Counter(pictures)  # two folders hold a coral.png: each has a line of its own
