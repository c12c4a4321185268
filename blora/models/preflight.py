"""Whether devices can do what they will be asked for, found in seconds and before anything is planned or loaded.

``python -m blora.models.preflight cpu cuda`` tries the CPU and every GPU that the process sees, and prints as JSON what
it found: `examined`.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from typing import Any, Final

import torch

__all__ = ["examined"]

_LEAST_FREE_BYTES: Final = 10**9
_SIDE: Final = 256


def examined(kinds: list[str]) -> dict[str, Any]:
    """Try the CPU, the GPUs of this process, or both.

    Args:
        kinds: "cpu", "cuda".

    Returns:
        ``torch``, ``cuda`` (None for a build without it) and ``diffusers``: their versions. ``fault``: why no GPU can
        be reached. ``devices``: of each that was tried, what it is and why it cannot work, a line each or empty.
    """
    said: dict[str, Any] = {"torch": torch.__version__, "cuda": torch.version.cuda, "diffusers": version("diffusers")}
    fault = _fault_of_the_build() if "cuda" in kinds else ""
    count = torch.cuda.device_count() if "cuda" in kinds and not fault else 0
    names = [*(["cpu"] if "cpu" in kinds else []), *(f"cuda:{index}" for index in range(count))]
    return {**said, "fault": fault, "devices": [_tried(name) for name in names]}


def _fault_of_the_build() -> str:
    """Why this torch reaches no GPU at all; empty where it does."""
    built = f"torch {torch.__version__}"
    if torch.version.cuda is None:
        return f"{built} was installed without CUDA; do: install the wheel of torch for your driver"
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        said = str(error).splitlines()[0]
        return f"{built} cannot reach a GPU: {said}; do: a driver for CUDA {torch.version.cuda}, or --devices cpu"
    return ""


def _tried(name: str) -> tuple[str, str]:
    """What a device is, and why it cannot work, each in a line; the second empty where it can."""
    device = torch.device(name)
    told = "bf16 product exact"
    try:
        if device.type == "cuda":
            free, total = torch.cuda.mem_get_info(device)
            major, minor = torch.cuda.get_device_capability(device)
            label, memory = torch.cuda.get_device_name(device), f"{free / 1e9:.1f} of {total / 1e9:.1f} GB free"
            name, told = f"{name} ({label})", f"{label}, sm_{major}{minor}, {memory}, {told}"
            if free < _LEAST_FREE_BYTES:
                return told, f"{name}: received {memory}; do: end what else is on it, or choose others with --devices"
        numbers = torch.arange(_SIDE, device=device).to(torch.bfloat16).diag()
        if not torch.equal(numbers @ torch.eye(_SIDE, device=device, dtype=torch.bfloat16), numbers):
            return told, f"{name}: a product in bf16 came out wrong; do: have the device and its driver checked"
    except RuntimeError as error:  # no kernel of this build fits, or the device fails
        what = str(error).splitlines()[0]
        if device.type == "cuda":
            major, minor = torch.cuda.get_device_capability(device)
            what += f" (it is sm_{major}{minor}, torch has {' '.join(torch.cuda.get_arch_list())})"
        return told, f"{name}: {what}; do: install a torch that knows it"
    return told, ""


if __name__ == "__main__":
    sys.stdout.write(json.dumps(examined(sys.argv[1:])))
