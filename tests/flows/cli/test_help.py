"""What the command says of itself: versions, panels, kinds of values, completion, presets and settings."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from typer.testing import CliRunner

import blora
from blora.errors import SettingsError
from blora.settings.catalogue import catalogue
from flows.cli.main import app
from manifests.schema.fields import PresetName
from tests.documents import commands

PANELS = ("Make", "Look", "Nights", "Research")


def said(*arguments: str) -> str:
    done = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_version_is_that_of_the_package() -> None:
    assert said("--version").startswith(f"blora {version('blora-pipeline')} (torch {version('torch')}, ")


def test_every_command_stands_in_one_of_the_panels() -> None:
    panels = re.findall(r"^╭─ (\w+) ─", said("--help"), re.M)
    assert panels == ["Options", *PANELS]


@pytest.mark.parametrize("command", ["", *commands()])
def test_help_names_kinds_of_values_in_words_and_devices_in_one_spelling(command: str) -> None:
    text = said(*command.split(), "--help")
    assert not re.search(r"<(str|int|float|bool|list\[|path|.*lambda)|\bTEXT\b|\bINTEGER\b|\bFLOAT\b", text), text
    assert "--device " not in text
    for param in commands()[command].params if command else ():
        assert param.metavar is not None or param.is_flag or param.hidden, param.name


def completed(line: str, root: Path) -> list[str]:
    """What a shell is given where a person presses the key after a line; nothing heavy is imported for it."""
    words = line.split()
    given = {"_BLORA_COMPLETE": "complete_bash", "COMP_WORDS": line, "BLORA_ROOT": str(root)}
    code = (
        "import sys\nfrom flows.cli.main import app\ntry:\n    app(prog_name='blora')\nfinally:\n"
        "    assert not {'torch', 'prefect', 'botocore', 'pandas'} & sys.modules.keys()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **given, "COMP_CWORD": str(len(words) if line.endswith(" ") else len(words) - 1)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


def test_a_shell_completes_commands_presets_settings_and_runs(tmp_path: Path) -> None:
    (tmp_path / "runs" / "night-0123456789ab").mkdir(parents=True)
    (tmp_path / "runs" / "night-0123456789ab" / "run.json").write_text("{}")
    assert completed("blora res", tmp_path) == ["rescore"]
    assert completed("blora run a.csv --preset ", tmp_path) == list(PresetName.__args__)
    assert completed("blora plan a.csv --set train.resol", tmp_path) == ["train.resolution_px="]
    assert completed("blora status ", tmp_path) == ["latest", "night", "night-0123456789ab"]
    assert completed(f"blora scores --root {tmp_path}/none ", tmp_path) == []


def test_presets_and_settings_are_all_told() -> None:
    told = said("presets")
    assert [name for name in blora.PRESETS if not re.search(rf"^{name}\s+\w", told, re.M)] == []
    assert re.search(r"^train.steps +100 +400 +1000 +1000 +1000$", told, re.M)
    listed = re.findall(r"^(\S+)  (.+); by default (.+)$", said("settings"), re.M)
    assert listed == [(e.path, e.accepted, e.default.replace("-", "nothing", e.default == "-")) for e in catalogue()]
    assert {path for path, *_ in re.findall(r"^(\S+)  (.+)$", said("settings", "Guidance"), re.M)} == {
        "sample.guidance_scale",
        "sample.guidance_from",
        "sample.guidance_interval",
        "sample.negative_prompt",
    }


@pytest.mark.parametrize("entry", [e for e in catalogue() if " from " in e.accepted or " above " in e.accepted])
def test_the_bounds_told_are_those_that_hold(entry: object) -> None:
    path, accepted = entry.path, entry.accepted  # type: ignore[attr-defined]
    if accepted.startswith("["):  # each of the two
        return
    low, high = (re.search(rf"(?:{words}) (-?[\d,]+)", accepted) for words in ("from|above", "to|below"))
    step = int(found[1]) if (found := re.search(r"steps of (\d+)", accepted)) else 1
    normal = {"train.timestep_sampling": "logit_normal", "train.timestep_power": 1}
    beside = normal if path in ("train.timestep_mean", "train.timestep_std") else {}
    for bound, beyond, inside in ((low, -step, "from"), (high, step, "to")):
        if bound is None:
            continue
        number = int(bound[1].replace(",", ""))
        with pytest.raises(SettingsError):
            blora.resolve("demo", {path: number + beyond, **beside})
        if f"{inside} {bound[1]}" in accepted:
            blora.resolve("demo", {path: number, **beside})
