"""A Prefect server as an operator runs it: on real Postgres and Redis, API and services apart, behind a password.

Postgres and Redis come from Debian (`make servers`). Each of the four processes can be killed and started again on its
port with its data, which is how the tests of faults use them. All listen on loopback only.
"""

from __future__ import annotations

import contextlib
import glob
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.processes import kill_family
from tests.servers import RECORDER_BATCHES, START_SECONDS, answers, free_ports, guard

HOW_TO_GET = "make servers (as root on Debian: postgresql and redis-server)"


def missing_servers() -> str:
    """What keeps Postgres and Redis from running here; empty if nothing does."""
    absent = [name for name, found in (("Postgres", _postgres_bin()), ("Redis", shutil.which("redis-server")))
              if not found]  # fmt: skip
    if absent:
        return f"not installed: {' and '.join(absent)}; get them with: {HOW_TO_GET}"
    return "" if os.getuid() or shutil.which("setpriv") else "Postgres refuses to run as root, and setpriv is missing"


def _postgres_bin() -> Path | None:
    """The folder of the newest Postgres; Debian keeps its programs out of PATH."""
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/postgres"), key=lambda path: int(path.split("/")[4]))
    on_path = shutil.which("postgres")
    return Path(found[-1]).parent if found else Path(on_path).parent if on_path else None


class Service:
    """One process that can be killed and started again with the same command, on the same port and data."""

    def __init__(
        self, name: str, command: Sequence[str], log: Path, ready: Callable[[], bool], environment: dict[str, str]
    ) -> None:
        """Start it and wait until it is ready.

        Args:
            name: for people.
            command: its command line.
            log: where its output goes, one start after the other.
            ready: whether it answers.
            environment: the whole of its environment.

        Raises:
            RuntimeError: it does not answer in three times `START_SECONDS`.
        """
        self.name, self.log = name, log
        self._command, self._ready, self._environment = list(command), ready, environment
        self.process = self._spawn()
        self.wait_until_ready()

    def _spawn(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as output:
            return subprocess.Popen(
                self._command,
                env=self._environment,
                cwd=self.log.parent,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_until_ready(self) -> None:
        """Wait until it answers.

        Raises:
            RuntimeError: it does not.
        """
        deadline = time.monotonic() + 3 * START_SECONDS
        while not self._ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                tail = self.log.read_text(errors="replace")[-2000:]
                self.kill()
                raise RuntimeError(f"{self.name} did not start; its log ends with:\n{tail}")
            time.sleep(0.1)

    def kill(self) -> None:
        """End it and all its children at once (SIGKILL), as the kernel's out-of-memory killer would."""
        kill_family(self.process)

    def start(self) -> None:
        """Start it again after `kill`, without waiting for it."""
        self.process = self._spawn()


@contextlib.contextmanager
def _running(service: Service) -> Iterator[Service]:
    try:
        yield service
    finally:
        service.kill()  # its data is thrown away


@contextlib.contextmanager
def serve_postgres() -> Iterator[tuple[Service, str]]:
    """Run Postgres with a fresh cluster on a fresh port; yields it and the address of an empty database.

    As root it runs as the user postgres (or nobody), to whom its data folder belongs: Postgres refuses root.

    Raises:
        RuntimeError: it is not installed, or does not start.
    """
    programs = _postgres_bin()
    if programs is None:
        raise RuntimeError(missing_servers())
    folder = Path(tempfile.mkdtemp(prefix="blora-postgres-"))
    try:
        (port,) = free_ports(1)
        password = secrets.token_hex(12)
        (folder / "password").write_text(password)
        as_user = _as_another(folder)
        data = str(folder / "data")
        subprocess.run(
            [*as_user, str(programs / "initdb"), "-D", data, "-U", "prefect", "--pwfile", str(folder / "password"),
             "--auth", "scram-sha-256", "--encoding", "UTF8", "--no-locale", "--no-sync"],
            check=True, cwd=folder, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        command = [*as_user, str(programs / "postgres"), "-D", data, "-p", str(port), "-k", str(folder)]
        command += ["-c", "listen_addresses=127.0.0.1", "-c", "max_connections=200", "-c", "shared_buffers=64MB"]
        ready = [str(programs / "pg_isready"), "-h", "127.0.0.1", "-p", str(port), "-q"]
        log = folder / "postgres.log"
        postgres = Service("Postgres", command, log, lambda: subprocess.run(ready).returncode == 0, _scrubbed())
        with _running(postgres):
            yield postgres, f"postgresql+asyncpg://prefect:{password}@127.0.0.1:{port}/postgres"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _as_another(folder: Path) -> list[str]:
    """The words before a command that make it run as somebody who is not root, and own the folder."""
    if os.getuid():
        return guard()
    names = {entry.pw_name for entry in pwd.getpwall()}
    user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
    for path in (folder, *folder.iterdir()):
        os.chown(path, user.pw_uid, user.pw_gid)
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", "--pdeathsig", "KILL"]


@contextlib.contextmanager
def serve_redis(folder: Path) -> Iterator[tuple[Service, int]]:
    """Run Redis on a fresh port with an append-only file in `folder`; yields it and the port.

    Raises:
        RuntimeError: it is not installed, or does not start.
    """
    program = shutil.which("redis-server")
    if program is None:
        raise RuntimeError(missing_servers())
    (port,) = free_ports(1)
    command = [*guard(), program, "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder), "--save", ""]
    command += ["--appendonly", "yes", "--maxmemory-policy", "noeviction"]
    redis = Service("Redis", command, folder / "redis.log", lambda: _pongs(port), _scrubbed())
    with _running(redis):
        yield redis, port


def _pongs(port: int) -> bool:
    """Whether Redis answers, and has read its file: it says LOADING until then."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False


def _scrubbed() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "PG"))}


@dataclass(frozen=True)
class ProductionServer:
    """A Prefect server in four processes, each of which can be killed and started again.

    Attributes:
        api_url: where its API answers.
        auth: "user:password" of the API.
        home: PREFECT_HOME of its clients.
        parts: postgres, redis, api and services, by these names.
    """

    api_url: str
    auth: str
    home: Path
    parts: dict[str, Service] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        """The variables by which a command, a worker or a flow finds this server."""
        return {
            "PREFECT_API_URL": self.api_url,
            "PREFECT_API_AUTH_STRING": self.auth,
            "PREFECT_HOME": str(self.home),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
        }


@contextlib.contextmanager
def serve_production(folder: Path) -> Iterator[ProductionServer]:
    """Run Postgres, Redis, `prefect server start --no-services` and `prefect server services start`.

    Args:
        folder: an empty folder of its own; the logs are there.

    Raises:
        RuntimeError: something is not installed, or does not start.
    """
    (port,) = free_ports(1)
    auth = f"blora:{secrets.token_hex(12)}"
    server = ProductionServer(f"http://127.0.0.1:{port}/api", auth, folder)
    with contextlib.ExitStack() as stack:
        postgres, database_url = stack.enter_context(serve_postgres())
        redis, redis_port = stack.enter_context(serve_redis(folder))
        environment = _scrubbed() | _server_settings(database_url, redis_port, auth) | server.environment()
        prefect = [*guard(), sys.executable, "-m", "prefect", "server"]
        subprocess.run(
            [*prefect, "database", "upgrade", "--yes"], env=environment, check=True, stdout=subprocess.DEVNULL
        )
        api = [*prefect, "start", "--host", "127.0.0.1", "--port", str(port), "--no-services"]
        health = f"{server.api_url}/health"
        server.parts.update(postgres=postgres, redis=redis)
        for name, command, ready in (
            ("api", api, lambda: answers(health)),
            ("services", [*prefect, "services", "start"], lambda: True),
        ):
            service = Service(f"Prefect {name}", command, folder / f"{name}.log", ready, environment)
            server.parts[name] = stack.enter_context(_running(service))
        yield server


def _server_settings(database_url: str, redis_port: int, auth: str) -> dict[str, str]:
    """What infra/compose.yaml sets, for these addresses."""
    return {
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": database_url,
        "PREFECT_SERVER_DATABASE_MIGRATE_ON_START": "false",
        "PREFECT_SERVER_EVENTS_MESSAGING_BROKER": "prefect_redis.messaging",
        "PREFECT_SERVER_EVENTS_MESSAGING_CACHE": "prefect_redis.messaging",
        "PREFECT_SERVER_EVENTS_CAUSAL_ORDERING": "prefect_redis.ordering",
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect_redis.lease_storage",
        "PREFECT_REDIS_MESSAGING_HOST": "127.0.0.1",
        "PREFECT_REDIS_MESSAGING_PORT": str(redis_port),
        "PREFECT_REDIS_MESSAGING_DB": "0",
        "PREFECT_SERVER_DOCKET_URL": f"redis://127.0.0.1:{redis_port}/1",
        "PREFECT_SERVER_API_AUTH_STRING": auth,
        "PREFECT_SERVER_UI_ENABLED": "false",
        **RECORDER_BATCHES,
    }
