"""Whether a GPU can do what it will be asked for, found in seconds and before anything is planned or loaded.

``python -m blora.models.preflight`` looks at every GPU that the process sees, one line for each that cannot work.
"""

from __future__ import annotations

import sys
from typing import Final

import torch

__all__ = ["faults_of_gpus", "gpu_fault"]

_LEAST_FREE_BYTES: Final = 10**9
_SIDE: Final = 256


def faults_of_gpus() -> list[str]:
    """Return one line for each reason why the GPUs of this process cannot work; none where they all can."""
    built = f"torch {torch.__version__}"
    if torch.version.cuda is None:
        return [f"{built} was installed without CUDA; do: install the wheel of torch for your driver"]
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        said = str(error).splitlines()[0]
        return [f"{built} cannot reach a GPU: {said}; do: a driver for CUDA {torch.version.cuda}, or --devices cpu"]
    return [fault for index in range(torch.cuda.device_count()) if (fault := gpu_fault(index))]


def gpu_fault(index: int) -> str:
    """Return why a GPU cannot work, in a line; empty where it can."""
    name = f"cuda:{index} ({torch.cuda.get_device_name(index)})"
    try:
        with torch.cuda.device(index):
            free, total = torch.cuda.mem_get_info()
            if free < _LEAST_FREE_BYTES:
                held = f"received {free / 1e9:.1f} of {total / 1e9:.1f} GB free"
                return f"{name}: {held}; do: end what else is on it, or choose others with --devices"
            numbers = torch.arange(_SIDE, device="cuda").to(torch.bfloat16).diag()
            if not torch.equal(numbers @ torch.eye(_SIDE, device="cuda", dtype=torch.bfloat16), numbers):
                return f"{name}: a product in bf16 came out wrong; do: have the GPU and its driver checked"
    except RuntimeError as error:  # no kernel of this build fits, or the device fails
        major, minor = torch.cuda.get_device_capability(index)
        kinds = f"it is sm_{major}{minor}, torch has {' '.join(torch.cuda.get_arch_list())}"
        return f"{name}: {str(error).splitlines()[0]} ({kinds}); do: install a torch that knows it"
    return ""


if __name__ == "__main__":
    faults = faults_of_gpus()
    sys.stdout.write("".join(f"{fault}\n" for fault in faults))
    raise SystemExit(bool(faults))
