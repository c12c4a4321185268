"""Checkpoints are written and brought to the store while the training goes on."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from blora.models.model import Base, load_base
from blora.training.checkpoint import Checkpoint, CheckpointCopy
from blora.training.items import StepReport
from blora.training.train import train
from manifests.store.store import Store
from tasks.worker import checkpoints
from tasks.worker.checkpoints import CheckpointKeeper
from tests.benchmarks.peak import LiveBytes
from tests.blora.small_training import bit_equal, item, recipe
from tests.tiny import save_tiny_base

SETTINGS = recipe(steps=5, checkpoint_every_steps=1)
KEY = "runs/some/checkpoint.safetensors"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return load_base(save_tiny_base(tmp_path_factory.mktemp("bases") / "tiny"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "store"))


class Gate:
    """Holds whoever writes a checkpoint until it is opened, and counts how many write at once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fault: BaseException | None = None) -> None:
        self.opened, self.writing, self.saved = threading.Event(), threading.Semaphore(), 0
        self.fault = fault
        self.write: Callable[[CheckpointCopy, Path], None] = CheckpointCopy.save
        monkeypatch.setattr(CheckpointCopy, "save", self)

    def __get__(self, copy: CheckpointCopy, kind: Any) -> Callable[[Path], None]:
        return lambda path: self.save(copy, path)

    def save(self, copy: CheckpointCopy, path: Path) -> None:
        assert self.writing.acquire(blocking=False), "at most one is on its way"
        assert threading.current_thread() is not threading.main_thread()
        assert self.opened.wait(60)
        if self.fault:
            raise self.fault
        self.write(copy, path)
        self.saved += 1
        self.writing.release()


def test_training_goes_on_while_a_checkpoint_is_written(
    base: Base, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one of step 1 is written after step 5 has been taken, and what it resumes to is bit-equal."""
    items, gate = [item(0), item(1)], Gate(monkeypatch)
    with CheckpointKeeper(store, KEY) as keeper:

        def watch(report: StepReport) -> None:
            if report.step == SETTINGS.steps:
                gate.opened.set()

        undisturbed = train(base, items, SETTINGS, on_checkpoint=keeper, on_step=watch)
        assert gate.opened.is_set()
    assert gate.saved == 1, "those of steps 2 to 4 came while it was on its way"
    with CheckpointKeeper(store, KEY) as keeper:
        reports: list[StepReport] = []
        resumed = train(base, items, SETTINGS, checkpoint=keeper.find(), on_step=reports.append)
    assert reports[0].step == 2 and all(map(bit_equal, undisturbed, resumed))


def test_a_file_that_cannot_be_written_is_told_and_the_training_ends_well(
    base: Base, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate(monkeypatch, OSError(28, "No space left on device"))
    gate.opened.set()
    with caplog.at_level(logging.WARNING), CheckpointKeeper(store, KEY) as keeper:
        (result,) = train(base, [item(0)], recipe(steps=2, checkpoint_every_steps=1), on_checkpoint=keeper)
    assert result.adapter is not None and "No space left on device" in caplog.text
    assert not store.exists(KEY)


@pytest.mark.parametrize(("steps", "times"), [(2, 1), (3, 2)])
def test_any_other_failure_is_told_at_the_next_checkpoint_or_the_end(
    steps: int,
    times: int,
    base: Base,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It was lost in the thread once."""
    gate = Gate(monkeypatch, ValueError("a fault of the code"))
    gate.opened.set()

    def wait(report: StepReport) -> None:
        while keeper._under_way is not None and not keeper._under_way.done():
            threading.Event().wait(0.01)
        if keeper._under_way is not None:
            gate.writing.release()

    keeper = CheckpointKeeper(store, KEY)
    settings = recipe(steps=steps, checkpoint_every_steps=1)
    with caplog.at_level(logging.ERROR), keeper:
        (result,) = train(base, [item(0)], settings, on_checkpoint=keeper, on_step=wait)
    assert result.adapter is not None
    assert caplog.text.count("no checkpoint: a fault of the code") == times and "Traceback" in caplog.text


def test_where_memory_is_short_the_device_waits_for_the_file(
    base: Base, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Checkpoint, "to_host", lambda self: pytest.fail("copied"))
    monkeypatch.setattr(checkpoints, "free_device_bytes", lambda devices: (1000.0, False))
    with CheckpointKeeper(store, KEY) as keeper:
        train(base, [item(0)], recipe(steps=2, checkpoint_every_steps=1), on_checkpoint=keeper)
    assert store.exists(KEY)


def test_a_copy_takes_the_memory_of_the_pack_and_writing_it_none(base: Base, tmp_path: Path) -> None:
    """Three matrices: of SDXL at rank 64 338 MB an adapter, 5.4 GB of 16; a row more where one is streamed."""
    seen: list[tuple[int, int, int]] = []

    def look(checkpoint: Checkpoint) -> None:
        matrix = checkpoint.factors.values
        known = [matrix, checkpoint.optimizer.mean, checkpoint.optimizer.square, checkpoint.optimizer.counts]
        known += [progress.generator.get_state() for progress in checkpoint.pack]
        with LiveBytes(known) as live:
            copy = checkpoint.to_host()
            copied = live.peak
            copy.save(tmp_path / "copy.safetensors")
        checkpoint.save(tmp_path / "streamed.safetensors")
        seen.append((checkpoint.host_bytes, copied, live.peak))
        assert checkpoint.host_bytes == 3 * matrix.nbytes == 3 * 2 * matrix[0].nbytes

    train(base, [item(0), item(1)], recipe(steps=2, checkpoint_every_steps=1, rank=16), on_checkpoint=look)
    ((matrices, copied, written),) = seen
    states = 2 * torch.Generator().get_state().nbytes
    assert matrices < copied <= matrices + 3 * states and written == copied
    files = [(tmp_path / name).read_bytes() for name in ("copy.safetensors", "streamed.safetensors")]
    assert files[0] == files[1]
