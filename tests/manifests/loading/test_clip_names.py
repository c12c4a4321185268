"""Clips under the names that people give to folders and files: with signs of patterns, and with accents."""

from __future__ import annotations

import io
import unicodedata
from typing import Any

import numpy as np
import pytest
from PIL import Image

from manifests.loading.load import Loaded, parse_manifest
from manifests.store.store import Store


def picture(seed: int, *more: int) -> bytes:
    """A small picture; with further seeds a GIF of several."""
    first, *others = (
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (20, 24, 3), np.uint8))
        for number in (seed, *more)
    )
    out = io.BytesIO()
    first.save(out, "GIF" if more else "PNG", **({"save_all": True, "append_images": others} if more else {}))
    return out.getvalue()


def load(store: Store, frames: str, **more: Any) -> Loaded:
    return parse_manifest({"contents": [{"frames": frames}], "styles": ["s.png"]} | more, "json", "m", [store.root])


@pytest.fixture
def store(root: str) -> Store:
    store = Store.open(root)
    for folder in ("shots [final]", "what?", "*", "a1"):
        for number in (1, 2, 10):
            store.write_once(f"{folder}/f{number}.png", picture(number))
    store.write_once("walk [1].gif", picture(1, 2, 3))
    store.write_once("walk 1.gif", picture(4, 5))
    store.write_once("s.png", picture(9))
    return store


@pytest.mark.parametrize(
    ("frames", "names", "count"),
    [
        ("shots [final]/", "shots [final]", 3),
        ("shots [final]/*.png", "shots [final]", 3),
        ("shots [final]/f?.png", "shots [final]", 2),
        ("what?/", "what?", 3),
        ("*/", "*", 3),
        ("*/f[12]*.png", "*", 3),
        ("walk [1].gif", "walk [1]", 3),
        ("a1/f[1]*.png", "a1", 2),
    ],
)
def test_signs_of_patterns_are_letters_where_there_is_such_a_name(
    store: Store, frames: str, names: str, count: int
) -> None:
    loaded = load(store, frames)
    assert loaded.manifest is not None and not loaded.faults, loaded.faults
    assert [entry.name for entry in loaded.manifest.contents] == [f"{names} {n + 1}" for n in range(count)]


def test_a_local_folder_needs_no_slash_at_its_end(tmp_path: Any) -> None:
    store = Store.open(str(tmp_path))
    for number in (1, 2):
        store.write_once(f"shots [final]/f{number}.png", picture(number))
    store.write_once("s.png", picture(9))
    loaded = load(store, "shots [final]")
    assert loaded.manifest is not None and loaded.manifest.contents[1].name == "shots [final] 2"


@pytest.mark.parametrize("frames", ["shots [f]/", "shots [f]/*.png", "nowhere?/*.png"])
def test_a_pattern_in_the_name_of_a_folder_is_still_refused(store: Store, frames: str) -> None:
    (fault,) = load(store, frames).faults
    assert fault.what == "pattern in a folder's name"


@pytest.mark.parametrize(("kept", "asked"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_accents_in_folders_patterns_and_names_of_pairs_find_each_other(root: str, kept: str, asked: str) -> None:
    store = Store.open(root)
    store.write_once("s.png", picture(9))
    for number in (1, 2):
        store.write_once(unicodedata.normalize(kept, f"Spaß é/für{number}.png"), picture(number))
    for frames in ("Spaß é/", "Spaß é/für*.png"):
        pairs = [{"content": unicodedata.normalize(asked, "Spaß é"), "style": "s"}]
        loaded = load(store, unicodedata.normalize(asked, frames), pairs=pairs)
        assert loaded.manifest is not None and not loaded.faults, loaded.faults
        assert [pair.content for pair in loaded.manifest.pairs] == ["Spaß é 1", "Spaß é 2"]


def test_a_pair_with_a_refused_clip_says_so_in_either_spelling(root: str) -> None:
    store = Store.open(root)
    store.write_once("s.png", picture(9))
    pairs = [{"content": unicodedata.normalize("NFC", "é"), "style": "s"}]
    faults = load(store, unicodedata.normalize("NFD", "é/"), pairs=pairs).faults
    assert [fault.what for fault in faults][1] == "pair with a refused content"
