"""Killed on purpose, on a real S3: a rerun finishes, byte for byte as an undisturbed run leaves it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from manifests.store.store import Store
from tests.flows.conftest import Project, live_leases

pytestmark = [pytest.mark.s3, pytest.mark.slow, pytest.mark.timeout(900)]

LONG = ["--set", "train.steps=60", "--set", "train.checkpoint_every_steps=5", "--devices", "cpu"]


class Command:
    """The real `blora` command in a process of its own, against one S3 root and one Prefect server."""

    def __init__(self, root: str, project: Project, prefect_api: str, scratch: Path) -> None:
        self.root, self.project, self.scratch = root, project, scratch
        self.environment = dict(os.environ, PREFECT_API_URL=prefect_api, BLORA_ROOT=root, BLORA_LEASE_SECONDS="3")
        self.store = Store.open(root)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        log = (self.scratch / f"{time.monotonic_ns()}.log").open("w")
        return subprocess.Popen(
            [sys.executable, "-m", "flows.cli", *arguments],
            env=self.environment,
            stdout=log,
            stderr=log,
            text=True,
        )

    def finish(self, *arguments: str) -> None:
        process = self.start(*arguments)
        assert process.wait(timeout=400) == 0, "\n".join(p.read_text()[-3000:] for p in self.scratch.glob("*.log"))

    def run(self) -> subprocess.Popen[str]:
        return self.start("run", str(self.project.path), *self.project.allow, *LONG)

    def run_cold(self) -> subprocess.Popen[str]:
        """As everywhere but in tests: the slot's child is a process of the command's own, to be killed."""
        warm = self.environment
        self.environment = {name: value for name, value in warm.items() if name != "BLORA_SLOT_MODULE"}
        process = self.run()
        self.environment = warm
        return process

    def run_id(self) -> str:
        (run_id,) = {key.split("/")[1] for key in self.store.list("runs/")}
        return run_id

    def objects(self) -> dict[str, bytes]:
        keys = [*self.store.list("samples/"), *self.store.list("adapters/")]
        return {key: self.store.read(key) for key in keys if not key.endswith(".json")}

    def wait_for(self, condition: Callable[[], bool], process: subprocess.Popen[str], what: str) -> None:
        deadline = time.monotonic() + 300
        while not condition():
            assert process.poll() is None, f"the command ended before {what}"
            assert time.monotonic() < deadline, f"no {what} in time"
            time.sleep(0.1)  # each look lists a bucket


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, prefect_api: str, warm_slots: None
) -> tuple[Project, dict[str, bytes]]:
    """A project and the objects that a run without any accident leaves (in a local store)."""
    folder = tmp_path_factory.mktemp("undisturbed")
    project = Project(folder / "project", tiny_base)
    command = Command(str(folder / "store"), project, prefect_api, folder)
    command.finish("run", str(project.path), *project.allow, *LONG)
    objects = command.objects()
    assert len(objects) == 4 + 8
    return project, objects


@pytest.fixture
def command(undisturbed: tuple[Project, dict[str, bytes]], s3_root: str, prefect_api: str, tmp_path: Path) -> Command:
    """The command on a fresh S3 root."""
    return Command(s3_root, undisturbed[0], prefect_api, tmp_path)


def slots_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return [child for child in psutil.Process(process.pid).children() if "tasks.worker.main" in child.cmdline()]


def test_a_killed_slot_is_an_ordinary_failure(command: Command, undisturbed: tuple[Project, dict[str, bytes]]) -> None:
    process = command.run_cold()
    command.wait_for(lambda: any("checkpoints/" in key for key in command.store.list("runs/")), process, "checkpoint")
    (slot,) = slots_of(process)
    slot.send_signal(signal.SIGKILL)
    assert process.wait(timeout=400) == 0
    assert command.objects() == undisturbed[1]
    assert live_leases(command.store) == []


def test_a_killed_command_is_finished_by_a_rerun(
    command: Command, undisturbed: tuple[Project, dict[str, bytes]]
) -> None:
    process = command.run_cold()
    command.wait_for(lambda: len(command.store.list("adapters/")) >= 9, process, "finished pack")
    children = slots_of(process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    psutil.wait_procs(children, timeout=20)
    assert not any(child.is_running() for child in children), "a slot outlived its parent"
    first_pack = {key: entry.modified for key, entry in command.store.list("adapters/").items()}
    command.finish("rerun", command.run_id(), "--devices", "cpu")
    assert command.objects() == undisturbed[1]
    after = command.store.list("adapters/")
    assert {key: after[key].modified for key in first_pack} == first_pack, "a finished adapter was trained again"
    assert live_leases(command.store) == []


def test_an_interrupted_command_lets_go_and_says_how_to_go_on(
    command: Command, undisturbed: tuple[Project, dict[str, bytes]]
) -> None:
    """Ctrl-C, then a SIGTERM on the command that goes on; leases that outlive their holder would be live for long."""
    command.environment["BLORA_LEASE_SECONDS"] = "600"
    process = command.run()
    command.wait_for(lambda: len(live_leases(command.store)) > 1, process, "training")
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        slots = psutil.Process(process.pid).children(recursive=True)
        assert all(os.getsid(slot.pid) != os.getsid(process.pid) for slot in slots), "a terminal would tell them, too"
        stopped = time.monotonic()
        process.send_signal(number)
        assert process.wait(timeout=60) == code
        assert time.monotonic() - stopped < 30, "it waited for something"
        assert psutil.wait_procs(slots, timeout=30)[1] == [], "a slot outlived its parent"
        assert live_leases(command.store) == []
        last = max(command.scratch.glob("*.log"), key=lambda path: path.stat().st_mtime_ns).read_text()
        assert f"stopped; go on with: blora rerun {command.run_id()}" in last
        assert "Traceback" not in last
        if number == signal.SIGINT:
            process = command.start("rerun", command.run_id(), "--devices", "cpu")
            command.wait_for(lambda: len(live_leases(command.store)) > 1, process, "training")
    command.finish("rerun", command.run_id(), "--devices", "cpu")
    assert command.objects() == undisturbed[1]


def test_two_commands_at_once_share_the_work(command: Command, undisturbed: tuple[Project, dict[str, bytes]]) -> None:
    twins = [command.run(), command.run()]
    assert [twin.wait(timeout=400) for twin in twins] == [0, 0]
    assert command.objects() == undisturbed[1]
    assert live_leases(command.store) == []
