"""Which base a run works with, what is told where it does not fit the settings, and that known runs keep their ids."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from blora.bases.spec import KNOWN
from blora.settings.resolve import resolve
from manifests.loading.load import Loaded, parse_manifest
from manifests.store.store import Store
from tasks.bases import base_notes, with_base
from tasks.planning.make import make_plan
from tests.made_run import png

SDXL = KNOWN["sdxl"].text


def loaded(folder: Path, **said: object) -> Loaded:
    """A manifest of one pair."""
    for name in ("a.png", "b.png"):
        (folder / name).write_bytes(png(ord(name[0])))
    return parse_manifest({"contents": ["a.png"], "styles": ["b.png"], **said}, "json", "inline", (str(folder),))


@pytest.mark.parametrize(
    ("said", "base", "preset", "expected"),
    [
        ({}, "", None, "embedded"),
        ({"preset": "paper"}, "", None, SDXL),
        ({}, "", "fast", SDXL),
        ({"preset": "paper"}, "", "demo", "embedded"),
        ({"preset": "paper", "base": "embedded"}, "", None, "embedded"),
        ({"base": "sdxl"}, "", None, SDXL),
        ({"base": "embedded"}, "sdxl", None, SDXL),
        ({"base": {"model": "sdxl+fp16vae"}}, "", None, KNOWN["sdxl+fp16vae"].text),
    ],
)
def test_a_base_is_what_is_asked_for_else_the_manifests_else_the_presets(
    tmp_path: Path, said: dict[str, object], base: str, preset: str | None, expected: str
) -> None:
    manifest = with_base(loaded(tmp_path, **said), base, preset).manifest
    assert manifest is not None and manifest.base == expected


def test_paths_of_the_command_line_are_those_of_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for file in ("here/x.safetensors", "l.safetensors"):
        (tmp_path / file).touch()
    parts = {"model": "x.safetensors", "vae": "s3://bucket/vae", "fuse": [{"lora": "../l.safetensors", "weight": 0.5}]}
    manifest = with_base(loaded(tmp_path), json.dumps(parts)).manifest
    assert manifest is not None
    told = json.loads(manifest.base)
    missing = with_base(loaded(tmp_path), "org/model@main").manifest
    assert missing is not None and missing.base == "org/model@main", "whoever looks for it says what is wrong"
    assert told["model"] == str(tmp_path / "here" / "x.safetensors") and told["vae"] == "s3://bucket/vae"
    assert told["fuse"] == [{"lora": f"{tmp_path}/here/../l.safetensors", "weight": 0.5}]


@pytest.mark.parametrize(
    ("base", "preset", "message"),
    [
        ("embedded", "demo", ""),
        ("embedded", "paper", "made for 128 px and is asked for 1024.*--base sdxl"),
        ("sdxl", "paper", ""),
        ("sdxl", "demo", "SDXL was made for 1024 px and is asked for 128"),
        ("sdxl", "fast", "8 steps without guidance expect a few-step base.*sdxl.lightning8"),
        ("sdxl+lightning8", "fast", ""),
    ],
)
def test_what_does_not_fit_is_told_before_hours_are_spent(tmp_path: Path, base: str, preset: str, message: str) -> None:
    chosen = with_base(loaded(tmp_path, base=base, preset=preset))
    assert chosen.manifest is not None
    notes = [str(note) for note in base_notes(chosen.manifest, resolve(preset))]
    assert len(notes) == bool(message) and all(re.search(message, note) for note in notes)
    draft = make_plan(Store.open(str(tmp_path / "store")), chosen)
    assert [str(note) for note in draft.notes if str(note) in notes] == notes, "the plan tells them, too"


def test_pictures_far_below_the_resolution_and_prompts_without_the_content_are_told(tmp_path: Path) -> None:
    small, plain = {"train": {"resolution_px": 512}}, {"sample": {"prompt": "a drawing"}}
    notes = [
        " ".join(str(note) for note in make_plan(Store.open(str(tmp_path)), loaded(tmp_path, settings=said)).notes)
        for said in (small, plain, {})
    ]
    assert "a: 64 x 64 px, far below the 512 px" in notes[0] and "far below" not in notes[1]
    assert 'sample.prompt "a drawing" without [c]' in notes[1] and "without [c]" not in notes[0] + notes[2]


def test_names_and_commits_are_one_run_and_settings_of_the_scheduler_make_another(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"))

    def run_id(**said: object) -> str:
        return make_plan(store, loaded(tmp_path, preset="paper", **said)).plan.run.run_id

    assert run_id() == run_id(base="sdxl") == run_id(base=SDXL) != run_id(base="sdxl+fp16vae")
    assert run_id() == run_id(settings={"sample": {"scheduler_options": {}}})
    assert run_id() != run_id(settings={"sample": {"scheduler_options": {"use_karras_sigmas": True}}})
