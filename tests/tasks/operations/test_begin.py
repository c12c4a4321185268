"""`blora init`: what it writes validates, from wherever and wherever to."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli.main import app
from manifests.loading.load import load_manifest
from tests.manifests.loading.test_clip_names import picture


@pytest.fixture
def day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with photos, looks and what else lies there, in which the process is."""
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(
        ("photos/p2.png", "photos/p10.png", "photos/true [1].png", "photos/p2.jpg", "l/w.png")
    ):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_bytes(picture(number))
    Path("photos/twin.png").write_bytes(picture(0))
    Path("photos/torn.png").write_bytes(picture(9)[:60])
    Path("photos/IMG_1.HEIC").write_bytes(b"photo")
    return tmp_path


def blora(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, arguments)
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.parametrize("out", ["night.yaml", "nights/one.yaml"])
def test_what_init_writes_validates(day: Path, out: str) -> None:
    Path(out).parent.mkdir(exist_ok=True)
    code, printed, told = blora("init", "--contents", "photos", "--styles", "l/*.png", "--out", out)
    assert (code, printed) == (0, ""), told
    assert "IMG_1.HEIC in 'photos'" in told and "torn.png" in told and "twin.png: the same picture" in told
    assert "4 contents, 1 style, 4 pictures; 1 file left out" in told
    next_command = told.splitlines()[-1].removeprefix("next: blora plan ").split()
    assert next_command[0] == out
    assert blora("validate", *next_command)[:2] == (0, "4 contents, 1 style, 4 pairs, 4 pictures, 0 faults\n")
    manifest = load_manifest(out, allowed_roots=next_command[2::2]).manifest
    assert manifest and [one.name for one in manifest.contents] == ["p2.jpg", "p2.png", "p10", "true [1]"]
    assert blora("init", "--contents", "photos", "--styles", "l", "--out", out)[0] == 2  # nothing is written over


def test_base_and_preset_are_written_and_paths_on_standard_output_are_of_this_folder(day: Path) -> None:
    code, printed, told = blora("init", "--contents", "photos/p2.*", "--styles", "l", "--base", "sdxl")
    assert code == 0, told
    Path("night.yaml").write_text(printed)
    manifest = load_manifest("night.yaml").manifest
    assert manifest and (manifest.base, manifest.preset) == ("sdxl", "paper")
    assert "image: photos/p2.jpg" in printed


@pytest.mark.parametrize("arguments", [("nowhere/", "l"), ("photos/*.gif", "l"), ("photos", "l", "--base", "nothing")])
def test_nothing_is_written_where_the_manifest_would_be_refused(day: Path, arguments: tuple[str, ...]) -> None:
    contents, styles, *more = arguments
    code, printed, told = blora("init", "--contents", contents, "--styles", styles, *more, "--out", "night.yaml")
    assert code in (1, 2) and not printed and told and not Path("night.yaml").exists()


@pytest.mark.parametrize(
    ("command", "subject"),
    [
        ("validate", "photos"),
        ("validate", "photos/"),
        ("validate", "photos/p2.png"),
        ("plan", "photos"),
        ("run", "photos"),
    ],
)
def test_pictures_in_place_of_a_manifest_are_told_of_init(day: Path, command: str, subject: str) -> None:
    code, _, told = blora(command, subject)
    assert code == 1 and f"blora init --contents {subject} --styles" in told
