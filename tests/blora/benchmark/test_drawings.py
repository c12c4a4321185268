"""The shipped drawings are what they say, and pairs ask what they should."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from blora.benchmark.drawings import FOLDER, PairedSet, load_paired, make_pairs
from blora.errors import SettingsError


@pytest.fixture(scope="module")
def paired() -> PairedSet:
    return load_paired()


def test_there_are_the_splits_and_styles_that_a_benchmark_needs(paired: PairedSet) -> None:
    assert (len(paired.members("validation")), len(paired.members("test"))) == (16, 32)
    assert len({thing.code for thing in paired.things}) == len(paired.things)
    assert paired.pictures.shape == (48, 12, 128, 128, 3)
    unseen = {style.name for style in paired.styles if not style.seen}
    assert unseen == {"openmoji", "openmoji-line", "coral", "autumn"}


def test_no_thing_was_trained_on(paired: PairedSet) -> None:
    """The training data's own rule: a thing is held out where the hash of its code point says so."""

    def held_out(code: str) -> bool:
        return int.from_bytes(hashlib.sha256(f"thing {code}".encode()).digest()[:8], "big") % 5 == 0

    assert all(held_out(thing.code) for thing in paired.things)
    assert not all(held_out(code) for code in ("1F004", "1F0CF", "1F300"))  # the rule can say no


def test_each_style_has_its_licence_and_no_drawing_is_blank(paired: PairedSet) -> None:
    notes = (FOLDER / "LICENCES.md").read_text("utf-8")
    for entry in json.loads((FOLDER / "index.json").read_text("utf-8"))["styles"]:
        (line,) = [line for line in notes.splitlines() if line.startswith(f"| {entry['file']} |")]
        package, _, version = entry["package"].rpartition("@")
        assert f"{package} {version}" in line and f"| {entry['licence']} |" in line
        assert line.endswith("| yes |" if entry["seen"] else "| unseen |")
    assert {path.name for path in FOLDER.glob("*.png")} == {f"{style.name}.png" for style in paired.styles}
    assert (paired.pictures.reshape(48 * 12, -1).std(axis=1) > 5).all()


def test_changed_pixels_are_refused(tmp_path: Path) -> None:
    folder = shutil.copytree(FOLDER, tmp_path / "paired")
    pixels = np.array(Image.open(folder / "noto.png"))
    pixels[0, 0] ^= 1
    Image.fromarray(pixels).save(folder / "noto.png")
    with pytest.raises(ValueError, match="pixels of digest"):
        load_paired(folder)


@pytest.mark.parametrize(("split", "count"), [("test", 200), ("test", 16), ("validation", 4), ("validation", 100)])
def test_a_grid_of_pairs_shares_its_pictures(paired: PairedSet, split: str, count: int) -> None:
    pairs = make_pairs(paired, split, count)  # type: ignore[arg-type]
    assert count <= len(set(pairs)) == len(pairs) < count + len(paired.styles)
    for pair in pairs:
        assert pair.thing != pair.style_thing and pair.content_style != pair.style
        assert {paired.things[pair.thing].split, paired.things[pair.style_thing].split} == {split}
    pictures = {place for pair in pairs for place in (pair.content, pair.reference)}
    assert len(pictures) <= 2 + 2.5 * count**0.5
    assert len({pair.seed for pair in pairs}) == len(pairs)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_style_is_shown_by_as_many_pictures_as_asked(paired: PairedSet, split: str) -> None:
    plain, several = (make_pairs(paired, split, 150, count) for count in (1, 4))  # type: ignore[arg-type]
    assert len({pair.content for pair in several}) <= len({pair.content for pair in plain})
    assert all(pair.thing != pair.style_thing and pair.content_style != pair.style for pair in several)
    for style in {pair.style for pair in several}:
        assert len({pair.reference for pair in plain if pair.style == style}) == 1
        shown = [pair.reference for pair in several if pair.style == style]
        times = sorted(shown.count(one) for one in set(shown))
        assert len(times) == 4 and times[-1] <= times[0] + 3  # in turn, but for pictures of the asked thing itself
    # No pair is left out because the style's only picture shows its thing.
    assert len(several) == len({pair.content for pair in several}) * (len(paired.styles) - 1)


@pytest.mark.parametrize(("asked", "accepted"), [(0, "1 to 15"), (16, "1 to 15")])
def test_too_many_pictures_of_a_style_are_refused(paired: PairedSet, asked: int, accepted: str) -> None:
    with pytest.raises(SettingsError, match=accepted):
        make_pairs(paired, "validation", 4, asked)


def test_a_larger_set_of_pairs_has_unseen_styles_and_too_many_are_refused(paired: PairedSet) -> None:
    few = {paired.styles[pair.style].seen for pair in make_pairs(paired, "test", 16)}
    assert few == {True, False}
    with pytest.raises(SettingsError, match="more than validation has"):
        make_pairs(paired, "validation", 1000)
