"""A small session of faults with real servers; the large one is ``python -m tests.chaos``: see README.md."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from manifests import layout
from manifests.store.store import Store
from manifests.tables.parquet import from_parquet_bytes
from manifests.tables.run import FAULTS
from tests.chaos import checks
from tests.chaos.episode import Player
from tests.chaos.ledger import count_trainings, read_ledger
from tests.chaos.schedule import Episode, Fault
from tests.chaos.stage import Stage, set_up
from tests.servers import PrefectServer, S3Server

pytestmark = [pytest.mark.s3, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def stage(
    s3_server: S3Server, prefect_server: PrefectServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3_server.environment().items():
            patch.setenv(name, value)
        with set_up(tmp_path_factory.mktemp("chaos"), s3_server, prefect_server.environment(), seed=7) as stage:
            yield stage


def finish(stage: Stage, number: int, root: str, environment: dict[str, str]) -> int:
    """Run the command to its end; its exit code."""
    log = stage.folder / f"command-{number}.log"
    arguments = ["run", str(stage.manifest(number)), "--root", root, "--devices", "cpu,cpu"]
    return stage.command(environment, log, *arguments).wait(timeout=400)


def log_of(stage: Stage, number: int) -> str:
    return (stage.folder / f"command-{number}.log").read_text()


def test_kills_and_a_bad_network_change_nothing(stage: Stage) -> None:
    """Slots and commands are killed while a fifth of the calls to the store goes wrong, in every way there is."""
    faults = (
        Fault("slot", "work", 0.1, 0, 0.9),
        Fault("parent", "work", 0.3, 0, 0.0),
        Fault("slot", "work", 0.2, 0, 0.1),
        Fault("parent", "work", 0.5, 0, 0.5),
    )
    result = Player(stage, Episode(1000, "faulty s3", 1, False, faults)).play()
    assert result.faults == []
    assert result.kills == {"slot": 2, "parent": 2}
    met = stage.network.met
    share = 1 - met["none"] / met.total()
    assert met.total() > 200 and 0.12 < share < 0.28, met
    assert len(met) == 7, "each of the six troubles was met"


def adapter_halves(stage: Stage) -> set[str]:
    return {key for key in stage.truth.objects if key.startswith(layout.ADAPTERS_PREFIX)}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB; a run needs more than twice that."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_is_said_and_the_next_run_does_the_rest(stage: Stage, small_disk: Path) -> None:
    root = str(small_disk / "store")
    environment = stage.environment(root, "folder", stage.folder / "ledger-1002.jsonl")
    watch = checks.Watch(Store.open(root), stage.truth)
    code = finish(stage, 1002, root, environment)
    assert code in (1, 2), log_of(stage, 1002)[-3000:]
    assert "make room on that disk" in log_of(stage, 1002)
    assert watch.look() == []
    assert checks.held_by_the_living(watch.store) == []
    if code == 2:  # the items fitted, by chance, and the run's own tables or sheet did not
        assert f"/runs/{stage.truth.run_id}/" in log_of(stage, 1002).strip().splitlines()[-1]
    else:
        faults = watch.store.read(layout.run_key(stage.truth.run_id, "faults.parquet"))
        rows = [row for row in from_parquet_bytes(faults, FAULTS).to_pylist() if "No space left" in row["received"]]
        assert rows and all(row["transient"] for row in rows), "a disk is no property of an item: nights try it again"
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    assert finish(stage, 1002, root, environment) == 0, log_of(stage, 1002)[-3000:]
    assert watch.compare() == []


SHIFTED = """
import os, time
real = time.time
time.time = lambda: real() + float(os.environ["SHIFT_SECONDS"])
"""


@pytest.fixture
def shifted(tmp_path: Path) -> dict[str, str]:
    """Variables of a Python process whose `time.time`, which leases are written and read by, is ahead by SHIFT_SECONDS.

    A library that shifts all clocks of a process (libfaketime) makes `time.sleep` of Python 3.11 fail.
    """
    (tmp_path / "sitecustomize.py").write_text(SHIFTED)
    return {"PYTHONPATH": f"{tmp_path}{os.pathsep}{os.getcwd()}"}


def test_two_machines_whose_clocks_differ_by_less_than_a_third_of_a_lease(
    stage: Stage, shifted: dict[str, str]
) -> None:
    """Nothing is trained twice, or by both at once."""
    number = 1003
    root, ledger = stage.s3.fresh_root(), stage.folder / f"ledger-{number}.jsonl"
    here = stage.environment(root, "s3", ledger) | {"BLORA_LEASE_SECONDS": "12"}
    there = here | shifted | {"SHIFT_SECONDS": "3"}
    logs = [stage.folder / f"clock-{number}-{which}.log" for which in (0, 1)]
    arguments = ["run", str(stage.manifest(number)), "--devices", "cpu,cpu"]
    commands = [stage.command(env, log, *arguments) for env, log in zip((here, there), logs, strict=True)]
    codes = [command.wait(timeout=400) for command in commands]
    assert codes == [0, 0], "\n".join(log.read_text()[-2000:] for log in logs)
    watch = checks.Watch(Store.open(root), stage.truth)
    assert watch.compare() == []
    assert checks.held_by_the_living(watch.store) == []
    trainings = count_trainings(read_ledger(ledger), {})
    assert trainings.begun >= len(adapter_halves(stage)) / 2
    assert (trainings.twice, trainings.at_once) == ((), ())


def test_a_shifted_clock_is_what_a_process_reads(shifted: dict[str, str]) -> None:
    """What the test above relies on."""
    environment = {**os.environ, **shifted, "SHIFT_SECONDS": "3600"}
    said = subprocess.check_output([sys.executable, "-c", "import time; print(time.time())"], env=environment)
    assert 3590 < float(said) - time.time() < 3700
