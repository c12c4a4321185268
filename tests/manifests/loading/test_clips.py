"""Frames of a clip in a manifest: where they come from, in which order, what they are called, and what is refused."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from manifests.images.normalise import NormalisedImage, normalise
from manifests.loading.clips import MAX_FRAMES
from manifests.loading.load import Loaded, parse_manifest
from manifests.loading.pictures import NORMALISED, check_images, read_images
from manifests.schema.entries import Manifest
from manifests.store.files import list_address
from manifests.store.store import Store

COUNT = 12


def frames(count: int = COUNT, side_px: int = 24) -> list[Image.Image]:
    """Bars that move, each frame of colours of its own."""
    pictures = []
    for number in range(count):
        rgb = np.full((side_px, side_px, 3), 255, np.uint8)
        rgb[:, number : number + 6] = (20 * number, 250 - 20 * number, 60)
        pictures.append(Image.fromarray(rgb))
    return pictures


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A clip as files, as GIF, as WebP and as APNG, and a style."""
    (tmp_path / "walk").mkdir()
    for number, frame in enumerate(frames(), start=1):
        frame.save(tmp_path / "walk" / f"f{number}.png")
    (tmp_path / "walk" / "notes.txt").write_text("no picture")
    (tmp_path / "walk" / ".hidden.png").write_bytes(b"no picture")
    first, *others = frames()
    first.save(tmp_path / "moving.gif", save_all=True, append_images=others, duration=50, loop=0)
    first.save(tmp_path / "moving.webp", save_all=True, append_images=others, duration=50, lossless=True)
    first.save(tmp_path / "moving.png", save_all=True, append_images=others, duration=50)
    first.save(tmp_path / "style.png")
    first.save(tmp_path / "pages.tiff", save_all=True, append_images=others)
    return tmp_path


def load(folder: Path, *contents: Any, **more: Any) -> Loaded:
    return parse_manifest({"contents": list(contents), "styles": ["style.png"]} | more, "json", "m", [str(folder)])


def good(loaded: Loaded) -> Manifest:
    assert loaded.manifest is not None and loaded.faults == (), loaded.faults
    return loaded.manifest


@pytest.mark.parametrize("said", ["walk", "walk/", "walk/*.png", "walk/f[0-9]*.png"])
def test_files_of_a_folder_are_frames_in_natural_order(folder: Path, said: str) -> None:
    manifest = good(load(folder, {"frames": said}))
    assert [Path(entry.images[0]).name for entry in manifest.contents] == [f"f{n}.png" for n in range(1, COUNT + 1)]
    assert [entry.name for entry in manifest.contents[:2]] == ["walk 01", "walk 02"]
    assert [pair.content for pair in manifest.pairs] == [f"walk {n:02}" for n in range(1, COUNT + 1)]
    assert {entry.frame.frames_per_second for entry in manifest.contents if entry.frame} == {12.0}


@pytest.mark.parametrize("name", ["moving.gif", "moving.webp", "moving.png"])
def test_an_animated_file_gives_its_frames_as_they_are_shown(folder: Path, name: str) -> None:
    manifest = good(load(folder, {"frames": name, "every": 3, "limit": 3}))
    taken = [entry.frame for entry in manifest.contents if entry.frame]
    assert [(one.clip, one.position, one.number) for one in taken] == [("moving", n, 3 * n) for n in range(3)]
    assert {one.frames_per_second for one in taken} == {20 / 3}, "the clip keeps its pace"
    identified, faults = check_images(manifest)
    assert faults == ()
    made = dict(read_images((entry.keys[0] for entry in manifest.contents), NORMALISED))
    for entry, frame in zip(manifest.contents, frames()[::3], strict=False):
        picture = made[entry.keys[0]]
        assert isinstance(picture, NormalisedImage) and picture.image_id == identified[entry.keys[0]].image_id
        shown = np.asarray(Image.open(io.BytesIO(picture.png)), np.int16)
        assert np.abs(shown - np.asarray(frame, np.int16)).max() <= (8 if name == "moving.gif" else 0)


def test_a_clip_and_its_file_as_a_picture_are_read_once_and_kept_apart(folder: Path) -> None:
    manifest = good(load(folder, {"frames": "moving.png", "limit": 2, "name": "clip"}, "moving.png"))
    pictures, _ = check_images(manifest)
    assert len(pictures) == 4  # two frames, the file as a still, the style
    still = normalise((folder / "moving.png").read_bytes())
    assert pictures[manifest.contents[2].keys[0]].image_id == still.image_id
    assert pictures[manifest.contents[0].keys[0]].image_id == still.image_id, "the first frame is the still"
    assert any("first one taken" in note for note in pictures[manifest.contents[2].keys[0]].notes)
    assert pictures[manifest.contents[1].keys[0]].notes == ()


def test_a_pair_with_a_clip_is_a_pair_with_each_frame(folder: Path) -> None:
    pairs = [
        {"content": "walk", "style": "style", "style_strength": 1.1, "seeds": [3]},
        {"content": {"walk": 0.7, "still": 0.3}, "prompt": "A [c] of ice"},
    ]
    contents = [{"frames": "walk", "limit": 2, "frames_per_second": 8}, {"image": "style.png", "name": "still"}]
    one, two, mixed, other = good(load(folder, *contents, pairs=pairs)).pairs
    assert [(pair.content, pair.style, pair.seeds) for pair in (one, two)] == [
        ("walk 1", "style", (3,)),
        ("walk 2", "style", (3,)),
    ]
    assert [(part.name, part.weight) for part in mixed.content_mix] == [("walk 1", 0.7), ("still", 0.3)]
    assert other.content == "walk 2 0.7 + still 0.3"


def test_a_frame_can_be_named_by_itself(folder: Path) -> None:
    (pair,) = good(load(folder, {"frames": "walk"}, pairs=[{"content": "walk 07", "style": "style"}])).pairs
    assert pair.content == "walk 07"


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"frames": "nowhere"}, "no such|Missing|read .*nowhere"),
        ({"frames": "walk/*.jpg"}, "a clip without frames"),
        ({"frames": "walk/f1.png"}, "picture that does not move"),
        ({"frames": "walk/f1?.png", "every": 9}, "a clip of one frame"),
        ({"frames": "w*/f1.png"}, "no such|read "),
        ({"frames": "w*/*.png"}, "pattern in a folder's name"),
        ({"frames": "pages.tiff"}, "several pictures that are no clip"),
        ({"frames": "walk/notes.txt"}, "picture cannot be read"),
        ({"frames": "../*.png"}, "path outside the allowed folders"),
        ({"frames": "/etc/*"}, "path outside the allowed folders"),
        ({"frames": "/"}, "path outside the allowed folders"),
        ({"frames": "https://example.org/clip.gif"}, "no address that can be read"),
        ({"frames": ""}, "path of a wrong length"),
        ({"frames": 7}, "valid string"),
        ({"frames": "walk", "image": "style.png"}, "a row needs one of image"),
        ({"image": "style.png", "every": 2}, "every without frames"),
        ({"frames": "walk", "every": 0}, "greater than or equal to 1"),
        ({"frames": "walk", "limit": 1}, "greater than or equal to 2"),
        ({"frames": "walk", "frames_per_second": 0}, "greater than 0"),
        ({"frames": "walk", "frames_per_second": True}, "true or false"),
    ],
)
def test_what_is_no_clip(folder: Path, row: dict[str, Any], told: str) -> None:
    loaded = load(folder, row, "style.png", pairs=[{"content": "style", "style": "style"}])
    assert loaded.manifest is not None and len(loaded.manifest.pairs) == 1, "the other rows are kept"
    assert len(loaded.faults) == 1 and re.search(told, str(loaded.faults[0])), loaded.faults


def test_a_link_out_of_the_allowed_folders_is_no_frame(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    secret = tmp_path_factory.mktemp("elsewhere") / "secret.png"
    frames()[0].save(secret)
    (folder / "walk" / "f3a.png").symlink_to(secret)
    loaded = load(folder, {"frames": "walk/*.png"}, "style.png", pairs=[{"content": "style", "style": "style"}])
    assert [fault.what for fault in loaded.faults] == ["path outside the allowed folders"]


def test_clips_are_contents_and_have_names_of_their_own(folder: Path) -> None:
    loaded = parse_manifest({"contents": ["style.png"], "styles": [{"frames": "walk"}]}, "json", "m", [str(folder)])
    assert loaded.faults[0].what == "a clip as a style"
    twice = load(folder, {"frames": "walk"}, {"frames": "moving.gif", "name": "walk"})
    assert [fault.what for fault in twice.faults] == ["two contents of one name"]
    taken = load(folder, {"frames": "walk"}, {"image": "style.png", "name": "walk 03"})
    assert [fault.what for fault in taken.faults] == ["two contents of one name"]
    same = load(folder, {"frames": "walk"}, {"image": "style.png", "name": "walk"})
    assert [fault.what for fault in same.faults] == ["two contents of one name"]
    mixed = {"content": ["walk", "moving"], "style": "style"}
    two = load(
        folder, {"frames": "walk"}, {"frames": "moving.gif"}, pairs=[mixed, {"content": "walk", "style": "style"}]
    )
    assert [fault.what for fault in two.faults] == ["two clips in one mix"]
    wrong = load(folder, {"frames": "walk"}, pairs=[{"content": "wlk", "style": "style"}])
    assert "did you mean walk" in str(wrong.faults[0]) or "walk" in wrong.faults[0].hint


def test_too_many_frames_and_too_large_a_clip(folder: Path) -> None:
    tiny = [Image.new("L", (16, 16), number % 256) for number in range(MAX_FRAMES + 2)]
    tiny[0].save(folder / "long.gif", save_all=True, append_images=tiny[1:], duration=20)
    (fault, *_) = load(folder, {"frames": "long.gif"}).faults
    assert (fault.what, fault.hint) == ("too many frames", "set limit, or every: 2")
    assert len(good(load(folder, {"frames": "long.gif", "limit": 5})).contents) == 5


def test_pixels_are_counted_up_to_the_last_frame_that_is_taken(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("manifests.loading.clips.MAX_CLIP_PIXELS", 24 * 24 * 7)
    (fault, *_) = load(folder, {"frames": "moving.gif"}).faults
    assert (fault.what, fault.received) == ("clip too large", "24 x 24 px, 12 frames")
    assert len(good(load(folder, {"frames": "moving.gif", "every": 3, "limit": 3})).contents) == 3
    assert len(load(folder, {"frames": "moving.gif", "every": 3, "limit": 4}).faults) == 1


def test_a_damaged_clip_is_a_fault_of_the_frames_that_cannot_be_had(folder: Path) -> None:
    data = (folder / "moving.png").read_bytes()
    manifest = good(load(folder, {"frames": "moving.png"}))
    (folder / "moving.png").write_bytes(data[: len(data) * 2 // 3])
    pictures, faults = check_images(manifest)
    assert faults and {fault.kind for fault in faults} == {"image"}
    kept = [entry.name for entry in manifest.contents if entry.keys[0] in pictures]
    assert kept == [entry.name for entry in manifest.contents[: len(kept)]] and 0 < len(kept) < COUNT


@pytest.mark.s3
def test_a_folder_in_a_bucket(folder: Path, s3_root: str) -> None:
    store = Store.open(s3_root)
    for path in (folder / "walk").glob("f*.png"):
        store.write_once(f"walk/{path.name}", path.read_bytes())
    store.write_once("walk/deeper/f99.png", b"of another folder")
    store.write_once("style.png", (folder / "style.png").read_bytes())
    assert len(list_address(f"{s3_root}/walk")) == COUNT
    for said in ("walk/", "walk/*.png"):
        document = {"contents": [{"frames": said}], "styles": ["style.png"]}
        manifest = good(parse_manifest(document, "json", "m", [s3_root]))
        assert [entry.images[0] for entry in manifest.contents] == [
            f"{s3_root}/walk/f{n}.png" for n in range(1, COUNT + 1)
        ]
        assert check_images(manifest)[1] == ()
