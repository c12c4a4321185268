"""Lay a run's pictures out under names that a person reads, and its clips as films."""

from __future__ import annotations

import logging
import shutil
import subprocess
import tempfile
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

from PIL import Image

from manifests import ids, layout
from manifests.store.parallel import in_parallel
from manifests.store.run_folder import RunFolder
from manifests.store.store import Store
from tasks.errors import TaskError
from tasks.figures.clip_sheet import moving
from tasks.pictures import encoded, problem_of
from tasks.planning.clips import PlannedClip, clip_frames, read_clips
from tasks.review.best import choose_of
from tasks.review.decisions import load_marks
from tasks.run.inventory import take_inventory
from tasks.run.plan import Plan, PlannedSample, load_plan

log = logging.getLogger(__name__)

TABLES = (
    "best.parquet",
    "samples.parquet",
    "scores.parquet",
    "adapters.parquet",
    "faults.parquet",
    "notes.parquet",
    "run.json",
    "report/contact_sheet.png",
    "report/strips.png",
    "report/clips.gif",
    "clips.parquet",
)


def export_run(store: Store, run_id: str, folder: str, *, kept: bool = False, best: bool = False) -> tuple[int, int]:
    """Copy pictures, tables and the contact sheet into a folder.

    Args:
        store: the store.
        run_id: the run.
        folder: where to, here or in a bucket. Files of the same names are replaced, others are left alone.
        kept: only the pictures that a review says to keep.
        best: only the best candidate of each picture asked for, by what the store holds now (`tasks.review.best`).

    Returns:
        How many pictures were copied, and how many are missing: not in the store or not to be read, or with `best` not
        to be chosen yet.

    Raises:
        RunNotFound: no such run.
        TaskError: only kept pictures are asked for, and there are none.
    """
    plan = load_plan(store, run_id)
    named = human_names(plan)
    if kept:
        keep = {sample_id for sample_id, mark in load_marks(store, run_id).items() if mark.decision == "keep"}
        named = [(sample, name) for sample, name in named if sample.sample_id in keep]
        if not named:
            raise TaskError(f"no picture of {run_id} is marked keep: mark them on its page (blora report {run_id})")
    unchosen = 0
    if best:
        choices = choose_of(store, plan, take_inventory(store, plan))
        wanted = {choice.chosen.sample_id for choice in choices if choice.chosen}
        unchosen = sum(choice.chosen_by == "none" for choice in choices)
        named = [(sample, name) for sample, name in named if sample.sample_id in wanted]
    target = Store.open(folder)
    run = RunFolder(store, run_id)
    places = {run.key(name): name.rpartition("/")[2] for name in TABLES}
    in_parallel(store, partial(_copy, store, target, places), list(places))  # a run that has not ended yet has none
    pictures = {sample.key: name for sample, name in named}
    copied = sum(in_parallel(store, partial(_copy, store, target, pictures), list(pictures)))
    return copied, len(named) - copied + (0 if kept else unchosen)


def _copy(store: Store, target: Store, places: Mapping[str, str], key: str) -> bool:
    """Copy an object to its place; False where it is missing, or a picture that cannot be read."""
    if (data := store.find(key)) is None:
        return False
    if key.startswith(layout.SAMPLES_PREFIX) and (problem := problem_of(data)):
        log.warning("%s/%s is no picture (%s): left out; blora rerun draws it again", store.root, key, problem)
        return False
    target.replace(places[key], data)
    return True


def human_names(plan: Plan) -> list[tuple[PlannedSample, str]]:
    """``content__style__seed.png`` for every sample; a second one of that name gets a tail of its id."""
    taken: set[str] = set()
    named: list[tuple[PlannedSample, str]] = []
    for sample in plan.samples:
        stem = f"{ids.slug(sample.content_name)}__{ids.slug(sample.style_name)}__{sample.seed}"
        if stem in taken:
            stem += f"__{sample.sample_id[:8]}"
        taken.add(stem)
        named.append((sample, f"{stem}.png"))
    return named


def export_clips(store: Store, run_id: str, folder: str, *, kept: bool = False) -> list[str]:
    """Write each clip of a run that is whole as an endless GIF, ``clip__style__seed.gif``.

    Args:
        store: the store.
        run_id: the run.
        folder: where to, here or in a bucket; made if it is not there.
        kept: only clips of which a review says to keep every frame.

    Returns:
        The files that were written.
    """
    target = Store.open(folder)
    written = []
    marks = load_marks(store, run_id) if kept else {}
    keep = {sample_id for sample_id, mark in marks.items() if mark.decision == "keep"}
    for clip, stem in named_clips(read_clips(store, run_id)):
        if kept and not {frame.sample_id for frame in clip.frames} <= keep:
            continue
        frames = clip_frames(store, clip)
        if len(frames) == len(clip.frames):
            target.replace(f"{stem}.gif", moving(frames, clip.frames_per_second))
            written.append(f"{target.root}/{stem}.gif")
    return written


def export_films(store: Store, run_id: str, folder: str, names: Collection[str]) -> list[str]:
    """Write clips also as MP4 (H.264), beside their GIFs, with the program ffmpeg.

    Args:
        store: the store.
        run_id: the run.
        folder: where to, here or in a bucket.
        names: the GIFs that were written, by whatever path.

    Returns:
        The files that were written.

    Raises:
        FilmError: there is no ffmpeg on this machine, or it fails.
    """
    program = shutil.which("ffmpeg")
    if program is None:
        raise FilmError("no MP4: there is no program ffmpeg on this machine; the GIFs are written")
    stems = {PurePosixPath(name).stem for name in names}
    target = Store.open(folder)
    written = []
    for clip, stem in named_clips(read_clips(store, run_id)):
        if stem in stems:
            target.replace(f"{stem}.mp4", _film(program, clip_frames(store, clip), clip.frames_per_second, stem))
            written.append(f"{target.root}/{stem}.mp4")
    return written


class FilmError(TaskError):
    """A clip could not be written as MP4."""


def named_clips(clips: Sequence[PlannedClip]) -> list[tuple[PlannedClip, str]]:
    """``clip__style__seed`` for every clip; a second one of that name gets a tail of its first frame's id."""
    taken: set[str] = set()
    named = []
    for clip in clips:
        stem = f"{ids.slug(clip.name)}__{ids.slug(clip.style_name)}__{clip.seed}"
        if stem in taken:
            stem += f"__{clip.frames[0].sample_id[:8]}"
        taken.add(stem)
        named.append((clip, stem))
    return named


def _film(program: str, frames: Sequence[Image.Image], frames_per_second: float, name: str) -> bytes:
    """Hand frames to ffmpeg as a row of PNGs; sides are made even, which H.264 in 4:2:0 needs."""
    even = "scale=trunc(iw/2)*2:trunc(ih/2)*2"
    command = [program, "-y", "-loglevel", "error", "-f", "image2pipe", "-framerate", f"{frames_per_second:.6g}"]
    command += [
        "-c:v",
        "png",
        "-i",
        "-",
        "-vf",
        even,
        "-c:v",
        "libx264",
        "-pix_fmt",
        "yuv420p",
        "-movflags",
        "+faststart",
    ]
    with tempfile.TemporaryDirectory() as scratch:  # its index goes to the head of the file, which no pipe allows
        path = Path(scratch) / "film.mp4"
        pictures = b"".join(map(encoded, frames))
        done = subprocess.run([*command, str(path)], input=pictures, capture_output=True, check=False)
        if not done.returncode:
            return path.read_bytes()
    raise FilmError(f"ffmpeg could not write {name}.mp4: {done.stderr.decode(errors='replace').strip()[-300:]}")
