"""Fixtures of the flows' tests: a real Prefect server, a tiny base on disk, and manifests of small pictures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from manifests.store.store import Store
from tests import warm_slot
from tests.servers import PrefectServer, guard
from tests.tiny import RESOLUTION_PX, picture, save_tiny_base

SETTINGS: dict[str, Any] = {
    "pack_size": 3,
    "shard_size": 4,
    "train": {"resolution_px": RESOLUTION_PX, "rank": 2, "steps": 6, "batch_size": 1, "checkpoint_every_steps": 2},
    "sample": {"steps": 2, "width_px": RESOLUTION_PX, "height_px": RESOLUTION_PX, "batch_size": 2},
}


@pytest.fixture(scope="session")
def prefect_api(prefect_server: PrefectServer) -> Iterator[str]:
    """The address of the session's one Prefect server, which flows of this process use, too."""
    from prefect.context import _temporary_global_settings_context, get_settings_context
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with (
        pytest.MonkeyPatch.context() as patch,
        temporary_settings({PREFECT_API_URL: prefect_server.api_url}),
        _temporary_global_settings_context(get_settings_context()),  # for threads, which begin without a context
    ):
        patch.setenv("PREFECT_HOME", str(prefect_server.home))
        yield prefect_server.api_url
        APILogWorker.drain_all()  # while there is still somebody to tell
        EventsWorker.drain_all()


@pytest.fixture(scope="session")
def warm_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a process that has imported what slots' children import, to be forked."""
    address = str(tmp_path_factory.mktemp("warm") / "socket")
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    command = [*guard(), sys.executable, "-m", "tests.warm_slot", address]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None and process.stdout.readline() == b"warm\n"
        yield address
        process.kill()


@pytest.fixture(scope="module")
def warm_slots(warm_process: str) -> Iterator[None]:
    """Slots of this module start real children that need not import anything (`tests.warm_slot`)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BLORA_SLOT_MODULE", "tests.warm_slot")
        patch.setenv(warm_slot.ADDRESS, warm_process)
        yield


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny base model as a folder; do not change it."""
    return save_tiny_base(tmp_path_factory.mktemp("base") / "tiny")


def live_leases(store: Store) -> list[str]:
    """Leases that have neither been released nor lapsed."""
    keys = store.list("leases/")
    return [key for key in keys if json.loads(store.read(key))["expires_at"] > time.time()]


class Project:
    """A user's folder: pictures and a manifest of a grid of them, on the tiny base."""

    def __init__(self, folder: Path, base: Path, contents: int = 2, styles: int = 2) -> None:
        """Write the pictures and the manifest."""
        self.folder, self.base = folder, base
        self.allow = ["--allow-root", str(base)]
        self.path = folder / "night.json"
        self.names = {"contents": [f"c{i}" for i in range(contents)], "styles": [f"s{i}" for i in range(styles)]}
        folder.mkdir(parents=True, exist_ok=True)
        for number, name in enumerate(self.names["contents"] + self.names["styles"]):
            self.draw(name, number)
        self.write()

    def draw(self, name: str, seed: int) -> None:
        """Write, or replace, one picture."""
        Image.fromarray(picture(seed, 48, 40)).save(self.folder / f"{name}.png")

    def write(self, **changes: Any) -> None:
        """Write the manifest, with changed keys."""
        sides = {
            side: [{"image": f"{name}.png", "name": name, "word": f"thing {name}"} for name in names]
            for side, names in self.names.items()
        }
        body = {"version": 1, "name": "night", "base": str(self.base), "settings": SETTINGS, "grid": True, **sides}
        self.path.write_text(json.dumps(body | changes, indent=1))


@pytest.fixture
def project(tmp_path: Path, tiny_base: Path) -> Project:
    """A grid of 2 x 2."""
    return Project(tmp_path / "project", tiny_base)
