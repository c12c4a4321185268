"""The Prefect server that a command talks to: the one that its settings name, or a temporary one of its own.

A server that is not there, or is none, is told in a line before anything begins. What Prefect has to say at length,
such as how a task failed, or the traceback of a flow, goes to the log file (`tasks.environment.log_file`).
"""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectHTTPStatusError
from prefect.logging.handlers import PrefectConsoleHandler
from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, get_current_settings

from tasks import environment
from tasks.errors import TaskError

_HINT = "start that server, or correct or unset PREFECT_API_URL (prefect config view shows where it is set)"
_STARTS = 2
"""How often the temporary server is tried; Prefect itself would go on for as long as it may take to start."""


class ServerUnreachable(TaskError):
    """There is no Prefect server where one should be, or it is none of this product's version."""


@contextmanager
def server_at_hand(*, lasting: bool = False, verbose: bool = False) -> Iterator[None]:
    """Have a server answer while flows run in this process.

    Args:
        lasting: a temporary one will not do.
        verbose: show on the terminal all that Prefect logs, tracebacks, too.

    Raises:
        ServerUnreachable: none answers, or it stops to.
    """
    if not verbose:
        _send_to_the_log()
    url = PREFECT_API_URL.value()
    if lasting and not url:
        raise ServerUnreachable("Prefect: received no PREFECT_API_URL; accepted: the address of a server that stays")
    if url:
        _ask(url)
    else:
        _start()
    try:
        yield
    except (httpx.HTTPError, PrefectHTTPStatusError) as error:
        raise _unreachable(url or "the temporary server", error) from error
    except RuntimeError as error:  # what Prefect makes of the first of them
        if isinstance(error.__cause__, httpx.HTTPError):
            raise _unreachable(url or "the temporary server", error.__cause__) from error
        raise


def _start() -> None:
    """Start a temporary server, and wait for it for as long as Prefect's settings say.

    Raises:
        ServerUnreachable: it does not start, or takes longer.
    """
    try:
        _TemporaryServer().start()
    except (RuntimeError, httpx.HTTPError) as error:
        said = " ".join(str(error).split())[:200]
        hint = "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS gives it longer"
        raise ServerUnreachable(f"{said} ({hint}; its log: {environment.log_file()})") from error


def _ask(url: str) -> None:
    """Have the server say its version.

    Raises:
        ServerUnreachable: it does not, or is of another age.
    """
    try:
        with get_client(sync_client=True) as client:  # it compares versions
            client.raise_for_api_version_mismatch()
    except Exception as error:  # whatever a client makes of an address that is none, or of a web server of another kind
        raise _unreachable(url, error) from error


def _unreachable(url: str, error: BaseException) -> ServerUnreachable:
    """Say what became of a request, by the first cause."""
    cause = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    said = " ".join(str(cause).split())[:200] or type(cause).__name__
    shown = url.partition("//")[0] + "//" + url.rpartition("@")[2] if "@" in url else url
    return ServerUnreachable(f"no Prefect server at {shown}: received {said}; {_HINT}")


class _TemporaryServer(SubprocessASGIServer):
    """Prefect's own temporary server, but one that ends with this process and writes to the log file.

    Prefect's clients use the instance that there is, so they use this one, once it is made.
    """

    def _run_uvicorn_command(self) -> subprocess.Popen[Any]:
        self._starts = getattr(self, "_starts", 0) + 1
        if self._starts > _STARTS:
            where = f"its log: {environment.log_file()}"
            raise ServerUnreachable(
                f"Prefect's temporary server does not start; its data lie in PREFECT_HOME, {PREFECT_HOME.value()}: see "
                f"that this folder can be written and its disk has room; {where}"
            )
        settings = get_current_settings().to_environment_variables(exclude_unset=True)
        server = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
        with environment.open_log() as log:
            return subprocess.Popen(
                [sys.executable, "-m", "tasks.dispatch.temporary_server", str(self.port)],
                env=environment.with_variables(server | settings),
                stdin=subprocess.PIPE,  # never written to: it closes when this process ends
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C on a terminal is not for it: the flow's end is yet to be told
            )


def _send_to_the_log() -> None:
    """Have whatever Prefect would show on the terminal written to the log file instead."""
    for logger in (logging.getLogger(), *map(logging.getLogger, ("prefect", "uvicorn", "fastapi"))):
        for handler in logger.handlers:
            if isinstance(handler, PrefectConsoleHandler) and _to_log not in handler.filters:
                handler.addFilter(_to_log)


def _to_log(record: logging.LogRecord) -> bool:
    """Write a line to the log file, traceback and all; none is for the terminal, where the command speaks."""
    form = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    with environment.open_log() as log:
        log.write(form.format(record).encode(errors="replace") + b"\n")
    return False
