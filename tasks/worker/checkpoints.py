"""The newest checkpoint of a training, kept in the store while the training goes on.

A checkpoint of 16 adapters of rank 64 is 5.4 GB: it goes from the device to a file of this machine row by row, while
the device waits, and from there to the store in a thread, while the device works. One that cannot be kept is no reason
to end a training: it is told, and the next one is tried.
"""

from __future__ import annotations

import logging
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from blora.training.checkpoint import Checkpoint
from manifests.errors import StoreError
from manifests.store.store import Store

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
        self._upload: Future[None] | None = None

    def __enter__(self) -> CheckpointKeeper:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()
        self._folder.cleanup()

    def find(self) -> Path | None:
        """A file with the checkpoint that the store has, if it has one."""
        path = Path(self._folder.name) / "found.safetensors"
        return path if self._store.find_into(self._key, path) else None

    def __call__(self, checkpoint: Checkpoint) -> None:
        """Keep a checkpoint, unless the one before it is still on its way."""
        if self._upload is not None and not self._upload.done():
            return
        path = Path(self._folder.name) / "kept.safetensors"
        try:
            checkpoint.save(path)
        except OSError as error:
            log.warning("no checkpoint: %s cannot be written: %s", path, error)
            return
        self._upload = self._thread.submit(self._put, path)

    def _put(self, path: Path) -> None:
        try:
            self._store.replace_from(self._key, path)
        except StoreError as error:
            log.warning("no checkpoint: %s", error)
