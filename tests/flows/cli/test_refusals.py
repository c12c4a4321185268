"""What keeps a command from running is told in one line, with exit code 2 and no traceback."""

from __future__ import annotations

import ast
import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings
from typer.testing import CliRunner

from flows.cli.main import app
from tasks import devices
from tests.flows.conftest import SETTINGS, Project
from tests.made_run import finish, plan_run
from tests.servers import PrefectServer, webhook_receiver

WITH_A_SERVER = ("nightly", "probe", "compare-methods m.yaml", "deploy")
OF_A_RUN = ("rerun latest", "rescore latest --scorer csd")


def refusal(command: str, *more: str) -> str:
    """The one line that a command says."""
    done = CliRunner().invoke(app, [*command.split(), *more], env={"COLUMNS": "300"})
    assert done.exit_code == 2 and done.stdout == "", done.output
    (line,) = done.stderr.splitlines()
    return line


@pytest.mark.parametrize("command", WITH_A_SERVER)
def test_without_a_prefect_server_a_command_says_so_before_it_begins(command: str, tmp_path: Path) -> None:
    with temporary_settings({PREFECT_API_URL: "http://ada:secret@127.0.0.1:9/api"}):
        said = refusal(command, "--root", str(tmp_path / "store"))
    assert "http://127.0.0.1:9/api" in said and "PREFECT_API_URL" in said and "secret" not in said
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    "command",
    [
        "run manifests/examples/demo.yaml --devices cuda:0",
        "nightly --devices cuda:0",
        "rescore r --scorer csd --devices cuda:0",
        "probe --devices cuda:0",
        "compare-methods m.yaml --devices cuda:0",
        "bench {} --devices cuda:0",
    ],
)
def test_every_command_that_works_on_a_gpu_tries_it_first(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr(devices, "_PREFLIGHT", "libcuda.so")  # no such module: the process that tries the GPU dies
    root = () if command.startswith("bench") else ("--root", str(tmp_path / "store"))
    assert "devices: " in (said := refusal(command.format(tmp_path / "out"), *root)) and "libcuda" in said, said


@pytest.mark.parametrize("option", ["--devices", "--device"])  # the second is how it was once spelt
def test_the_paired_benchmark_works_on_one_device(option: str, tmp_path: Path) -> None:
    assert "--devices: received 'cpu,cpu'" in refusal(f"bench {tmp_path / 'out'} {option} cpu,cpu")


@pytest.mark.parametrize("command", OF_A_RUN)
def test_nor_does_it_begin_with_a_run_that_is_there(command: str, tmp_path: Path) -> None:
    store, plan = plan_run(tmp_path, ["apple"], ["wave"])
    finish(store, plan)
    before = store.list("")
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        done = CliRunner().invoke(app, [*command.split(), "--root", store.root])
    assert done.exit_code == 2 and "no Prefect server at http://127.0.0.1:9/api" in done.stderr.splitlines()[-1]
    assert store.list("") == before


@pytest.mark.parametrize(
    "command",
    [
        *("status", "status latest", "scores r", "rerun r", "rescore r --scorer csd", "report r", "report --nights 3"),
        *("review r d.json", "export r out", "compare a b", "gc", "nightly --last", "adapter export x --run r"),
    ],
)
def test_a_mistyped_root_is_told_by_whatever_only_reads(command: str, tmp_path: Path) -> None:
    said = refusal(command, "--root", str(tmp_path / "sotre"))
    assert said.startswith(f"no store at {tmp_path}/sotre: ") and not (tmp_path / "sotre").exists()


@pytest.mark.parametrize("url", ["localhost:4200", "http://{}", "https://{}", "ftp://{}", "http://"])
def test_an_address_that_is_none_of_prefects_is_named(url: str, tmp_path: Path) -> None:
    with webhook_receiver() as (address, _):  # a web server that is not Prefect's
        wrong = url.format(address.removeprefix("http://"))
        with temporary_settings({PREFECT_API_URL: wrong}):
            said = refusal("nightly", "--root", str(tmp_path / "store"))
    assert f"no Prefect server at {wrong}: received " in said


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--cron", "x y z"), "--cron: received 'x y z'; accepted: minute hour"),
        (("--cron", "0 25 * * *"), "--cron: received '0 25 * * *'; accepted: minute"),
        (("--timezone", "Mars/Olympus"), "--timezone: received 'Mars/Olympus'; accepted: an IANA"),
        (("--file", "no-such.yaml"), "no-such.yaml cannot be read"),
        (("--file", "README.md"), "README.md cannot be read"),
        (("--gpu-pool", "kubernetes", "--template", "README.md"), "README.md: received no JSON"),
    ],
)
def test_a_deployment_that_cannot_be_is_refused_before_anything_is_made(
    given: tuple[str, ...], said: str, prefect_api: str
) -> None:
    with get_client(sync_client=True) as client:
        before = client.read_work_pools()
        assert said in refusal("deploy", *given)
        assert client.read_work_pools() == before


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (
            "run manifests/examples/demo.yaml --on-fault often",
            "--on-fault: received 'often'; accepted: 'record' or 'stop'",
        ),
        ("run manifests/examples/demo.yaml --shards there", "--shards: received 'there'; accepted: 'here' or 'pool'"),
        ("nightly --hours -1", "--hours: received -1.0"),
        ("probe --preset best", "--preset: received 'best'"),
    ],
)
def test_options_are_named_with_what_was_received(command: str, said: str, prefect_api: str) -> None:
    assert said in refusal(command)


@pytest.mark.parametrize(
    ("command", "more"),
    [("validate", 0), ("plan --devices cuda:99 --root {}", 1), ("run --devices cuda:99 --on-fault no --root {}", 2)],
)
def test_all_that_is_wrong_is_told_at_once(command: str, more: int, tmp_path: Path, project: Project) -> None:
    (project.folder / "c1.png").write_text("no picture")
    pairs = [{"content": "c0", "style": "s0"}, {"content": "c0", "style": "s9"}]
    project.write(preset="pape", base="nowhere", settings={"train": {"stepps": 3}}, pairs=pairs, grid=None)
    words, store = command.format(tmp_path / "store").split(), tmp_path / "store"
    done = CliRunner().invoke(app, [*words, str(project.path), "--set", "sample.stesp=2"])
    told = done.stderr
    for said in ("preset", "base: no such base", "train.stepps", "--set sample.stesp", "'s9'", "c1.png"):
        assert said in told, (said, told)
    assert ("devices: received cuda:99" in told, "--on-fault: received" in told) == (more > 0, more > 1)
    assert len(told.splitlines()) == 6 + more + (more > 0) and "Traceback" not in told
    assert done.exit_code == 1 and not store.exists()


def test_what_can_be_told_of_a_command_alone_is_one_line(tmp_path: Path) -> None:
    demo = "plan manifests/examples/demo.yaml --root"
    assert refusal(demo, str(tmp_path), "--base", "nowhere").startswith("--base: unknown base model: received nowhere")
    assert refusal(demo, str(tmp_path), "--preset", "demmo").endswith("fast, flux, paper; did you mean demo?")


def test_what_prefect_says_of_a_failed_flow_is_in_the_log_file_alone(
    project: Project, prefect_server: PrefectServer, tmp_path: Path
) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "images").write_text("")
    command = [sys.executable, "-m", "flows.cli", "run", str(project.path), *project.allow]
    done = subprocess.run(
        [*command, "--root", str(tmp_path / "store")],
        env={**os.environ, **prefect_server.environment(), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    opening, line = done.stderr.splitlines()
    assert opening.startswith("night-") and done.returncode == 2
    assert "make the folder" in line and "received File exists" in line
    assert "Traceback" in (tmp_path / ".cache/blora/blora.log").read_text()


def test_a_store_that_takes_nothing_is_told_before_anything_starts(project: Project, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):  # which nobody asks
        said = refusal(f"run {project.path} --allow-root {project.base}", "--root", str(tmp_path / "file" / "store"))
    assert said.startswith(f"make the folder {tmp_path}/file/store: received Not a directory; choose another root")


NOUNS = "adapter|fault|manifest|name|object|pack|pair|picture|run|shard|slot|task"
"""What a user's messages count."""


def counted_without_care(source: str) -> list[str]:
    """F-strings of a module that put a number before a plural, whatever the number is; constants are many."""
    found = []
    for node in ast.walk(ast.parse(source)):
        for value, text in itertools.pairwise(node.values) if isinstance(node, ast.JoinedStr) else ():
            is_plural = isinstance(text, ast.Constant) and re.match(rf" ({NOUNS})s\b", str(text.value))
            if is_plural and isinstance(value, ast.FormattedValue) and not ast.unparse(value.value).isupper():
                found.append(ast.unparse(node))
    return found


def test_messages_speak_as_people_do(tmp_path: Path, project: Project) -> None:
    """No "1 packs", no name of a Python error, no "do: did you mean", in the sources and in what is said."""
    sources = [path for folder in ("flows", "tasks", "manifests") for path in Path(folder).rglob("*.py")]
    assert len(sources) > 100
    careless = {str(path): found for path in sources if (found := counted_without_care(path.read_text()))}
    assert careless == {}
    assert counted_without_care('f"{n} packs"') and not counted_without_care('f"{MOST} packs" f"{n} {noun}"')
    project.names = {"contents": ["c0"], "styles": ["s0"]}
    project.write(contents=[{"image": "c0.png"}], styles=[{"image": "s0.png"}], settings=SETTINGS)
    root = ("--root", str(tmp_path / "store"))
    said = ""
    for words in (
        ("plan", str(project.path), *project.allow, *root),
        ("plan", str(project.path), *project.allow, *root, "--set", "train.stesp=3"),
        ("validate", str(tmp_path / "gone.yaml")),
        ("validate", str(project.path), "--base", str(tmp_path)),
        ("--help",),
        *((name, "--help") for name in ("run", "plan", "gc", "status", "doctor")),
    ):
        done = CliRunner().invoke(app, words)
        said += done.stdout + done.stderr
    assert "in 1 pack\n" in said and "did you mean train.steps?" in said and "No such file" in said
    wrong = rf"\b1 ({NOUNS})s\b|do: did you|\[Errno|\b[A-Z]\w+Error\b|(?i:gpu.hours)"
    assert [found.group() for found in re.finditer(wrong, said + Path("README.md").read_text())] == []
