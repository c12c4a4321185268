"""Clips of a run: which pictures belong together, the moving sheet, the table, and what an export delivers."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from flows.cli.main import app
from manifests.loading.load import parse_manifest
from manifests.store.store import Store
from manifests.tables.run import CLIPS
from tasks.closing.export import FilmError, export_clips, export_films
from tasks.figures.clip_sheet import moving
from tasks.planning.clips import clip_lines, clips_of, load_measures, read_clips
from tasks.planning.make import make_plan, publish
from tasks.run.plan import Plan
from tests.made_run import finish, png

COUNT = 4


def folder_of(root: Path) -> Path:
    """A clip of files, with its last frame twice, and two styles."""
    folder = root / "inputs"
    (folder / "walk").mkdir(parents=True, exist_ok=True)
    for number in range(COUNT):
        (folder / "walk" / f"{number}.png").write_bytes(png(min(number, COUNT - 2)))
    for number, name in enumerate(("gold", "ink")):
        (folder / f"{name}.png").write_bytes(png(100 + number))
    return folder


def planned(root: Path, **more: Any) -> tuple[Store, Plan]:
    folder = folder_of(root)
    document = {"contents": [{"frames": "walk", "frames_per_second": 5}], "styles": ["gold.png", "ink.png"]} | more
    loaded = parse_manifest(document, "json", "inline", (str(folder),))
    assert not loaded.faults, loaded.faults
    store = Store.open(str(root / "store"))
    return store, publish(store, make_plan(store, loaded))


def frames_of(data: bytes) -> list[np.ndarray[Any, Any]]:
    with Image.open(io.BytesIO(data)) as film:
        return [np.asarray((film.seek(n), film.convert("RGB"))[1], np.int16) for n in range(film.n_frames)]


def test_frames_of_one_style_and_seed_are_a_clip(tmp_path: Path) -> None:
    store, plan = planned(tmp_path, seeds=[0, 7])
    clips = read_clips(store, plan.run.run_id)
    assert [(clip.name, clip.style_name, clip.seed) for clip in clips] == [
        ("walk", style, seed) for style in ("gold", "ink") for seed in (0, 7)
    ]
    by_id = {sample.sample_id: sample for sample in plan.samples}
    for clip in clips:
        assert [frame.position for frame in clip.frames] == list(range(COUNT)) and clip.frames_per_second == 5
        told = [by_id[frame.sample_id] for frame in clip.frames]
        assert {(one.style_name, one.seed) for one in told} == {(clip.style_name, clip.seed)}
        sources = [f"images/{plan.adapter(one.content_id).image_ids[0]}.png" for one in told]
        assert sources == [frame.source_key for frame in clip.frames]
        assert clip.frames[2].sample_id == clip.frames[3].sample_id, "equal frames are one picture, shown twice"
    assert len(plan.samples) == 3 * 4 and len(plan.adapters) == 3 + 2
    assert {sample.content_name for sample in plan.samples} == {"walk 1", "walk 2", "walk 3"}


def test_steps_of_a_sweep_and_mixes_are_clips_of_their_own(tmp_path: Path) -> None:
    pairs = [
        {"content": "walk", "style": "gold", "sweep": {"style_strength": [0.5, 1]}},
        {"content": "walk", "style": "gold", "own_style": 0.4},
        {"content": {"walk": 0.6, "still": 0.4}, "style": "gold"},
        {"content": {"walk": 0.8, "still": 0.4}, "style": "gold"},
        {"content": "still", "style": "gold"},
    ]
    contents = [{"frames": "walk"}, {"image": "ink.png", "name": "still"}]
    store, plan = planned(tmp_path, contents=contents, pairs=pairs)
    clips = read_clips(store, plan.run.run_id)
    assert [len(clip.frames) for clip in clips] == [COUNT] * 5
    strengths = [{s.style_strength for s in plan.samples if s.sample_id == c.frames[0].sample_id} for c in clips[:2]]
    assert strengths == [{0.5}, {1.0}]
    assert clips[2].style_name == "gold + own 0.4"


def test_a_closed_run_has_a_table_and_a_moving_sheet(tmp_path: Path) -> None:
    store, plan = planned(tmp_path)
    finish(store, plan)
    rows = load_measures(store, plan.run.run_id)
    assert [row["style_name"] for row in rows] == ["gold", "ink"] and set(rows[0]) == set(CLIPS.names)
    for row in rows:
        assert (row["frames"], row["frames_drawn"], row["frames_per_second"]) == (COUNT, COUNT, 5.0)
        assert row["flicker_ratio"] == pytest.approx(row["drawn_change"] / row["source_change"])
        assert -1 <= row["motion_correlation"] <= 1
    assert f"flicker ratio {rows[0]['flicker_ratio']:.2f}" in clip_lines(rows)[0]
    sheet = frames_of(store.read(f"runs/{plan.run.run_id}/report/clips.gif"))
    assert sheet[0].shape == (6 + 184, 6 + 3 * 166, 3), "the source and two styles"
    assert np.abs(sheet[0] - sheet[1])[:166, :166].max() > 20, "the source moves"
    assert np.abs(sheet[0] - sheet[1])[:166, 172:332].max() > 20, "and so does what is drawn"


def test_a_run_without_a_clip_has_neither(tmp_path: Path) -> None:
    store, plan = planned(tmp_path, contents=["ink.png"])
    finish(store, plan)
    assert read_clips(store, plan.run.run_id) == () and load_measures(store, plan.run.run_id) == []
    assert not [key for key in store.list(f"runs/{plan.run.run_id}") if "clips" in key]
    assert clips_of([], {}, {}) == ()
    assert export_clips(store, plan.run.run_id, str(tmp_path / "out")) == []


def test_a_missing_frame_is_counted_and_keeps_the_clip_from_being_delivered(tmp_path: Path) -> None:
    store, plan = planned(tmp_path)
    finish(store, plan, missing=[0])
    gone = plan.samples[0]
    rows = {row["style_name"]: row for row in load_measures(store, plan.run.run_id)}
    assert rows[gone.style_name]["frames_drawn"] == COUNT - 1
    assert [Path(one).name for one in export_clips(store, plan.run.run_id, str(tmp_path / "out"))] == [
        f"walk__{'ink' if gone.style_name == 'gold' else 'gold'}__0.gif"
    ]


def test_an_exported_clip_shows_its_frames_at_its_pace(tmp_path: Path) -> None:
    store, plan = planned(tmp_path)
    finish(store, plan)
    names = export_clips(store, plan.run.run_id, str(tmp_path / "out"))
    assert [Path(name).name for name in names] == ["walk__gold__0.gif", "walk__ink__0.gif"]
    clip = read_clips(store, plan.run.run_id)[0]
    with Image.open(names[0]) as film:
        shown = [film.seek(n) or film.info["duration"] for n in range(film.n_frames)]
        assert film.info["loop"] == 0 and sum(shown) == COUNT * 200
    drawn = [np.asarray(Image.open(io.BytesIO(store.read(f.key))).convert("RGB"), np.int16) for f in clip.frames[:3]]
    for got, wanted in zip(frames_of(Path(names[0]).read_bytes()), drawn, strict=True):  # the fourth is the third
        assert np.abs(got - wanted).max() <= 8
    marked = export_clips(store, plan.run.run_id, str(tmp_path / "kept"), kept=True)
    assert marked == [], "no frame is marked keep"


def test_colours_of_a_still_paper_do_not_jump(tmp_path: Path) -> None:
    """One palette for all frames: what does not change between frames does not change in the film."""
    rng = np.random.default_rng(0)
    still = rng.integers(0, 256, (32, 32, 3), np.uint8)
    pictures = []
    for number in range(6):
        frame = still.copy()
        frame[:, 5 * number : 5 * number + 4] = rng.integers(0, 256, 3)
        pictures.append(Image.fromarray(frame))
    got = frames_of(moving(pictures, 10))
    assert len(got) == 6
    for one, other in zip(range(5), range(1, 6), strict=True):
        same = (np.asarray(pictures[one]) == np.asarray(pictures[other])).all(axis=2)
        assert np.array_equal(got[one][same], got[other][same])


def test_without_ffmpeg_an_mp4_is_said_to_be_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    store, plan = planned(tmp_path)
    finish(store, plan)
    monkeypatch.setenv("PATH", str(tmp_path))
    arguments = ["export", plan.run.run_id, str(tmp_path / "out"), "--mp4", "--root", store.root]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.stderr
    assert "no MP4: there is no program ffmpeg on this machine" in result.stderr
    assert {path.suffix for path in (tmp_path / "out").glob("walk__*__0.*")} == {".gif"}


def test_what_ffmpeg_says_of_a_failure_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, plan = planned(tmp_path)
    finish(store, plan)
    program = tmp_path / "bin" / "ffmpeg"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho 'no such encoder' >&2\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/bin:/usr/bin")
    names = export_clips(store, plan.run.run_id, str(tmp_path / "out"))
    with pytest.raises(FilmError, match="no such encoder"):
        export_films(store, plan.run.run_id, str(tmp_path / "out"), names)


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
def test_an_mp4_has_the_frames_of_the_clip(tmp_path: Path) -> None:
    import subprocess

    store, plan = planned(tmp_path)
    finish(store, plan)
    names = export_clips(store, plan.run.run_id, str(tmp_path / "out"))
    films = export_films(store, plan.run.run_id, str(tmp_path / "out"), names)
    assert [Path(film).name for film in films] == ["walk__gold__0.mp4", "walk__ink__0.mp4"]
    read = ["ffmpeg", "-loglevel", "error", "-i", films[0], "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    raw = subprocess.run(read, capture_output=True, check=True).stdout
    got = np.frombuffer(raw, np.uint8).reshape(-1, 64, 64, 3).astype(np.int16)
    clip = read_clips(store, plan.run.run_id)[0]
    assert len(got) == COUNT
    for frame, shown in zip(clip.frames, got, strict=True):
        drawn = np.asarray(Image.open(io.BytesIO(store.read(frame.key))).convert("RGB"), np.int16)
        assert np.abs(shown - drawn).mean() < 12  # colours are stored at half the resolution
