"""Which devices this process may use and what memory they have, found without importing torch."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tasks import environment

NVIDIA_SMI_SECONDS = 30.0
"""How long the driver's tool may take to answer."""
_MEMORY = Path("/proc/meminfo")
_PREFLIGHT = "blora.models.preflight"
PREFLIGHT_SECONDS = 180.0
"""How long torch may take to start and to try the GPUs."""


def chosen_devices(asked: str = "auto") -> tuple[str, ...]:
    """The devices to make slots of.

    Args:
        asked: ``auto``, or a comma-separated list of ``cpu`` and ``cuda:<index>``.

    Raises:
        ValueError: a word that is neither, a GPU that is not there, or GPUs of which nobody can tell.
    """
    wanted = environment.devices() if asked == "auto" else asked
    if wanted == "auto":
        return tuple(f"cuda:{index}" for index in range(len(visible_cuda_devices()))) or ("cpu",)
    names = tuple(word.strip() for word in wanted.split(",") if word.strip())
    bad = [name for name in names if name != "cpu" and not (name.startswith("cuda:") and name[5:].isdigit())]
    if bad or not names:
        raise ValueError(f"devices: received {wanted!r}; accepted: auto, cpu, or a list such as cuda:0,cuda:1")
    physical_gpus(names)
    return names


def physical_gpus(devices: Sequence[str]) -> list[str]:
    """The indices or UUIDs, as the machine counts its GPUs, of those among `devices`, each ``cuda:<index>`` or ``cpu``.

    Raises:
        ValueError: this process sees no such GPU, or nobody can tell.
    """
    asked = [device for device in devices if device != "cpu"]
    visible = visible_cuda_devices() if asked else []
    gpus = {f"cuda:{index}": gpu for index, gpu in enumerate(visible)}
    for device in asked:
        if device not in gpus:
            seen = f"this process sees {len(gpus)} GPU{'' if len(gpus) == 1 else 's'}"
            raise ValueError(f"devices: received {device}, but {seen}; accepted here: {', '.join(['cpu', *gpus])}")
    return [gpus[device] for device in asked]


def visible_cuda_devices() -> list[str]:
    """GPUs this process may use, by index or UUID, found without importing torch.

    Raises:
        ValueError: nvidia-smi does not answer. Taking that for a machine without GPUs would have its CPU do their work.
    """
    given = environment.visible_gpus()
    if given is not None:
        return [word.strip() for word in given.split(",") if word.strip() not in {"", "-1"}]
    try:
        listing = _nvidia_smi("--list-gpus")
    except TimeoutError as error:
        hint = "mend the driver, or choose with --devices cpu or CUDA_VISIBLE_DEVICES"
        raise ValueError(f"devices: received no list of GPUs: {error}; {hint}") from error
    return [str(index) for index, _ in enumerate(line for line in listing.splitlines() if line.startswith("GPU "))]


def free_device_bytes(devices: Sequence[str]) -> tuple[float | None, bool]:
    """Memory that the smallest GPU among `devices` has left, or this machine where none is a GPU; and which of the two.

    None where nobody can tell. Asked without importing torch. What the system holds of files it gives back: it is free.

    Raises:
        ValueError: one of the GPUs is not there.
    """
    if not (gpus := physical_gpus(devices)):
        return _available_bytes(), False
    try:
        free_mib = _nvidia_smi(f"--id={','.join(gpus)}", "--query-gpu=memory.free", "--format=csv,noheader,nounits")
        return min(float(line) * 2**20 for line in free_mib.split()), True
    except (ValueError, TimeoutError):
        return None, True


def _available_bytes() -> float | None:
    """This machine's memory that a program can have; where Linux does not say, what nothing at all uses."""
    with suppress(OSError):
        for line in _MEMORY.read_text().splitlines():
            if line.startswith("MemAvailable:"):  # see proc(5), in KiB
                return float(line.split()[1]) * 1024
    with suppress(ValueError, OSError):
        return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return None


def devices_here(asked: str = "auto") -> tuple[str, ...]:
    """The devices that a command would use, for an estimate; none where nothing is asked for and nobody can tell.

    Raises:
        ValueError: as `chosen_devices`, of devices that are asked for.
    """
    try:
        return chosen_devices(asked)
    except ValueError:
        if asked != "auto":
            raise
        return ()


def devices_told(devices: Sequence[str], gpu: str = "", is_asked: bool = False) -> str:
    """The devices of this machine that are reckoned with, for a person.

    Args:
        devices: as `devices_here` has them.
        gpu: as `gpu_name` says.
        is_asked: whether somebody has named them.
    """
    if not devices:
        return "not known: nothing answers for the GPUs of this machine"
    if set(devices) == {"cpu"} and not is_asked:
        return "cpu: no GPU is seen here; --shards pool reckons with GPUs elsewhere"
    return ", ".join(devices) + (f" ({gpu})" if gpu else "")


def preflight(devices: Sequence[str]) -> None:
    """Have the GPUs among `devices` tried before they are worked with; see `tried_devices`.

    Raises:
        ValueError: one cannot work, and why.
    """
    gpus = [device for device in devices if device != "cpu"]
    if not gpus or environment.slot_module() != environment.OWN_SLOT_MODULE:
        return
    said = tried_devices(gpus)
    if faults := [fault for fault in (said["fault"], *(fault for _, fault in said["devices"])) if fault]:
        raise ValueError(f"devices: {'; '.join(faults)}")


def ready_devices(asked: str = "auto") -> tuple[str, ...]:
    """The devices of a command that works on this machine, tried before anything else begins.

    Raises:
        ValueError: as `chosen_devices` and `preflight`.
    """
    devices = chosen_devices(asked)
    preflight(devices)
    return devices


def tried_devices(devices: Sequence[str]) -> dict[str, Any]:
    """What `blora.models.preflight` finds: driver, architecture, a product in bf16, free memory.

    In a process of its own: a driver that hangs must not take this one with it.

    Raises:
        ValueError: there is no such device, or nothing was found, and why.
    """
    gpus = physical_gpus(devices)
    kinds = [*(["cpu"] if "cpu" in devices else []), *(["cuda"] if gpus else [])]
    told = environment.with_variables(gpu_variables(gpus) if gpus else {})
    command = [sys.executable, "-m", _PREFLIGHT, *kinds]
    try:
        tried = subprocess.run(command, env=told, capture_output=True, text=True, timeout=PREFLIGHT_SECONDS)
        return dict(json.loads(tried.stdout))
    except subprocess.TimeoutExpired as error:
        hint = "mend the driver, or choose with --devices"
        raise ValueError(f"devices: no answer of {', '.join(devices)} in {PREFLIGHT_SECONDS:g} s; {hint}") from error
    except ValueError as error:
        said = (tried.stderr.strip().splitlines() or ["it died"])[-1]
        raise ValueError(f"devices: {said}") from error


def gpu_variables(gpus: Sequence[str]) -> dict[str, str]:
    """What a process is told that is to see some GPUs and no others, as `physical_gpus` names them.

    CUDA counts GPUs by speed unless it is told to count as nvidia-smi does, by which they were chosen.
    """
    return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": ",".join(gpus)}


def gpu_name(devices: Sequence[str]) -> str:
    """What the first GPU among `devices` is called, such as "NVIDIA H100 80GB HBM3"; empty where nobody can tell."""
    try:
        gpus = physical_gpus(devices)
        answer = _nvidia_smi(f"--id={gpus[0]}", "--query-gpu=name", "--format=csv,noheader") if gpus else ""
    except (ValueError, TimeoutError):
        return ""
    return answer.partition("\n")[0].strip()


def driver_table() -> str:
    """What nvidia-smi says of driver and GPUs, as it prints it for people; empty where there is none, or it fails.

    Raises:
        TimeoutError: it gives no answer.
    """
    return _nvidia_smi()


def _nvidia_smi(*arguments: str) -> str:
    """What the driver's tool answers; nothing where there is none, or it fails.

    Raises:
        TimeoutError: it gives no answer.
    """
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ""
    asked = subprocess.Popen([tool, *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        answer, _ = asked.communicate(timeout=NVIDIA_SMI_SECONDS)
    except subprocess.TimeoutExpired:
        asked.kill()  # and not waited for: what hangs in the driver cannot be killed
        raise TimeoutError(f"nvidia-smi gave no answer in {NVIDIA_SMI_SECONDS:g} s") from None
    return answer if asked.returncode == 0 else ""
