"""Digests of files are computed once a machine; a cache that is corrupt or cannot be written is harmless."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from blora.bases import digests
from blora.bases.places import place_revision


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache that remembers small files, too; the test's process forgets between two calls."""
    monkeypatch.setattr(digests, "DIGESTS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(digests, "_LARGE_BYTES", 1)
    return tmp_path / "cache"


def as_another_process(path: Path) -> str:
    digests._remembered.cache_clear()
    return digests.file_digest(path)


def settled(path: Path, data: bytes, at: int = 1) -> str:
    """Write a file that was changed long ago; returns its digest."""
    path.write_bytes(data)
    os.utime(path, (at, at))
    return hashlib.sha256(data).hexdigest()


def test_a_file_is_hashed_once_a_machine_and_anew_when_it_changes(cache: Path, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    digest = settled(file, b"weights")
    assert as_another_process(file) == digest
    (kept,) = cache.iterdir()
    kept.write_text("0" * 64)  # to tell an answer from the cache from one that is computed
    assert as_another_process(file) == "0" * 64, "hashed again"
    assert place_revision(str(file)) == "0" * 64, "the revision of a base asks the same cache"
    settled(file, b"weights", at=2)
    assert as_another_process(file) == digest, "another time is another file"
    file.rename(tmp_path / "old")
    (tmp_path / "new").write_bytes(b"WEIGHTS")
    os.utime(tmp_path / "new", (2, 2))
    (tmp_path / "new").rename(file)
    assert as_another_process(file) == hashlib.sha256(b"WEIGHTS").hexdigest(), "so is another inode"


@pytest.mark.parametrize("damage", [b"", b"0" * 63, b"\xff\xfe", b"g" * 64])
def test_a_corrupt_cache_is_harmless(cache: Path, tmp_path: Path, damage: bytes) -> None:
    file = tmp_path / "model.safetensors"
    digest = settled(file, b"weights")
    as_another_process(file)
    (kept,) = cache.iterdir()
    kept.write_bytes(damage)
    assert as_another_process(file) == digest and kept.read_text() == digest, "and is mended"


def test_a_cache_that_cannot_be_is_harmless(cache: Path, tmp_path: Path) -> None:
    cache.write_bytes(b"a file where the folder should be")
    file = tmp_path / "model.safetensors"
    digest = settled(file, b"weights")
    assert as_another_process(file) == digest


def test_a_file_that_may_still_change_is_not_kept(cache: Path, tmp_path: Path) -> None:
    """A second write in the same step of the file system's clock would show in nothing but the content."""
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"weights")
    assert as_another_process(file) == hashlib.sha256(b"weights").hexdigest() and not cache.exists()
