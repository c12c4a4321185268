"""Which devices there are: asked of the driver's tool, which may be missing, may fail and may hang."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from flows.cli.main import app
from tasks import devices
from tasks.devices import chosen_devices, free_device_bytes, preflight
from tasks.dispatch.slot import Slot
from tasks.dispatch.slots import SlotPool
from tasks.messages import ScoreShard


def nvidia_smi(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Have this process find a tool of that name, and nothing said of GPUs."""
    tool = folder / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", f"{folder}:/bin:/usr/bin")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine whose GPU is only said to be there")
def test_a_gpu_that_torch_cannot_reach_is_told_before_anything_is_planned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvidia_smi(tmp_path, monkeypatch, "echo 'GPU 0: some'")
    said = CliRunner().invoke(app, ["run", "no-such.yaml", "--root", str(tmp_path / "store")], env={"COLUMNS": "400"})
    assert "devices: torch " in said.stderr, said.output
    monkeypatch.setenv("BLORA_SLOT_MODULE", "tests.stub_slot")
    preflight(["cuda:0"])  # whoever works there says for itself what it needs


def test_gpus_are_counted_as_they_were_chosen_and_share_the_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvidia_smi(tmp_path, monkeypatch, "echo 'GPU 0: some'; echo 'GPU 1: some'")
    for name in ("OMP_NUM_THREADS", "CUBLAS_WORKSPACE_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 12)
    told: list[dict[str, str]] = []

    class Told(Exception):
        pass

    def start(command: list[str], *, env: dict[str, str], **_: Any) -> None:
        told.append(env)
        raise Told

    monkeypatch.setattr("tasks.dispatch.slot.subprocess.Popen", start)
    for slot in SlotPool(("cuda:0", "cuda:1"), str(tmp_path)).slots:
        monkeypatch.setattr("tasks.dispatch.slot.physical_gpus", lambda names: [names[0][5:]])
        with pytest.raises(Told):
            slot.call(ScoreShard("run", "shard"))
    names = ("CUDA_DEVICE_ORDER", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "CUBLAS_WORKSPACE_CONFIG")
    assert [[env.get(name) for name in names] for env in told[:2]] == [
        ["PCI_BUS_ID", "0", "4", ":4096:8"],
        ["PCI_BUS_ID", "1", "4", ":4096:8"],
    ]
    assert told[2]["OMP_NUM_THREADS"] == "4", "the one that scores on the CPU"


def test_a_gpu_that_is_not_there_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvidia_smi(tmp_path, monkeypatch, "echo 'GPU 0: some'; echo 'GPU 1: some'")
    assert chosen_devices("cuda:1,cpu") == ("cuda:1", "cpu")
    with pytest.raises(ValueError, match=r"received cuda:9, but this process sees 2 GPUs; .*: cpu, cuda:0, cuda:1"):
        chosen_devices("cuda:0,cuda:9")
    slot = Slot("cuda:9", str(tmp_path), stall_timeout_seconds=60)
    with pytest.raises(ValueError, match="received cuda:9, but this process sees 2 GPUs"):
        slot.call(ScoreShard("none", "s"))


def test_where_there_is_no_gpu_only_the_cpu_is_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvidia_smi(tmp_path, monkeypatch, "echo 'no driver' >&2; exit 9")
    assert chosen_devices("auto") == ("cpu",)
    with pytest.raises(ValueError, match=r"received cuda:0, but this process sees 0 GPUs; accepted here: cpu$"):
        chosen_devices("cuda:0")


def test_a_driver_that_hangs_is_said_and_waited_for_no_longer_than_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tool's own child keeps its output open after the tool was killed, as a tool does that cannot be killed."""
    nvidia_smi(tmp_path, monkeypatch, "sleep 20; exit 0")
    monkeypatch.setattr(devices, "NVIDIA_SMI_SECONDS", 0.3, raising=False)
    started = time.monotonic()
    with pytest.raises(ValueError, match=r"no list of GPUs: nvidia-smi gave no answer in 0\.3 s; mend the driver"):
        chosen_devices("auto")
    assert chosen_devices("cpu") == ("cpu",)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert free_device_bytes(("cuda:0",)) == (None, True)
    assert time.monotonic() - started < 10


def test_memory_that_holds_files_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that has read or written much has nearly none that nothing uses, and gives all of it to who asks."""
    (tmp_path / "meminfo").write_text("MemTotal: 24000000 kB\nMemFree: 300000 kB\nMemAvailable:   20000000 kB\n")
    monkeypatch.setattr(devices, "_MEMORY", tmp_path / "meminfo", raising=False)
    assert free_device_bytes(("cpu",)) == (20000000 * 1024, False)
    monkeypatch.setattr(devices, "_MEMORY", tmp_path / "none", raising=False)
    unused, on_gpu = free_device_bytes(("cpu",))
    assert unused and not on_gpu
