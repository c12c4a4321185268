"""A row with `frames`: a clip, whose frames become contents of their own, `walk 01` to `walk 24`.

Each frame is trained by itself: the content half has no memory of where it was in a clip, so that one adapter of all
frames draws one and the same picture for each of them.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from manifests.errors import ImageError, ManifestsError
from manifests.loading.assemble import Side, default_name
from manifests.loading.clips import Frames, find_frames
from manifests.parsing.fault_list import shown
from manifests.parsing.row_faults import RowFaults
from manifests.schema.entries import FrameOf, ImageEntry
from manifests.schema.rows import ImageRow
from manifests.schema.validate import read_row


def read_clip(values: dict[str, Any], side: Side, faults: RowFaults) -> None:
    """Add the frames of a clip to the contents, or the fault that says why there are none.

    Args:
        values: What the row says.
        side: What it stands among.
        faults: Takes what is wrong with the row.
    """
    if values.get("name") is None:
        values["name"] = _default_name(values["frames"])
    name = str(values["name"])
    row = read_row(ImageRow, values, faults, f"{side.label}s")
    frames = None if row is None or row.frames is None else _find(row, side, faults)
    if row is None or frames is None:
        side.refused.add(name)
        return
    pace = row.frames_per_second or frames.frames_per_second
    said = {"word": row.word, "class_word": row.class_word, "file": faults.file, "row": faults.node.row}
    digits = len(str(len(frames.pictures)))
    entries = [
        ImageEntry(
            name=f"{row.name} {position + 1:0{digits}}",
            images=(address,),
            frame=FrameOf(clip=name, position=position, number=number, frames_per_second=pace),
            **said,
        )
        for position, (address, number) in enumerate(frames.pictures)
    ]
    own = entries[0].model_copy(update={"name": name})
    field = f"{side.label}s.name"
    if not all(side.admits(entry, faults, field, repeats=False) for entry in (own, *entries)):
        side.refused.add(name)
        return
    for entry in entries:
        side.keep(entry)
    side.clips[name] = tuple(entry.name for entry in entries)


def _find(row: ImageRow, side: Side, faults: RowFaults) -> Frames | None:
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


def _default_name(frames: object) -> str:
    """The file name of an animation, or the name of the folder."""
    if not isinstance(frames, str):
        return "clip"
    path = PurePosixPath(frames)
    wild = any(sign in path.name for sign in "*?[")
    return (path.parent.name if wild else default_name(frames)) or "clip"
