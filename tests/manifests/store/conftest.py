"""Fixtures of the store's tests: racing processes, and a failing disk."""

from __future__ import annotations

import errno
import multiprocessing
import os
from collections.abc import Iterator
from multiprocessing.pool import Pool

import pytest

RACERS = 4


@pytest.fixture(scope="session")
def racers() -> Iterator[Pool]:
    """Processes of their own, started once: nothing is shared with them but the store."""
    with multiprocessing.get_context("spawn").Pool(RACERS) as pool:
        yield pool


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
