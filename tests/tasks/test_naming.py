"""What a manifest asks for, by name: prompts where it says nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from blora.config import resolve
from manifests.checks import check_images
from manifests.schema import load_manifest
from tasks.naming import Naming
from tasks.runs import PlannedSample

DEMO = Path(__file__).parents[2] / "manifests" / "examples" / "demo.yaml"


def _samples(text: str, preset: str) -> tuple[PlannedSample, ...]:
    loaded = load_manifest(text)
    assert loaded.manifest is not None and loaded.faults == ()
    pictures, _ = check_images(loaded.manifest)
    return Naming(loaded.manifest, pictures, resolve(preset), "revision").samples


@pytest.mark.parametrize(("preset", "prompt"), [("demo", "A [v]"), ("paper", "A [v] in [v] style")])
def test_where_a_manifest_says_nothing_the_preset_says_what_is_drawn(preset: str, prompt: str) -> None:
    assert {sample.prompt for sample in _samples(str(DEMO), preset)} == {prompt}


def test_saying_what_the_preset_says_asks_for_the_same_pictures(tmp_path: Path) -> None:
    shutil.copytree(DEMO.parent / "pictures", tmp_path / "pictures")
    said = DEMO.read_text()
    (tmp_path / "silent.yaml").write_text(said)
    (tmp_path / "said.yaml").write_text(said + 'prompt: "A [c]"\n')
    (tmp_path / "other.yaml").write_text(said + 'prompt: "A [c] at night"\n')
    silent, spoken, other = (
        {sample.sample_id for sample in _samples(str(tmp_path / f"{name}.yaml"), "demo")}
        for name in ("silent", "said", "other")
    )
    assert silent == spoken
    assert not silent & other
