"""Other processes: waiting for them, having one read, and ending them."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil


def wait_for(condition: Callable[[], Any], seconds: float, what: str, explain: Callable[[], str] = str) -> Any:
    """Look twice a second until there is something; what there is. If it never comes, `explain` says more."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"no {what} in {seconds:g} s\n{explain()}"
        time.sleep(0.5)
    return value


def kill_family(process: subprocess.Popen[bytes]) -> None:
    """End a process and all its children at once (SIGKILL), as when a machine loses power."""
    family = []
    with contextlib.suppress(psutil.NoSuchProcess):
        family = psutil.Process(process.pid).children(recursive=True)
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    process.wait()
    psutil.wait_procs(family, timeout=20)


@contextlib.contextmanager
def reading(script: str, *arguments: str) -> Iterator[Callable[[], Any]]:
    """Have Python code read in a process of its own while this one writes.

    The code prints a line when it is ready, waits for a line, goes on until there is a second one or the end of its
    input, and prints what it saw as JSON.

    Yields:
        What ends it and returns what it saw.
    """
    command = [sys.executable, "-c", script, *arguments]
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as reader:
        assert reader.stdin is not None and reader.stdout is not None
        assert reader.stdout.readline() == "ready\n"
        reader.stdin.write("go\n")
        reader.stdin.flush()

        def end() -> Any:
            assert reader.stdin is not None and reader.stdout is not None
            reader.stdin.close()
            return json.loads(reader.stdout.readline())

        yield end
