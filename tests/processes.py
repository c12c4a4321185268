"""Waiting for other processes, and ending them."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable
from typing import Any

import psutil


def wait_for(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """Look twice a second until there is something; what there is."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"no {what} in {seconds:g} s"
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
