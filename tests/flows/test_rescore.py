"""One more scorer for a run, end to end: real slots, DINOv2 ViT-S with random weights, folder and bucket."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flows.params import SlotOptions
from flows.rescore import rescore
from flows.stylize import rerun, stylize
from manifests.store.store import Store
from manifests.tables.run import SCORES
from tests.flows.cli.test_main import blora
from tests.flows.conftest import Project, live_leases
from tests.flows.test_stylize import Work

pytestmark = pytest.mark.usefixtures("prefect_api", "warm_slots")

NEW = {f"{name}_dinov2_small" for name in ("content", "style", "harmonic_mean", "transfer")}


def run_rescore(root: str, run_id: str, *scorers: str) -> Any:
    return rescore(run_id, scorers, SlotOptions(root=root, devices="cpu"), return_state=True)


def kinds(work: Work) -> dict[str, int]:
    rows = work.rows("scores", SCORES)
    return {name: sum(row["score"] == name for row in rows) for name in {row["score"] for row in rows}}


def test_a_run_gets_one_more_scorer_and_nothing_is_drawn_again(
    project: Project, tmp_path: Path, tiny_base: Path, dino_folder: Path
) -> None:
    work = Work(str(tmp_path / "store"), (str(tiny_base),))
    assert work(stylize, str(project.path)).is_completed()
    before, written = kinds(work), work.written()
    line = f"dinov2-small={dino_folder}"
    state = run_rescore(work.root, work.run_id, line)
    assert state.is_completed() and state.message == "4 pictures judged by dinov2-small"
    assert kinds(work) == before | dict.fromkeys(NEW, 4)
    assert work.written() == written
    assert work.json("run.json")["state"] == "finished" and live_leases(work.store) == []
    scored = work.store.list(f"runs/{work.run_id}/scores/")
    assert run_rescore(work.root, work.run_id, line).message == "0 pictures judged by dinov2-small"
    assert work.store.list(f"runs/{work.run_id}/scores/") == scored, "judged again"
    assert work(rerun, work.run_id).is_completed()
    assert kinds(work) == before | dict.fromkeys(NEW, 4)

    code, printed, _ = blora("scores", work.run_id, "--format", "json", root=Path(work.root))
    rows = json.loads(printed)
    assert code == 0 and len(rows) == 4 and all(NEW <= row.keys() for row in rows)
    code, printed, errors = blora("rescore", work.run_id, "--scorer", line, "--devices", "cpu", root=Path(work.root))
    assert code == 0 and "dinov2-small  0 pictures judged, version " in printed, errors


@pytest.mark.s3
def test_run_and_weights_may_both_lie_in_a_bucket(
    project: Project, s3_root: str, tiny_base: Path, dino_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # where the slot keeps its copy of the weights
    work = Work(f"{s3_root}/art", (str(tiny_base),))
    assert work(stylize, str(project.path)).is_completed()
    Store.open(f"{s3_root}/models").replace("dino.safetensors", (dino_folder / "model.safetensors").read_bytes())
    line = f"dinov2-small={s3_root}/models/dino.safetensors"
    wrong = run_rescore(work.root, work.run_id, f"{line}#sha256:{'0' * 64}")
    assert wrong.is_failed() and "not the ones that were asked for" in str(wrong.message)
    assert run_rescore(work.root, work.run_id, line).is_completed()
    assert {name: kinds(work)[name] for name in NEW} == dict.fromkeys(NEW, 4)


def test_a_scorer_that_cannot_judge_leaves_the_run_as_it_was(
    project: Project, tmp_path: Path, tiny_base: Path, dino_folder: Path
) -> None:
    work = Work(str(tmp_path / "store"), (str(tiny_base),))
    project.write(contents=[{"image": "c0.png", "name": "c0"}], styles=[{"image": "s0.png", "name": "s0"}])
    assert work(stylize, str(project.path)).is_completed()
    before = kinds(work)
    for line, message in (
        ("dino", "unknown scorer"),
        ("csd=./nowhere", "no weights there"),
        (f"dinov2-base={dino_folder}", "of another network"),
    ):
        code, _, errors = blora("rescore", work.run_id, "--scorer", line, "--devices", "cpu", root=Path(work.root))
        assert code == 2 and message in errors
        assert kinds(work) == before and live_leases(work.store) == []
