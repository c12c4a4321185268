"""Clips: frames in one style, measured (``clips.parquet``) and ready to deliver; `tasks.figures` shows them moving.

Which pictures belong to which clip is written beside the plan (``clips.json``): one picture may be several frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image

from blora.metrics.steadiness import VERSION, steadiness
from manifests import layout
from manifests.schema.entries import ImageEntry, PairEntry, content_parts
from manifests.store.parallel import in_parallel
from manifests.store.run_folder import RunFolder
from manifests.store.store import Store
from manifests.tables.run import CLIPS_FILE
from tasks.pictures import decoded
from tasks.run.plan import PlannedSample

_SAID = (
    *("style_name", "seed", "prompt", "content_prompt", "negative_prompt", "content_strength", "style_strength"),
    *("colour_of", "colour_by", "colour_amount"),
)


@dataclass(frozen=True)
class PlannedFrame:
    """One frame: the picture that is drawn, and where its source lies in the store."""

    position: int
    sample_id: str
    key: str
    source_key: str


@dataclass(frozen=True)
class PlannedClip:
    """A clip in one style with one seed.

    Attributes:
        name: the user's name of the clip.
        style_name: of its style, or the prompt that says it.
        prompt: with which it is drawn.
        seed: of all its frames: the same noise, so that frames differ by what their adapters differ in.
        frames_per_second: at which it plays.
        frames: in order.
    """

    name: str
    style_name: str
    prompt: str
    seed: int
    frames_per_second: float
    frames: tuple[PlannedFrame, ...]


def clips_of(
    drawn: Sequence[tuple[PairEntry, PlannedSample]],
    contents: Mapping[str, ImageEntry],
    image_ids: Mapping[str, str],
) -> tuple[PlannedClip, ...]:
    """Gather the clips of a manifest.

    Args:
        drawn: each pair with each of its samples.
        contents: the contents by name.
        image_ids: of the contents that are frames, by name.
    """
    groups: dict[tuple[Any, ...], list[PlannedFrame]] = {}
    firsts: list[PlannedSample] = []
    for pair, sample in drawn:
        parts = content_parts(pair)
        for part in parts:
            frame = contents[part.name].frame
            if frame is None:
                continue
            others = tuple(other for other in parts if other.name != part.name)
            said = (getattr(sample, name) for name in _SAID)
            key = (frame.clip, frame.frames_per_second, pair.row, part.weight, others, *said)
            if key not in groups:
                firsts.append(sample)
            source = layout.image_key(image_ids[part.name])
            groups.setdefault(key, []).append(PlannedFrame(frame.position, sample.sample_id, sample.key, source))
    return tuple(
        PlannedClip(
            name,
            first.style_name,
            first.prompt,
            first.seed,
            pace,
            tuple(sorted(frames, key=lambda frame: frame.position)),
        )
        for ((name, pace, *_), frames), first in zip(groups.items(), firsts, strict=True)
    )


def write_clips(store: Store, run_id: str, clips: Sequence[PlannedClip]) -> None:
    """Keep a run's clips beside its plan; nothing where it has none."""
    if clips:
        RunFolder(store, run_id).write_json_once("clips.json", [asdict(clip) for clip in clips])


def read_clips(store: Store, run_id: str) -> tuple[PlannedClip, ...]:
    """Read back what `write_clips` wrote; nothing where a run has no clips."""
    rows = RunFolder(store, run_id).find_json("clips.json") or []
    return tuple(
        PlannedClip(**row | {"frames": tuple(PlannedFrame(**frame) for frame in row["frames"])}) for row in rows
    )


def measure_clips(store: Store, run_id: str, clips: Sequence[PlannedClip]) -> list[dict[str, Any]]:
    """The rows of table ``clips``; numbers are of the frames that are there, and null where these are too few."""
    return [_measured(store, run_id, clip) for clip in clips]


def _measured(store: Store, run_id: str, clip: PlannedClip) -> dict[str, Any]:
    pictures = in_parallel(store, store.find, [frame.key for frame in clip.frames])
    there = [(data, frame.source_key) for frame, data in zip(clip.frames, pictures, strict=True) if data is not None]
    drawn = [_pixels(data) for data, _ in there]
    sources = [_pixels(data) for data in in_parallel(store, store.read, [key for _, key in there])]
    measured = vars(steadiness(drawn, sources)) if len(drawn) > 1 else {}
    numbers = ("drawn_change", "source_change", "flicker_ratio", "motion_correlation")
    return {name: measured.get(name) for name in numbers} | {
        "run_id": run_id,
        "clip_name": clip.name,
        "style_name": clip.style_name,
        "prompt": clip.prompt,
        "seed": clip.seed,
        "frames": len(clip.frames),
        "frames_drawn": len(drawn),
        "frames_per_second": clip.frames_per_second,
        "measure_version": VERSION,
    }


def load_measures(store: Store, run_id: str) -> list[dict[str, Any]]:
    """The table ``clips`` of a run; nothing where it has none."""
    return RunFolder(store, run_id).rows(CLIPS_FILE)


def clip_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The table ``clips`` for people, a line a clip."""
    lines = []
    for row in rows:
        told = f"{row['clip_name']} x {row['style_name']}, seed {row['seed']}: "
        told += f"{row['frames_drawn']} of {row['frames']} frames"
        if row["flicker_ratio"] is not None:
            told += f", flicker ratio {row['flicker_ratio']:.2f} (1: as the source)"
        if row["motion_correlation"] is not None:
            told += f", motion correlation {row['motion_correlation']:.2f}"
        lines.append(told)
    return lines


def clip_frames(store: Store, clip: PlannedClip) -> list[Image.Image]:
    """The frames of a clip that are there, in order."""
    pictures = in_parallel(store, store.find, [frame.key for frame in clip.frames])
    return [decoded(data) for data in pictures if data is not None]


def _pixels(data: bytes) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.asarray(decoded(data))
