"""Every row of the table in `manifests.loading.pictures`, on real files, locally and in a bucket."""

from __future__ import annotations

import io
import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from manifests.errors import TransientStoreError
from manifests.images.normalise import NormalisedImage
from manifests.loading.load import load_manifest, parse_manifest
from manifests.loading.pictures import NORMALISED, check_images, read_images
from manifests.schema.entries import Manifest
from manifests.store.store import Store
from tests.manifests.store.flaky import Proxy


def picture(seed: int, kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (20, 24, 3), np.uint8)).save(out, kind)
    return out.getvalue()


def manifest_of(contents: list[str], root: str) -> Manifest:
    document = {
        "contents": [{"image": path, "name": str(i)} for i, path in enumerate(contents)],
        "styles": ["s"],
    }
    manifest = parse_manifest(document, "json", "m.yaml", [root]).manifest
    assert manifest is not None
    return manifest


def test_good_pictures_come_back_and_bad_ones_are_faults(root: str) -> None:
    files = {
        "a.png": picture(1),
        "again.bmp": picture(1, "BMP"),
        "jpeg-in-truth.png": picture(2, "JPEG"),
        "ä 字.png": picture(3),
        "empty.png": b"",
        "cut.png": picture(4)[:100],
        "page.png": b"<!DOCTYPE html><html></html>",
        "s": picture(5),
    }
    store = Store.open(root)
    for name, data in files.items():
        store.write_once(name, data)
    bad = ["empty.png", "cut.png", "page.png", "missing.png", "x" * 300 + ".png", "empty.png"]
    names = ["a.png", "again.bmp", "jpeg-in-truth.png", "ä 字.png", *bad]
    pictures, faults = check_images(manifest_of(names, root))

    good = [f"{store.root}/{name}" for name in ["a.png", "again.bmp", "jpeg-in-truth.png", "ä 字.png", "s"]]
    assert list(pictures) == good
    assert pictures[good[0]].image_id == pictures[good[1]].image_id
    assert (pictures[good[0]].notes, pictures[good[1]].notes) == ((), (f"the same picture as {good[0]}",))
    assert [fault.item for fault in faults] == ["4", "5", "6", "7", "8", "9"]
    for fault, name in zip(faults, bad, strict=True):
        assert (fault.kind, fault.file, fault.field, fault.transient) == ("image", "m.yaml", "image", False)
        assert name in fault.what and fault.hint


def test_what_is_no_file_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "circle.png").symlink_to(tmp_path / "circle.png")
    (tmp_path / "s").write_bytes(picture(1))
    pictures, faults = check_images(manifest_of(["folder.png", "pipe.png", "circle.png"], str(tmp_path)))
    assert len(pictures) == 1 and len(faults) == 3


def test_huge_files_are_refused_unread(tmp_path: Path) -> None:
    with open(tmp_path / "huge.png", "wb") as file:
        file.truncate(2**40)
    (tmp_path / "s").write_bytes(picture(1))
    _, faults = check_images(manifest_of(["huge.png"], str(tmp_path)))
    assert len(faults) == 1 and "at most" in str(faults[0])


def test_each_address_is_read_once_in_order_and_late(tmp_path: Path) -> None:
    names = [f"{index}.png" for index in range(20)]
    for index, name in enumerate(names):
        (tmp_path / name).write_bytes(picture(index))
    (tmp_path / "s").write_bytes(picture(99))
    manifest = manifest_of([*names, *names], str(tmp_path))
    entries = (*manifest.contents, *manifest.styles)
    found = read_images((key for entry in entries for key in entry.keys), NORMALISED)
    first, _ = next(found)
    (tmp_path / "19.png").write_bytes(b"changed since")
    rest = list(found)
    assert [first, *(address for address, _ in rest)] == [str(tmp_path / name) for name in [*names, "s"]]
    assert [isinstance(picture, NormalisedImage) for _, picture in rest] == [True] * 18 + [False, True]


@pytest.mark.s3
def test_a_server_that_does_not_answer_is_a_transient_fault(network: Proxy) -> None:
    manifest = manifest_of(["a.png"], "s3://one-that-nobody-asked-for-yet/inbox")
    network.trouble("GET", *["reset"] * 100)
    (address, found), *_ = read_images(manifest.contents[0].keys, NORMALISED)
    assert address == manifest.contents[0].images[0] and isinstance(found, TransientStoreError)
    assert check_images(manifest)[1][0].transient


@pytest.mark.parametrize(("kept", "asked"), [("NFD", "NFC"), ("NFC", "NFD")])
@pytest.mark.parametrize("path", ["café.png", "Ärger/가을/ガ.png"])
def test_composed_and_decomposed_names_of_files_find_each_other(root: str, path: str, kept: str, asked: str) -> None:
    store = Store.open(root)
    there, said = (unicodedata.normalize(form, path) for form in (kept, asked))
    assert there != said
    store.write_once(there, picture(1))
    store.write_once("s", picture(2))
    pictures, faults = check_images(manifest_of([said], store.root))
    assert not faults and len(pictures) == 2
    store.write_once(said, picture(3))
    exact, _ = check_images(manifest_of([said, there], store.root))
    assert len({one.image_id for one in exact.values()}) == 3, "each of two files that look the same has its own name"


def test_a_manifest_and_its_folder_are_found_in_either_spelling(root: str) -> None:
    store = Store.open(root)
    for name, data in {
        "m é.yaml": b"contents: [c.png]\nstyles: [s.png]\n",
        "c.png": picture(1),
        "s.png": picture(2),
    }.items():
        store.write_once(unicodedata.normalize("NFD", f"Müller/{name}"), data)
    loaded = load_manifest(unicodedata.normalize("NFC", f"{store.root}/Müller/m é.yaml"))
    assert loaded.manifest is not None and not loaded.faults
    assert check_images(loaded.manifest)[1] == ()


def test_the_other_spelling_of_a_name_leads_no_further_than_the_name(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "secret.png").write_bytes(picture(1))
    (inside / "s").write_bytes(picture(2))
    (inside / unicodedata.normalize("NFD", "café.png")).symlink_to(tmp_path / "secret.png")
    document = {"contents": [{"image": unicodedata.normalize("NFC", "café.png")}], "styles": ["s"]}
    loaded = parse_manifest(document, "json", "m.yaml", [str(inside)])
    assert "outside the allowed folders" in str(loaded.faults[0])
