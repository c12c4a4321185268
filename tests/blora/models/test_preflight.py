"""What a device is told of before work: faults that only a GPU has, stood in for."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from blora.models import preflight

GB = 10**9


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A GPU that answers questions; whatever is computed on it is computed on the CPU."""
    said: dict[str, Any] = {"free": 20 * GB}
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (said["free"], 24 * GB))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (5, 2))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "some GPU")
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_80", "sm_90"])
    arange, eye = torch.arange, torch.eye
    monkeypatch.setattr(torch, "arange", lambda *sizes, device: arange(*sizes))
    monkeypatch.setattr(torch, "eye", lambda *sizes, device, **more: eye(*sizes, **more))
    return said


def test_a_sound_gpu_is_told_and_has_no_fault(gpu: dict[str, Any]) -> None:
    told, fault = preflight._tried("cuda:0")
    assert told == "some GPU, sm_52, 20.0 of 24.0 GB free, bf16 product exact" and not fault


def test_a_full_gpu_a_wrong_product_and_a_missing_kernel_are_faults(
    gpu: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu["free"] = GB // 2
    assert "received 0.5 of 24.0 GB free; do: end what else is on it" in preflight._tried("cuda:0")[1]
    gpu["free"] = 20 * GB
    with monkeypatch.context() as wrong:
        wrong.setattr(torch, "eye", lambda *sizes, **more: torch.zeros(sizes[0], sizes[0], dtype=torch.bfloat16))
        assert "a product in bf16 came out wrong; do: " in preflight._tried("cuda:0")[1]

    def no_kernel(*_: Any, **more: Any) -> None:
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device\nmore")

    monkeypatch.setattr(torch, "arange", no_kernel)
    fault = preflight._tried("cuda:0")[1]
    assert "no kernel image" in fault and "(it is sm_52, torch has sm_80 sm_90); do: install a torch" in fault
