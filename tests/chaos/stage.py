"""Where an episode plays: real servers, a manifest, the real `blora` command, workers; the GPU alone is a stub."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from manifests.store.store import Store
from tests.chaos.checks import Truth, read_truth
from tests.chaos.proxy import RandomProxy, bad_network
from tests.chaos.schedule import Place
from tests.production import Service
from tests.servers import S3Server, Worker

SIDES = 4
"""Contents, and styles: 8 adapters, 16 pictures."""

STUB = {"BLORA_SLOT_MODULE": "tests.stub_slot", "BLORA_STUB_SECONDS": "0.2", "BLORA_STUB_COPIES": "4096"}
"""A fifth of a second an adapter or batch, 256 KiB half an adapter: long enough to be hit, also during a put."""

REAL_SETTINGS = {
    "pack_size": 2,
    "train": {"steps": 20, "checkpoint_every_steps": 5},
    "sample": {"steps": 4, "batch_size": 2},
}
"""The embedded model in place of the stub, with few steps: what it draws is of no interest, its bytes are."""

LEASE_SECONDS = 10
POOL_LEASE_SECONDS = 20
STARTING_SECONDS = 120
"""Small, so that what a killed holder had is free again soon; large enough for renewals on a machine that is busy."""

RATE = 0.2
"""How many of the calls to the bad network's S3 go wrong."""


@dataclass
class Stage:
    """Servers that live as long as the session. Made by `set_up`.

    Attributes:
        folder: manifests, logs and local stores.
        s3: the real S3.
        network: the bad network before it.
        client_environment: by which commands find the Prefect server.
        parts: the parts of the server that can be killed, by name; none of a server in one process.
        stub: whether a stub stands in for the model.
        truth: what an undisturbed run leaves.
    """

    folder: Path
    s3: S3Server
    network: RandomProxy
    client_environment: Mapping[str, str]
    parts: Mapping[str, Service]
    stub: bool = True
    truth: Truth = field(default_factory=lambda: Truth("", {}, ()))
    returned: dict[str, int] = field(default_factory=dict)
    """How often a part of the server ended by itself and was started again, as `restart: unless-stopped` would."""
    _back_at: dict[str, float] = field(default_factory=dict)

    def root(self, number: int, place: Place) -> str:
        """A fresh root."""
        return str(self.folder / f"store-{number}") if place == "folder" else self.s3.fresh_root()

    def manifest(self, number: int) -> Path:
        """The one manifest, under a name of the episode's own, which the flow run then has, too."""
        path = self.folder / f"chaos-{number}.json"
        shutil.copyfile(self.folder / "chaos.json", path)
        return path

    def environment(self, root: str, place: Place, ledger: Path, on_pool: bool = False) -> dict[str, str]:
        """The variables of a command, and of the workers that it hands over to."""
        settings = {
            **(STUB if self.stub else {}),
            "BLORA_ROOT": root,
            "BLORA_STUB_LOG": str(ledger),
            "BLORA_LEASE_SECONDS": str(POOL_LEASE_SECONDS if on_pool else LEASE_SECONDS),
            "BLORA_STARTING_SECONDS": str(STARTING_SECONDS),
            "PYTHONPATH": os.getcwd(),
            "OMP_NUM_THREADS": "1",
        }
        endpoint = {"AWS_ENDPOINT_URL": self.network.endpoint_url} if place == "faulty s3" else {}
        return {**os.environ, **self.s3.environment(), **self.client_environment, **settings, **endpoint}

    def command(self, environment: Mapping[str, str], log: Path, *arguments: str) -> subprocess.Popen[bytes]:
        """Start the real `blora` command."""
        with log.open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "flows.cli", *arguments],
                env=dict(environment), stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip

    def worker(self, environment: Mapping[str, str], number: int) -> Worker:
        """Start a worker on the pool of the GPUs, or another one in its place."""
        return Worker("blora-gpu", f"gpu-{number}", self.folder, dict(environment))

    def kill_part(self, name: str, down_seconds: float) -> None:
        """Kill a part of the server; `tend` starts it again after so many seconds."""
        self.parts[name].kill()
        self._back_at[name] = time.monotonic() + down_seconds

    def tend(self) -> None:
        """Start parts of the server that are due, and those that ended by themselves."""
        now = time.monotonic()
        for name, part in self.parts.items():
            if part.process.poll() is None:
                continue
            if name not in self._back_at:
                self.returned[name] = self.returned.get(name, 0) + 1
                self._back_at[name] = now + 1
            if now >= self._back_at[name]:
                del self._back_at[name]
                part.start()


def write_manifest(folder: Path, stub: bool) -> Path:
    """A grid of small pictures of a colour each, on the embedded base model; a smaller one for the model itself."""
    count = SIDES if stub else 2
    sides: dict[str, list[dict[str, str]]] = {"contents": [], "styles": []}
    for number in range(2 * count):
        side = "contents" if number < count else "styles"
        name = f"{side[0]}{number % count}"
        picture = Image.new("RGB", (16, 16), (30 * number, 255 - 30 * number, 90))
        picture.putpixel((0, 0), (0, 0, 0))
        picture.save(folder / f"{name}.png")
        sides[side].append({"image": f"{name}.png", "name": name, "word": name})
    settings = {"pack_size": 2, "shard_size": 2, "sample": {"batch_size": 1}} if stub else REAL_SETTINGS
    path = folder / "chaos.json"
    path.write_text(json.dumps({"version": 1, "name": "chaos", "grid": True, "settings": settings, **sides}))
    return path


@contextmanager
def set_up(
    folder: Path,
    s3: S3Server,
    client_environment: Mapping[str, str],
    parts: Mapping[str, Service] | None = None,
    seed: int = 0,
    stub: bool = True,
) -> Iterator[Stage]:
    """A stage with the truth of an undisturbed run."""
    write_manifest(folder, stub)
    with ExitStack() as stack:
        network = stack.enter_context(bad_network(s3, RATE, seed))
        stage = Stage(folder, s3, network, client_environment, parts or {}, stub)
        root, log = str(folder / "undisturbed"), folder / "undisturbed.log"
        environment = stage.environment(root, "folder", folder / "undisturbed.jsonl")
        arguments = ("run", str(folder / "chaos.json"), "--devices", "cpu,cpu")
        if stage.command(environment, log, *arguments).wait(timeout=900):
            raise RuntimeError(f"the undisturbed run failed; its log ends with:\n{log.read_text()[-3000:]}")
        stage.truth = read_truth(Store.open(root))
        yield stage
