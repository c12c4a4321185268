"""What a manifest asks for, by name: prompts where it says nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from blora.settings.resolve import resolve
from manifests.loading.load import load_manifest
from manifests.loading.pictures import check_images
from tasks.planning.identify import identify
from tasks.run.plan import PlannedSample

DEMO = Path(__file__).parents[3] / "manifests" / "examples" / "demo.yaml"


def _samples(text: str, preset: str, **overrides: float) -> tuple[PlannedSample, ...]:
    loaded = load_manifest(text)
    assert loaded.manifest is not None and loaded.faults == ()
    pictures, _ = check_images(loaded.manifest)
    settings = resolve(preset, {f"sample.{name}": value for name, value in overrides.items()})
    return identify(loaded.manifest, pictures, settings, "revision").samples


def _told(folder: Path, *lines: str) -> str:
    """The demo's manifest with more said, beside its pictures."""
    shutil.copytree(DEMO.parent / "pictures", folder / "pictures", dirs_exist_ok=True)
    path = folder / f"{abs(hash(lines))}.yaml"
    path.write_text(DEMO.read_text() + "".join(f"{line}\n" for line in lines))
    return str(path)


@pytest.mark.parametrize(("preset", "prompt"), [("demo", "A [v]"), ("paper", "A [v] in [v] style")])
def test_where_a_manifest_says_nothing_the_preset_says_what_is_drawn(preset: str, prompt: str) -> None:
    assert {sample.prompt for sample in _samples(str(DEMO), preset)} == {prompt}


def test_saying_what_the_preset_says_asks_for_the_same_pictures(tmp_path: Path) -> None:
    silent, spoken, other = (
        {sample.sample_id for sample in _samples(_told(tmp_path, *lines), "demo")}
        for lines in ((), ('prompt: "A [c]"',), ('prompt: "A [c] at night"',))
    )
    assert silent == spoken
    assert not silent & other


def test_strengths_of_the_settings_hold_where_a_manifest_says_none(tmp_path: Path) -> None:
    silent = _samples(_told(tmp_path), "demo", content_strength=0.5, style_strength=1.25)
    assert {(sample.content_strength, sample.style_strength) for sample in silent} == {(0.5, 1.25)}
    said = _samples(_told(tmp_path, "content_strength: 0.5", "style_strength: 1.25"), "demo")
    assert [sample.sample_id for sample in said] == [sample.sample_id for sample in silent]


def test_only_the_strengths_of_a_manifest_are_read_as_the_reference_reads_them(tmp_path: Path) -> None:
    path = _told(tmp_path, "content_strength: 0.5", "strength_reading: reference")
    told = _samples(path, "demo", content_strength=3.0, style_strength=1.5)
    assert {(sample.content_strength, sample.style_strength) for sample in told} == {(0.25, 1.5)}


def test_prompts_of_the_training_that_are_not_read_whole_are_told_where_they_are_cut(tmp_path: Path) -> None:
    path = _told(tmp_path)
    loaded = load_manifest(path)
    assert loaded.manifest is not None
    first, *others = loaded.manifest.contents
    long = first.model_copy(update={"class_word": "very " * 80 + "old dog"})
    manifest = loaded.manifest.model_copy(update={"contents": (long, *others)})
    pictures, _ = check_images(manifest)
    settings = resolve("demo", {"train.prompt": "A [v] " + "small " * 80 + "boat"})
    notes = [str(note) for note in identify(manifest, pictures, settings, "revision").notes]
    assert sum(note.startswith("train.prompt: ") and note.endswith('small boat"') for note in notes) == 1, notes
    assert sum(note.startswith(f"{first.name}: training prompt: ") and "old dog" in note for note in notes) == 1, notes
    assert not identify(loaded.manifest, pictures, resolve("demo"), "revision").notes
