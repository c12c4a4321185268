"""The command: exit codes, what it prints, and that the examples in its help are real."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from flows.cli import main, measure
from flows.cli.console import show_faults
from flows.cli.main import app
from flows.cli.overrides import parse_overrides
from manifests.faults import Fault
from manifests.notes import told as told_notes
from manifests.store.store import Store
from tasks.closing.farewell import farewell
from tasks.run.outcome import recorded_notes
from tests.flows.conftest import Project
from tests.made_run import finish, plan_run
from tests.tasks.closing.test_yields import judged

COMMANDS = (
    *("init", "settings", "validate", "plan", "run", "rerun", "status", "scores", "serve", "export"),
    *("doctor", "nightly", "deploy", "gc", "probe", "report", "review", "compare", "rescore", "compare-methods"),
)


def blora(*arguments: str, root: Path | None = None) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command in this process."""
    given = [*arguments, *(["--root", str(root)] if root else [])]
    result = CliRunner().invoke(app, given)
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture(scope="module")
def done(
    tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, prefect_api: str, warm_slots: None
) -> tuple[Project, Path, str]:
    """A project, a store in which it has been worked off by the command, and its run id."""
    folder = tmp_path_factory.mktemp("cli")
    project, root = Project(folder / "project", tiny_base), folder / "store"
    code, printed, errors = blora("run", str(project.path), *project.allow, "--devices", "cpu", root=root)
    assert code == 0, errors
    found = re.search(r"^(\S+) finished: ", printed, re.M)
    assert found, printed
    return project, root, found.group(1)


def test_run_says_what_there_is_first_and_what_to_do_next_last(done: tuple[Project, Path, str]) -> None:
    _, root, run_id = done
    code, printed, errors = blora("run", str(done[0].path), *done[0].allow, "--devices", "cpu", root=root)
    assert code == 0
    page = f"{root}/runs/{run_id}/report/index.html"
    nothing = "no training and no picture is missing"
    assert errors.splitlines()[0] == f"{run_id}: 4 adapters, 4 pictures: {nothing}; page: {page}"
    assert f"{run_id} finished: 4 of 4 pictures, 4 of 4 adapters; " in printed
    assert printed.endswith(
        f"  blora report {run_id} --root {root} --open\n  blora scores {run_id} --root {root}\n"
        f"  blora export {run_id} ./night --root {root}\n"
    )
    assert len(re.findall(r"^c[01] +s[01] +0 ", printed, re.M)) == 4


def test_a_run_ends_with_how_many_passed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, plan = plan_run(tmp_path, ["a"], ["s", "t"], settings={"check": {"style_copy": 0.0}})
    values = {"transfer": 0.5, "content_lite0": 0.5}
    finish(store, plan, scorer=lambda _, number: values | {"leakage_lite0": 0.9 if number else 0.2})
    with pytest.raises(typer.Exit) as ended:
        main._report(store, plan.run.run_id)
    assert ended.value.exit_code == 0
    assert re.search(r"^\S+ finished: .*; passed: 1 of 2 pictures$", capsys.readouterr().out, re.M)


def test_a_run_ends_with_the_adapters_that_failed_and_says_where_nothing_judges(tmp_path: Path) -> None:
    store, plan = plan_run(tmp_path, ["owl"], ["ink"])
    finish(store, plan, scorer=lambda *_: {"transfer": 0.5})
    assert farewell(store, plan.run.run_id, "").summary.endswith("2 of 2 adapters; not judged for quality")
    judged(store, plan, [False, True])
    end = farewell(store, plan.run.run_id, "")
    (line,) = end.failed
    assert (
        line.startswith("owl failed its check: split image 0.900, good up to 0.5; ")
        and "1 of 2 adapters" in end.summary
    )


def test_a_run_ends_with_its_ten_worst_pictures_and_what_to_type(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, plan = plan_run(tmp_path, ["a"], ["s"], seeds=range(12))
    finish(store, plan, scorer=lambda _, number: {"transfer": number / 100}, missing=[11])
    with pytest.raises(typer.Exit) as ended:
        main._report(store, plan.run.run_id, "my store", 100.0)
    run_id, printed = plan.run.run_id, capsys.readouterr().out
    assert ended.value.exit_code == 1 and "the 10 worst of 11 pictures (by transfer):" in printed
    assert re.findall(r"^a +s +\d+ +(0\.\d+)$", printed, re.M) == [f"{number / 100:.3f}" for number in range(10)]
    assert printed.splitlines()[-3:] == [
        f"  blora rerun {run_id} --root 'my store'",
        f"  blora status {run_id} --root 'my store'",
        f"  blora report {run_id} --root 'my store' --open",
    ]


@pytest.mark.parametrize("command", [["--help"], ["status"], ["status", "latest"], ["scores", "latest"]])
def test_what_only_looks_waits_for_no_import_that_it_does_not_need(command: list[str], looked_at: Path) -> None:
    """The benchmark `tests.benchmarks.startup` says what that saves."""
    heavy = ("torch", "diffusers", "prefect", "pandas", "s3fs", "aiohttp", "botocore")
    code = (
        "import sys\nfrom flows.cli.main import app\ntry:\n    app(sys.argv[1:])\nfinally:\n"
        f"    print(*[name for name in {heavy!r} if name in sys.modules], file=sys.stderr)"
    )
    given = [*command, *(["--root", str(looked_at)] if command != ["--help"] else [])]
    done = subprocess.run([sys.executable, "-c", code, *given], capture_output=True, text=True, check=True)
    assert done.stdout and done.stderr.splitlines()[-1] == ""


@pytest.fixture(scope="module")
def looked_at(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a finished run of four pictures."""
    store, plan = plan_run(tmp_path_factory.mktemp("look"), ["apple", "owl"], ["wave", "ink"])
    finish(store, plan)
    return Path(store.root)


def test_of_many_faults_it_is_said_where_all_of_them_are(capsys: pytest.CaptureFixture[str]) -> None:
    faults = [Fault("manifest", f"wrong in row {row}", "a", "b", "c") for row in range(150)]
    show_faults(faults, "store/runs/r/faults.parquet")
    *first, last = capsys.readouterr().err.splitlines()
    assert len(first) == 10 and last == "and 140 more faults: all are in store/runs/r/faults.parquet"
    show_faults(faults)
    assert capsys.readouterr().err.endswith("and 140 more faults: correct these first\n")


def test_plan_shows_what_is_there_and_writes_nothing(done: tuple[Project, Path, str], tmp_path: Path) -> None:
    project, root, run_id = done
    code, printed, _ = blora("plan", str(project.path), *project.allow, "--devices", "cpu", root=root)
    assert code == 0
    assert run_id in printed and "4, of which 0 to train in 0 packs" in printed
    assert re.search(r"^device +cpu$", printed, re.M)
    assert re.search(r"^basis +measured in run .+ on cpu", printed, re.M)
    code, printed, _ = blora("plan", str(project.path), *project.allow, root=tmp_path / "fresh")
    assert code == 0
    assert "4, of which 4 to train in 2 packs" in printed and "4, of which 4 to draw" in printed
    assert "operation counts" in printed
    assert not (tmp_path / "fresh").exists()


def test_status_answers_from_the_store(done: tuple[Project, Path, str]) -> None:
    _, root, run_id = done
    code, printed, _ = blora("status", run_id, root=root)
    assert code == 0 and "finished" in printed and "4 of 4 pictures" in printed
    code, printed, _ = blora("status", root=root)
    (row,) = [line for line in printed.splitlines() if line.startswith(f"{run_id}  finished  ")]
    assert code == 0 and re.search(r"  \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC  4 of 4 pictures", row)
    picture = next(Path(root).glob("samples/*/*/*.png"))
    data = picture.read_bytes()
    picture.unlink()
    code, printed, _ = blora("status", run_id, root=root)
    picture.write_bytes(data)
    assert code == 1 and "3 of 4 pictures" in printed


def test_scores_sort_filter_and_export(done: tuple[Project, Path, str]) -> None:
    _, root, run_id = done
    code, text, _ = blora("scores", run_id, "--format", "json", "--sort", "style_clip", root=root)
    values = [row["style_clip"] for row in json.loads(text)]
    assert code == 0 and values == sorted(values) and len(values) == 4
    _, text, _ = blora("scores", run_id, "--format", "json", "--sort", "colour_distance", "--best", root=root)
    distances = [row["colour_distance"] for row in json.loads(text)]
    assert distances == sorted(distances)
    _, text, _ = blora("scores", run_id, "--format", "csv", "--where", "style=s1", "--top", "1", root=root)
    (row,) = csv.DictReader(io.StringIO(text))
    assert row["style"] == "s1"
    code, _, errors = blora("scores", run_id, "--sort", "beauty", root=root)
    assert code == 2 and "received 'beauty'; accepted:" in errors


def test_the_examples_of_conditions_find_something(done: tuple[Project, Path, str]) -> None:
    """Those of the documents and of the command's help, on what a real run was scored."""
    texts = [Path("README.md").read_text(), Path("flows/README.md").read_text(), measure.scores.__doc__ or ""]
    examples = re.findall(r'--where "([^"]+)"', " ".join(texts))
    assert len(examples) >= 2
    for example in examples:
        asked = example.replace("style=wave", "style=s1")
        code, text, errors = blora("scores", done[2], "--format", "json", "--where", asked, root=done[1])
        assert code == 0 and json.loads(text), (example, errors)
    code, text, errors = blora("scores", "night", "--where", "style_lite0 > 7 and style=s1", root=done[1])
    assert code == 0 and len(text.splitlines()) == 1, "only the head"
    assert "style_lite0 goes from " in errors and "style=s1 holds for 2 of 4" in errors


def test_export_uses_names_a_person_reads(done: tuple[Project, Path, str], tmp_path: Path) -> None:
    _, root, run_id = done
    code, _, _ = blora("export", run_id, str(tmp_path / "out"), root=root)
    assert code == 0
    names = sorted(path.name for path in (tmp_path / "out").glob("*__*.png"))
    assert names == ["c0__s0__0.png", "c0__s1__0.png", "c1__s0__0.png", "c1__s1__0.png"]
    assert (tmp_path / "out" / "contact_sheet.png").exists()


def test_validate_lists_every_fault_and_exits_with_one(project: Project) -> None:
    (project.folder / "c0.png").write_bytes(b"")
    (project.folder / "s1.png").unlink()
    project.write(settings={"train": {"steps": 0, "rnak": 4}})
    code, printed, errors = blora("validate", str(project.path), *project.allow)
    assert code == 1
    for word in ("c0.png", "s1.png", "train.steps", "train.rnak", "train.rank"):
        assert word in errors, word
    assert "4 faults" in printed


def test_validate_of_a_good_manifest_exits_with_zero(project: Project) -> None:
    code, printed, errors = blora("validate", str(project.path), *project.allow)
    assert (code, errors) == (0, "")
    assert "2 contents, 2 styles, 4 pairs, 4 pictures, 0 faults" in printed


def test_validate_and_plan_tell_what_was_done_to_pictures_and_exit_with_zero(project: Project, tmp_path: Path) -> None:
    with Image.open(project.folder / "c0.png") as picture:
        picture.convert("CMYK").save(project.folder / "c0.png", "TIFF")
    for told in (("validate",), ("plan", "--root", str(tmp_path / "store"))):
        code, _, errors = blora(*told, str(project.path), *project.allow)
        assert code == 0
        (line,) = errors.splitlines()
        assert line.startswith("note: ") and "c0" in line and "CMYK" in line


def test_a_run_of_nothing_exits_with_one_and_of_no_run_with_two(
    project: Project, tmp_path: Path, prefect_api: str
) -> None:
    for picture in project.folder.glob("c*.png"):
        picture.unlink()
    code, _, errors = blora("run", str(project.path), *project.allow, "--devices", "cpu", root=tmp_path / "store")
    assert code == 1 and "no pair" in errors
    code, _, errors = blora("status", "no-such-run", root=tmp_path / "store")
    assert code == 2 and "no store at" in errors


def test_a_bad_setting_names_the_right_one(project: Project, tmp_path: Path) -> None:
    code, _, errors = blora(
        "plan", str(project.path), *project.allow, "--set", "train.stesp=5", root=tmp_path / "store"
    )
    assert code == 2 and "train.steps" in errors


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (("train.steps",), "NAME=VALUE"),
        (("train.steps=[1",), "received '[1'"),
        (("train=5", "train.steps=4"), "train is set as a whole"),
        (("train.steps=4", "train.steps.more=5"), "steps is set as a whole"),
        (("train.steps=1:30",), "received '1:30'"),
        (("train={steps: 4, steps: 5}",), "key given twice"),
        (("train.steps=!!python/name:os.system",), "YAML tag not accepted"),
    ],
)
def test_a_setting_that_cannot_be_read_is_told_and_is_no_traceback(
    project: Project, settings: tuple[str, ...], said: str
) -> None:
    given = [word for one in settings for word in ("--set", one)]
    code, _, errors = blora("validate", str(project.path), *project.allow, *given)
    assert code in (1, 2) and "Traceback" not in errors
    assert said in " ".join(errors.replace("│", " ").split())


@pytest.mark.parametrize(
    ("given", "value"),
    [
        ("train.steps=010", 10),
        ("train.steps=1e3", 1000.0),
        ("train.steps = 12", 12),
        ("sample.prompt=A [c] #1 in [s]", "A [c] #1 in [s]"),
        ("sample.prompt=[c] in [s] style", "[c] in [s] style"),
        ("sample.prompt=[c]", "[c]"),
        ('sample.prompt="[c]: one"', "[c]: one"),
        ("sample.prompt='a' and 'b'", "'a' and 'b'"),
        ("sample.negative_prompt=no", "no"),
        ("sample.negative_prompt=null", "null"),
        ("sample.negative_prompt=", ""),
        ("score.scorers=[csd, dinov2-base]", ["csd", "dinov2-base"]),
        ("score.colour=no", "no"),
    ],
)
def test_a_setting_is_read_as_in_a_manifest_and_a_text_as_it_stands(given: str, value: object) -> None:
    group, _, name = given.partition("=")[0].strip().partition(".")
    assert parse_overrides([given]) == {group: {name: value}}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples_whose_options_exist(command: str) -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "flows.cli", command, "--help"], capture_output=True, text=True, check=True,
        env={"COLUMNS": "200", "PATH": "", "NO_COLOR": "1", "TERM": "dumb"},
    ).stdout  # fmt: skip
    examples = re.findall(rf"blora ({command}\b[^·\n]*)", printed.split("Usage")[1])
    examples = [text for text in examples if "[OPTIONS]" not in text]
    assert len(examples) >= 2, printed
    for example in examples:
        for option in re.findall(r"--[a-z0-9-]+", example):
            assert len(re.findall(rf"{option}\b", printed)) >= 2, f"{option} is in an example but no option"


def test_a_reviewed_run_delivers_what_is_kept_and_draws_the_redone_anew(
    done: tuple[Project, Path, str], tmp_path: Path
) -> None:
    _, root, run_id = done
    assert (root / "runs" / run_id / "report" / "index.html").is_file()  # written when the run ended
    code, printed, _ = blora("report", run_id, "--out", str(tmp_path / "copy"), root=root)
    assert code == 0 and printed.strip() == str(tmp_path / "copy" / "index.html")
    samples = pd.read_parquet(root / "runs" / run_id / "samples.parquet")
    said = dict(zip(samples.sample_id, ("keep", "reject", "redo"), strict=False))
    rows = [
        {"sample_id": sample_id, "decision": decision, "decided_at": "2026-11-22T12:00:00Z"}
        for sample_id, decision in said.items()
    ]
    file = tmp_path / "decisions.json"
    file.write_text(json.dumps({"format": 1, "run_id": run_id, "reviewer": "Ada", "decisions": [*rows, {}]}))
    code, _, errors = blora("review", run_id, str(file), root=root)
    assert code == 1 and "decisions[3].sample_id" in errors and "nothing was recorded" in errors
    file.write_text(json.dumps({"format": 1, "run_id": run_id, "reviewer": "Ada", "decisions": rows}))
    code, printed, errors = blora("review", run_id, str(file), root=root)
    assert code == 0, errors
    assert "1 kept, 1 rejected, 1 redone" in printed and f"blora rerun {run_id} draws 1 picture" in printed
    code, printed, _ = blora("status", run_id, root=root)
    assert code == 1 and "4 of 5 pictures" in printed
    before = {path: path.read_bytes() for path in (root / "samples").rglob("*.png")}
    code, printed, errors = blora("rerun", run_id, "--devices", "cpu", root=root)
    assert code == 0, errors
    assert "5 of 5 pictures, 4 of 4 adapters" in printed
    after = {path: path.read_bytes() for path in (root / "samples").rglob("*.png")}
    assert {path: after[path] for path in before} == before and len(after) == 5
    (new,) = set(after) - set(before)
    redone = next(sample_id for sample_id, decision in said.items() if decision == "redo")
    old = next(path for path in before if path.stem == redone)
    assert new.parent == old.parent and after[new] != before[old]
    code, printed, _ = blora("export", run_id, str(tmp_path / "kept"), "--kept", root=root)
    assert code == 0 and printed.startswith("1 picture in")
    assert len(list((tmp_path / "kept").glob("*__*__*.png"))) == 1


def test_the_report_in_prefect_leads_to_the_page_and_shows_the_pictures_worst_first(
    done: tuple[Project, Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.artifacts import Artifact

    from tasks.dispatch.artifacts import page_line

    _, root, run_id = done
    found = Artifact.get("report")
    assert found is not None
    text = str(found.data)
    assert page_line(str(root), run_id) in text and f"blora serve {run_id} --open" in text
    shown, pictures = text.count("](data:image/webp;base64,"), re.search(r"(\d+) of \d+ pictures", text)
    assert "## All by overall, worst first" in text and pictures
    assert shown == int(pictures[1]), "each picture once, where there are so few"
    assert "## Faults" not in text
    monkeypatch.setenv("BLORA_PAGES_URL", "https://art.example/blo ra)/")
    assert f"](https://art.example/blo%20ra%29/runs/{run_id}/report/index.html)" in page_line("s3://b/x", run_id)
    for bad in ("javascript:alert(1)", "https://user:secret@art.example", "https://art.example/?token=secret", "art"):
        monkeypatch.setenv("BLORA_PAGES_URL", bad)
        with pytest.raises(ValueError, match="BLORA_PAGES_URL") as caught:
            page_line("s3://b/x", run_id)
        assert "secret" not in str(caught.value)


def test_a_prompt_that_is_cut_is_told_before_the_run_and_after_it(
    done: tuple[Project, Path, str], tmp_path: Path
) -> None:
    project, root = Project(tmp_path / "project", done[0].base, contents=2, styles=1), tmp_path / "store"
    shutil.copytree(done[1], root)  # its adapters are those of the same pictures
    project.write(prompt=f"A [c] in [s] style, {'very ' * 70}old boat")
    code, _, errors = blora("validate", str(project.path), *project.allow)
    (told,) = [line for line in errors.splitlines() if line.startswith("note: ")]
    assert code == 0 and told.startswith(f"note: {project.path}")
    assert re.search(r'prompt: the text encoders read 75 tokens, and not "(very )*old boat"$', told)
    code, printed, errors = blora("run", str(project.path), *project.allow, "--devices", "cpu", root=root)
    assert code == 0 and [line for line in errors.splitlines() if line.startswith("note: ")] == [told]
    found = re.search(r"^(\S+) finished: ", printed, re.M)
    assert found and [f"note: {note}" for note in told_notes(recorded_notes(Store.open(str(root)), found[1]))] == [told]


def test_compare_and_nights_on_the_command_line(done: tuple[Project, Path, str]) -> None:
    project, root, run_id = done
    code, printed, errors = blora(
        "run", str(project.path), *project.allow, "--devices", "cpu", "--set", "sample.steps=3", root=root
    )
    assert code == 0, errors
    found = re.search(r"^(\S+) finished: ", printed, re.M)
    assert found
    code, printed, errors = blora("compare", run_id, found.group(1), root=root)
    assert code == 0, errors
    assert "style_lite0" in printed and f"reports/compare/{run_id}/{found.group(1)}/index.html" in printed
    assert blora("compare", run_id, run_id, root=root)[0] == 1
    code, printed, _ = blora("report", "--nights", "30", root=root)
    assert code == 0 and (root / "reports" / "nights" / "index.html").is_file()
    assert blora("report", root=root)[0] == 2 and blora("report", run_id, "--nights", "3", root=root)[0] == 2
