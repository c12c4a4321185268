"""Fixtures of the store's tests: racing processes, and a bad network."""

from __future__ import annotations

import errno
import multiprocessing
import os
from collections.abc import Iterator
from multiprocessing.pool import Pool

import pytest

from manifests.store import retries
from tests.manifests.store.flaky import Proxy, flaky_proxy
from tests.servers import S3Server

RACERS = 4


@pytest.fixture(scope="session")
def racers() -> Iterator[Pool]:
    """Processes of their own, started once: nothing is shared with them but the store."""
    with multiprocessing.get_context("spawn").Pool(RACERS) as pool:
        yield pool


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real retries, with waits that a test can afford."""
    monkeypatch.setattr(retries, "FIRST_WAIT_SECONDS", 0.01)
    monkeypatch.setattr(retries, "LONGEST_WAIT_SECONDS", 0.05)


@pytest.fixture
def failing_folder_sync(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A disk that takes files, but fails when it is asked to keep their folder; the folders it was asked for."""
    asked: list[str] = []
    really = os.open

    def failing(path: str, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_DIRECTORY:
            asked.append(str(path))
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return really(path, flags, mode)

    monkeypatch.setattr(os, "open", failing)
    return asked


@pytest.fixture
def network(s3_server: S3Server, s3_root: str, quick_retries: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """The S3 server behind a network that fails as the test says."""
    with flaky_proxy(s3_server) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint_url)
        yield proxy
