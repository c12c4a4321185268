"""The temporary Prefect server of a command: it goes when the command goes, however that ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from tests.processes import wait_for
from tests.servers import guard

HOLDS_A_SERVER = """
import time
from prefect.server.api.server import SubprocessASGIServer
from tasks.dispatch.server import server_at_hand
with server_at_hand():
    print(SubprocessASGIServer().server_process.pid, flush=True)  # what Prefect's clients would use
    time.sleep(300)
"""


def test_a_temporary_server_ends_with_the_command_that_is_killed(tmp_path: Path) -> None:
    environment = {**os.environ, "HOME": str(tmp_path), "PREFECT_HOME": str(tmp_path / "prefect")}
    command = [*guard(), sys.executable, "-c", HOLDS_A_SERVER]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        server = psutil.Process(int(holder.stdout.readline()))
        assert server.is_running()
        holder.send_signal(signal.SIGKILL)
    wait_for(lambda: not server.is_running() or server.status() == psutil.STATUS_ZOMBIE, 30, "end of the server")


def test_a_temporary_server_that_cannot_start_is_given_up_and_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    environment = {**os.environ, "HOME": str(tmp_path), "PREFECT_HOME": str(tmp_path / "file" / "prefect")}
    command = [sys.executable, "-m", "flows.cli", "nightly", "--root", str(tmp_path / "store")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and "PREFECT_HOME" in line and str(tmp_path / "file" / "prefect") in line
    assert "Traceback" in (tmp_path / ".cache/blora/blora.log").read_text()
