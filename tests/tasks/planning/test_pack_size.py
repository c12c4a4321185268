"""What a slot on a GPU makes of its memory, and what a planner asks of the device; no GPU is needed to ask."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from blora.errors import OutOfMemoryError
from blora.models import memory, sizes
from blora.settings.resolve import resolve
from blora.settings.sampling import SampleSettings
from blora.settings.training import TrainSettings
from manifests.store.store import Store
from tasks.devices import chosen_devices, free_device_bytes
from tasks.memory import auto_pack_size, front_pool_told, memory_model, memory_told
from tasks.worker.session import Session

GB = 10**9
SDXL = "org/sdxl@" + "0" * 40


def session(store: Path, free_bytes: float | None) -> Session:
    slot = Session("cpu", Store.open(str(store)), lambda event: None)
    slot._free_bytes = free_bytes
    return slot


def test_a_slot_fits_work_to_its_memory(tmp_path: Path) -> None:
    train, draw = TrainSettings(precision="bf16"), SampleSettings(precision="bf16", batch_size=16)
    large, small, cpu = (session(tmp_path, free) for free in (80 * GB, 10 * GB, None))
    assert large.training(SDXL, train, 4) == train
    assert session(tmp_path, 12 * GB).training(SDXL, train, 2) == train, "one at a time keeps its activations"
    assert small.training(SDXL, train, 2).checkpointing == "on"
    assert session(tmp_path, 7 * GB).training(SDXL, train, 1).checkpointing == "on", "tried: a model may be wrong"
    assert cpu.training(SDXL, train, 64) is train and cpu.drawing(SDXL, draw) is draw
    assert large.drawing(SDXL, draw) == draw
    assert 1 <= small.drawing(SDXL, draw).batch_size < 16
    assert small.drawing(SDXL, draw).identity() == draw.identity()
    with pytest.raises(OutOfMemoryError, match="GB or more"):
        session(tmp_path, 5 * GB).drawing(SDXL, draw)


def test_a_slot_puts_a_pool_of_fronts_where_it_fits(tmp_path: Path) -> None:
    pooled = TrainSettings(precision="bf16", front_pool=16)
    assert session(tmp_path, 24 * GB).training(SDXL, pooled, 2) == pooled
    beside = session(tmp_path, 12 * GB).training(SDXL, pooled, 2)
    assert (beside.front_place, beside.checkpointing) == ("host", "auto") and beside.identity() == pooled.identity()
    assert session(tmp_path, 12 * GB).training(SDXL, TrainSettings(precision="bf16"), 2).front_place == "auto"
    assert front_pool_told(SDXL, TrainSettings()) == ""
    assert "26% of the steps" in front_pool_told(SDXL, pooled) and "0.86 GB" in front_pool_told(SDXL, pooled)


def fake_nvidia_smi(folder: Path, *free_mib: int) -> None:
    """The tool as it answers on a machine with GPUs: what it lists, and what it says of free memory."""
    listing = "\n".join(f"GPU {number}: some" for number in range(len(free_mib)))
    answer = "\n".join(map(str, free_mib))
    tool = folder / "nvidia-smi"
    tool.write_text(f'#!/bin/sh\ncase "$*" in *list-gpus*) echo "{listing}";; *) echo "{answer}";; esac\n')
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)


@pytest.mark.parametrize(
    ("free_gb", "told"),
    [
        (24, "packs of up to 4; batches of up to 4"),
        (16, "packs of up to 2; batches of up to 4"),
        (12, "packs of up to 1; batches of up to 4, text encoders leave after their work"),
        (8, "packs of up to 1, activations recomputed, text encoders on the CPU, the autoencoder in tiles; "
            "batches of up to 1, text encoders on the CPU, the autoencoder in tiles"),
        (6, "train: training one adapter does not fit on the device: received 6.0 GB free"),
    ],
)  # fmt: skip
def test_a_plan_says_what_a_card_is_used_for(
    free_gb: int, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_nvidia_smi(tmp_path, -(-free_gb * GB // 2**20))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert told in memory_told(SDXL, resolve("paper"), chosen_devices())
    assert memory_told(SDXL, resolve("paper"), ["cpu"]) == ""


def test_auto_asks_the_smallest_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_nvidia_smi(tmp_path, 81000, 23000)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    both = chosen_devices("auto")
    assert free_device_bytes(both) == (23000 * 2**20, True)
    train = resolve("paper", {"pack_size": "auto"}).train
    assert auto_pack_size(SDXL, train, both) == memory.plan_memory(23000 * 2**20, train).size == 4
    free_bytes, on_gpu = free_device_bytes(("cpu",))
    assert not on_gpu and free_bytes not in (None, 23000 * 2**20), "of the GPUs, which are not to be used"


def test_without_a_gpu_it_is_this_machines_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    devices = chosen_devices("auto")
    free_bytes, on_gpu = free_device_bytes(devices)
    assert not on_gpu and free_bytes is not None and free_bytes > 0
    assert 1 <= auto_pack_size("embedded", resolve("demo").train, devices) <= 8


def test_the_embedded_model_is_small() -> None:
    model = memory_model("embedded")
    assert model.width == 0.1 and model.factor == 4
    assert memory.needed_bytes(resolve("demo").train, memory.MemoryPlan(8), model) < 4 * GB
    assert memory_model(SDXL) == sizes.SDXL
