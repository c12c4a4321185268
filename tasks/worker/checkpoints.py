"""The newest checkpoint of a training, kept in the store while the training goes on.

A checkpoint of 16 adapters of rank 64 is 5.4 GB. It is copied to the CPU's memory while the device waits; writing it to
a file of this machine and bringing that to the store are a thread's work, while the device goes on. Where memory is
short it goes from the device to the file row by row, and the device waits for that. One that cannot be kept is no
reason to end a training: it is told, at the next checkpoint or the end at the latest, and the next one is tried.
"""

from __future__ import annotations

import logging
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from blora.training.checkpoint import Checkpoint, CheckpointCopy
from manifests.errors import StoreError
from manifests.store.store import Store
from tasks.devices import free_device_bytes

log = logging.getLogger(__name__)


class CheckpointKeeper:
    """Use as a context manager; at its end nothing is on its way any more."""

    def __init__(self, store: Store, key: str) -> None:
        """Hold nothing yet.

        Args:
            store: where checkpoints go.
            key: of the checkpoint.
        """
        self._store, self._key = store, key
        self._folder = tempfile.TemporaryDirectory(prefix="blora-checkpoint-")
        self._thread = ThreadPoolExecutor(1)
        self._under_way: Future[None] | None = None

    def __enter__(self) -> CheckpointKeeper:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()
        self._folder.cleanup()
        self._tell_of_fault()

    def find(self) -> Path | None:
        """A file with the checkpoint that the store has, if it has one."""
        path = Path(self._folder.name) / "found.safetensors"
        return path if self._store.find_into(self._key, path) else None

    def __call__(self, checkpoint: Checkpoint) -> None:
        """Keep a checkpoint, unless the one before it is still on its way."""
        if self._under_way is not None:
            if not self._under_way.done():
                return
            self._tell_of_fault()
        path = Path(self._folder.name) / "kept.safetensors"
        written: Future[bool] = Future()
        if _has_room(checkpoint.host_bytes):
            written = self._thread.submit(_write, checkpoint.to_host(), path)
        else:
            written.set_result(_write(checkpoint, path))
        self._under_way = self._thread.submit(self._put, path, written)

    def _tell_of_fault(self) -> None:
        """Tell of what no disk and no store is to blame for, which would else be lost in the thread."""
        if self._under_way is not None and (error := self._under_way.exception()):
            log.error("no checkpoint: %s", error, exc_info=error)
        self._under_way = None

    def _put(self, path: Path, written: Future[bool]) -> None:
        """Bring a file to the store; the copy that it was written from is gone by now."""
        if written.result():
            try:
                self._store.replace_from(self._key, path)
            except StoreError as error:
                log.warning("no checkpoint: %s", error)


def _write(checkpoint: Checkpoint | CheckpointCopy, path: Path) -> bool:
    """Whether a checkpoint could be written to a file."""
    try:
        checkpoint.save(path)
    except OSError as error:
        log.warning("no checkpoint: %s cannot be written: %s", path, error)
        return False
    return True


def _has_room(size: int) -> bool:
    """Whether so many bytes are at most half of this machine's free memory; where nobody can tell, they are not."""
    free_bytes, _ = free_device_bytes(("cpu",))
    return free_bytes is not None and size <= free_bytes / 2
