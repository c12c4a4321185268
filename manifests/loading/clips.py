"""A row with `frames`: a clip, whose frames become contents of their own, `walk 01` to `walk 24`.

Each frame is trained by itself: the content half has no memory of where it was in a clip, so that one adapter of all
frames draws one and the same picture for each of them.

| what is written | outcome |
|---|---|
| `walk`, a folder; `walk/*.png`, a pattern | its pictures, or what matches (`manifests.schema.folders`) |
| `walk.gif`, `.webp` or `.png` | the frames of an animated GIF, WebP or APNG, as they are shown |
| `every: 3` | the first of each three frames; the clip keeps its pace |
| `limit: 24` | so many of those, from the first |
| a folder, file or link outside the allowed roots; a picture that does not move; no or one frame | refused |
| more than `MAX_FRAMES` frames, or more than `MAX_CLIP_PIXELS` pixels to decode up to the last one | refused |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final

from manifests.errors import ImageError, ManifestsError
from manifests.images.animation import Animation, look_at
from manifests.images.decode import MAX_FILE_BYTES
from manifests.loading.side import Side, default_name
from manifests.parsing.fault_list import shown
from manifests.parsing.row_faults import RowFaults
from manifests.schema.addresses import Roots
from manifests.schema.entries import FrameOf, ImageEntry
from manifests.schema.folders import files_of_folder, has_signs, is_pattern
from manifests.schema.rows import ImageRow
from manifests.schema.validate import read_row
from manifests.store.files import is_folder, read_address

DEFAULT_FRAMES_PER_SECOND: Final = 12.0
"""Of frames that are files, which say no pace: what animation drawn by hand has."""

MAX_FRAMES: Final = 1000
"""Frames that are taken of one clip; each is trained as a picture of its own."""

MAX_CLIP_PIXELS: Final = 2**30
"""Width times height times frames of an animated file, up to the last one that is taken."""


@dataclass(frozen=True)
class Frames:
    """The frames that are taken of a clip, in order.

    Attributes:
        pictures: Address, and the frame of that file from 0 (None for a file that is one frame).
        frames_per_second: At which they play.
    """

    pictures: tuple[tuple[str, int | None], ...]
    frames_per_second: float


def read_clip(values: dict[str, Any], side: Side, faults: RowFaults) -> None:
    """Add the frames of a clip to the contents, or the fault that says why there are none.

    Args:
        values: What the row says.
        side: What it stands among.
        faults: Takes what is wrong with the row.
    """
    if values.get("name") is None:
        values["name"] = _default_name(values["frames"], side.roots)
    row = read_row(ImageRow, values, faults, f"{side.label}s")
    frames = None if row is None or row.frames is None else _frames_of(row, side, faults)
    if row is None or row.name is None or frames is None:
        side.refuse(values["name"])
        return
    name = row.name
    pace = row.frames_per_second or frames.frames_per_second
    said = {"word": row.word, "class_word": row.class_word, "file": faults.file, "row": faults.node.row}
    digits = len(str(len(frames.pictures)))
    entries = [
        ImageEntry(
            name=f"{name} {position + 1:0{digits}}",
            images=(address,),
            frame=FrameOf(clip=name, position=position, number=number, frames_per_second=pace),
            **said,
        )
        for position, (address, number) in enumerate(frames.pictures)
    ]
    own = entries[0].model_copy(update={"name": name})
    field = f"{side.label}s.name"
    if not all(side.admits(entry, faults, field, repeats=False) for entry in (own, *entries)):
        side.refuse(name)
        return
    for entry in entries:
        side.keep(entry)
    side.clips[name] = tuple(entry.name for entry in entries)


def _frames_of(row: ImageRow, side: Side, faults: RowFaults) -> Frames | None:
    """Return the frames; None after adding a fault."""
    try:
        if side.label != "content":
            hint = "take one frame with image:, or several as photos of one look with images:"
            raise ImageError("a clip as a style", shown(row.frames), "frames among the contents", hint)
        return find_frames(row.frames or "", side.roots, every=row.every or 1, limit=row.limit)
    except ManifestsError as error:
        texts = (error.what, error.received, error.accepted, error.hint or "correct the path")
        place: dict[str, Any] = {"at": ("frames",), "field": f"{side.label}s.frames", "item": row.name or ""}
        faults.add(*texts, **place, transient=error.transient)
        return None


def _default_name(frames: object, roots: Roots) -> str:
    """The file name of an animation, or the name of the folder."""
    if not isinstance(frames, str):
        return "clip"
    path = PurePosixPath(frames)
    try:
        by_pattern = is_pattern(frames, roots)
    except ManifestsError:  # told where the frames are looked up
        by_pattern = has_signs(frames)
    return (path.parent.name if by_pattern else default_name(frames)) or "clip"


def find_frames(text: str, roots: Roots, *, every: int = 1, limit: int | None = None) -> Frames:
    """Look a clip up.

    Args:
        text: What the manifest says.
        roots: What it may reach.
        every: Take the first of each so many frames.
        limit: Take at most so many.

    Raises:
        AddressError: It, or a file that it leads to, is not allowed.
        StoreError: It cannot be read or listed.
        ImageError: It is no clip.
    """
    pace = DEFAULT_FRAMES_PER_SECOND
    frames: Sequence[tuple[str, int | None]]
    if is_pattern(text, roots) or text.endswith("/") or is_folder(roots.resolve(text)):
        files = list(files_of_folder(text, roots).taken.values())
        count, taken = len(files), files[::every][:limit]
        _check_count(len(taken), count, text)
        frames = [(address, None) for address in taken]
    else:
        address = roots.resolve(text)
        animation = look_at(read_address(address, MAX_FILE_BYTES))
        numbers = range(animation.frames)[::every][:limit]
        _check_count(len(numbers), animation.frames, text)
        _check_pixels(animation, numbers[-1] + 1)
        pace = animation.frames_per_second or pace
        frames = [(address, number) for number in numbers]
    return Frames(tuple(frames), pace / every)


def _check_count(taken: int, found: int, text: str) -> None:
    """Refuse too few and too many frames."""
    if taken < 2:
        received = f"{taken} of {found} in {shown(text)}"
        hint = "correct the path, every or limit" if found else "correct the path"
        raise ImageError("a clip of one frame" if taken else "a clip without frames", received, "2 or more", hint)
    if taken > MAX_FRAMES:
        hint = f"set limit, or every: {-(-taken // MAX_FRAMES)}"
        raise ImageError("too many frames", f"{taken:,} frames", f"at most {MAX_FRAMES:,}", hint)


def _check_pixels(animation: Animation, last: int) -> None:
    """Refuse what takes too long to decode: an animation holds differences, so that no frame can be skipped."""
    if animation.width_px * animation.height_px * last > MAX_CLIP_PIXELS:
        received = f"{animation.width_px} x {animation.height_px} px, {last} frames"
        raise ImageError(
            "clip too large", received, f"at most {MAX_CLIP_PIXELS:,} pixels in all", "reduce it, or set limit"
        )
