"""Clips: frames in one style, moving (``report/clips.gif``), measured (``clips.parquet``) and ready to deliver.

Which pictures belong to which clip is written beside the plan (``clips.json``): one picture may be several frames.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from blora.metrics.steadiness import VERSION, steadiness
from manifests import layout
from manifests.schema.entries import ImageEntry, PairEntry, content_parts
from manifests.store.parallel import in_parallel
from manifests.store.run_folder import find_table
from manifests.store.store import Store
from manifests.tables.run import CLIPS
from tasks.contact_sheet import CELL_PX, GAP_PX, INK, LABEL_PX, PAPER, RULE, fit
from tasks.runs import PlannedSample

MOST_COLUMNS = 6
"""Styles of one clip on the moving sheet."""

MOST_ROWS = 6
"""Clips on the moving sheet, evenly taken from all; `blora export` has every one of them."""

_SAID = (
    *("style_name", "seed", "prompt", "content_prompt", "negative_prompt", "content_strength", "style_strength"),
    *("colour_of", "colour_by", "colour_amount"),
)


@dataclass(frozen=True)
class Frame:
    """One frame: the picture that is drawn, and where its source lies in the store."""

    position: int
    sample_id: str
    key: str
    source_key: str


@dataclass(frozen=True)
class Clip:
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
    frames: tuple[Frame, ...]


def clips_of(
    drawn: Sequence[tuple[PairEntry, PlannedSample]],
    contents: Mapping[str, ImageEntry],
    image_ids: Mapping[str, str],
) -> tuple[Clip, ...]:
    """Gather the clips of a manifest.

    Args:
        drawn: each pair with each of its samples.
        contents: the contents by name.
        image_ids: of the contents that are frames, by name.
    """
    groups: dict[tuple[Any, ...], list[Frame]] = {}
    firsts: list[PlannedSample] = []
    for pair, sample in drawn:
        parts = content_parts(pair)
        for part in parts:
            frame = contents[part.name].frame
            if frame is None:
                continue
            others = tuple(one for one in parts if one.name != part.name)
            said = (getattr(sample, name) for name in _SAID)
            key = (frame.clip, frame.frames_per_second, pair.row, part.weight, others, *said)
            if key not in groups:
                firsts.append(sample)
            source = layout.image_key(image_ids[part.name])
            groups.setdefault(key, []).append(Frame(frame.position, sample.sample_id, sample.key, source))
    return tuple(
        Clip(
            name,
            first.style_name,
            first.prompt,
            first.seed,
            pace,
            tuple(sorted(frames, key=lambda frame: frame.position)),
        )
        for ((name, pace, *_), frames), first in zip(groups.items(), firsts, strict=True)
    )


def write_clips(store: Store, run_id: str, clips: Sequence[Clip]) -> None:
    """Keep a run's clips beside its plan; nothing where it has none."""
    if clips:
        body = json.dumps([asdict(clip) for clip in clips], indent=1, ensure_ascii=False)
        store.write_once(layout.run_key(run_id, "clips.json"), body.encode())


def read_clips(store: Store, run_id: str) -> tuple[Clip, ...]:
    """Read back what `write_clips` wrote; nothing where a run has no clips."""
    rows = json.loads(store.find(layout.run_key(run_id, "clips.json")) or "[]")
    return tuple(Clip(**row | {"frames": tuple(Frame(**frame) for frame in row["frames"])}) for row in rows)


def measure_clips(store: Store, run_id: str, clips: Sequence[Clip]) -> list[dict[str, Any]]:
    """The rows of table ``clips``; numbers are of the frames that are there, and null where these are too few."""
    return [_measured(store, run_id, clip) for clip in clips]


def _measured(store: Store, run_id: str, clip: Clip) -> dict[str, Any]:
    pictures = in_parallel(store, store.find, [frame.key for frame in clip.frames])
    drawn, sources = [], []
    for frame, data in zip(clip.frames, pictures, strict=True):
        if data is not None:
            drawn.append(_pixels(data))
            sources.append(_pixels(store.read(frame.source_key)))
    found = vars(steadiness(drawn, sources)) if len(drawn) > 1 else {}
    numbers = ("drawn_change", "source_change", "flicker_ratio", "motion_correlation")
    return {name: found.get(name) for name in numbers} | {
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
    return list(find_table(store, layout.run_key(run_id, "clips.parquet"), CLIPS).to_pylist())


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


def clip_frames(store: Store, clip: Clip) -> list[Image.Image]:
    """The frames of a clip that are there, in order."""
    found = in_parallel(store, store.find, [frame.key for frame in clip.frames])
    return [Image.fromarray(_pixels(data)) for data in found if data is not None]


def draw_clips(store: Store, clips: Sequence[Clip]) -> bytes:
    """A moving sheet: a row for each clip, its source first, then it in its styles; a missing frame holds the last one.

    Returns:
        An animated GIF, at the pace of the first clip; shorter clips start again.
    """
    rows: dict[str, list[Clip]] = {}
    for clip in clips:
        rows.setdefault(clip.name, []).append(clip)
    names = list(rows)[:: max(1, -(-len(rows) // MOST_ROWS))]
    columns = 1 + max(min(len(rows[name]), MOST_COLUMNS) for name in names)
    pitch_x, pitch_y = CELL_PX + GAP_PX, CELL_PX + GAP_PX + LABEL_PX
    count = max(len(rows[name][0].frames) for name in names)
    sheet = Image.new("RGB", (GAP_PX + columns * pitch_x, GAP_PX + len(names) * pitch_y), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=12)
    sheets = []
    cells: list[tuple[tuple[int, int], list[bytes | None]]] = []
    for row, name in enumerate(names):
        sources = [frame.source_key for frame in rows[name][0].frames]
        shown = [(name, sources)]
        for clip in rows[name][:MOST_COLUMNS]:
            label = clip.style_name + (f", seed {clip.seed}" if len({c.seed for c in rows[name]}) > 1 else "")
            shown.append((label, [frame.key for frame in clip.frames]))
        for column, (label, keys) in enumerate(shown):
            place = GAP_PX + column * pitch_x, GAP_PX + row * pitch_y
            draw.rectangle((*place, place[0] + CELL_PX, place[1] + CELL_PX), outline=RULE)
            draw.text((place[0] + 2, place[1] + CELL_PX + 2), label[:24], fill=INK, font=font)
            cells.append((place, in_parallel(store, store.find, keys)))
    for number in range(count):
        for place, pictures in cells:
            data = pictures[number % len(pictures)]
            if data is not None:
                sheet.paste(fit(data), place)
        sheets.append(sheet.copy())
    return moving(sheets, clips[0].frames_per_second)


def moving(frames: Sequence[Image.Image], frames_per_second: float) -> bytes:
    """Frames as an endless animated GIF, with one palette for all of them, so that colours do not jump.

    GIF counts time in hundredths of a second: other paces are rounded.
    """
    width, height = frames[0].size
    side = max(1, int(len(frames) ** 0.5))
    montage = Image.new("RGB", (width * side, height * -(-len(frames) // side)))
    for number, frame in enumerate(frames):
        montage.paste(frame, (number % side * width, number // side * height))
    montage.thumbnail((2048, 2048))
    palette = montage.quantize(256)
    told = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    buffer = io.BytesIO()
    shown_ms = max(20, round(100 / frames_per_second) * 10)  # players slow shorter ones down
    told[0].save(
        buffer, format="GIF", save_all=True, append_images=told[1:], duration=shown_ms, loop=0, disposal=1,
        optimize=False,
    )  # fmt: skip
    return buffer.getvalue()


def _pixels(data: bytes) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
