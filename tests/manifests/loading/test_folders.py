"""Folders and patterns in place of pictures: in every format, on a disk and in a bucket."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from manifests.loading.load import Format, Loaded, parse_manifest
from manifests.store.store import Store
from tests.manifests.loading.test_clip_names import picture


def load(store: Store, said: dict[str, Any] | str, form: Format = "json") -> Loaded:
    return parse_manifest(said if isinstance(said, dict) else said.encode(), form, f"m.{form}", [store.root])


def names(loaded: Loaded) -> tuple[list[str], list[str]]:
    assert [str(fault) for fault in loaded.faults] == []
    assert loaded.manifest
    return [one.name for one in loaded.manifest.contents], [one.name for one in loaded.manifest.styles]


@pytest.fixture
def store(root: str) -> Store:
    store = Store.open(root)
    for number, name in enumerate(("p2.png", "p10.JPG", "owl [1].png", "below/x.png")):
        store.write_once(f"photos/{name}", picture(number))
    store.write_once("photos/notes.txt", b"of the day")
    store.write_once("looks [old]/wave.png", picture(7))
    store.write_once("looks [old]/wave.jpg", picture(8))
    return store


PHOTOS, LOOKS = ["owl [1]", "p2", "p10"], ["wave.jpg", "wave.png"]


@pytest.mark.parametrize(
    ("said", "form"),
    [
        ({"contents": "photos/", "styles": "looks [old]/"}, "json"),
        ({"contents": ["photos/"], "styles": [{"image": "looks [old]/*"}]}, "json"),
        ("contents: photos/\nstyles:\n- looks [old]/\n", "yaml"),
        ("content,style\nphotos/,\n,looks [old]/\n", "csv"),
        ("content,style\nphotos/,looks [old]/\n", "csv"),
        ('{"content": "photos/"}\n{"style": "looks [old]/*.*"}\n', "jsonl"),
    ],
)
def test_a_folder_stands_for_its_pictures_wherever_one_may_stand(store: Store, said: Any, form: Format) -> None:
    loaded = load(store, said, form)
    assert names(loaded) == (PHOTOS, LOOKS)
    assert loaded.manifest and len(loaded.manifest.pairs) == 6
    assert [note.text for note in loaded.notes] == [
        "notes.txt in 'photos/': no picture by its extension, and not taken"
    ]


def test_what_else_a_row_says_holds_for_each_picture(store: Store) -> None:
    loaded = load(store, {"contents": [{"image": "photos/p*", "word": "dog"}], "styles": ["looks [old]/wave.png"]})
    assert names(loaded) == (["p2", "p10"], ["wave"])
    assert loaded.manifest and {one.word for one in loaded.manifest.contents} == {"dog"}


@pytest.mark.parametrize(
    ("contents", "what"),
    [
        ("empty/", "no pictures there"),
        ("photos/*.gif", "no pictures there"),
        ({"image": "photos/", "name": "one"}, "one name for several pictures"),
        ({"image": "photos/", "wrd": "dog"}, "unknown key"),
        ("pho*/p2.png/*", "pattern in a folder's name"),
        ("../", "path outside the allowed folders"),
    ],
)
def test_a_folder_that_cannot_stand_for_pictures_is_one_fault(store: Store, contents: Any, what: str) -> None:
    if not store.root.startswith("s3:"):
        Path(store.root, "empty").mkdir(exist_ok=True)
    loaded = load(store, {"contents": [contents, "photos/p2.png"], "styles": ["looks [old]/wave.png"]})
    assert [fault.what for fault in loaded.faults] == [what] and loaded.faults[0].hint
    assert loaded.manifest and [one.name for one in loaded.manifest.contents] == ["p2"]
