"""The one module that reads the environment.

Object storage reads its own usual variables (AWS_ACCESS_KEY_ID, AWS_PROFILE, AWS_ENDPOINT_URL, ...) through botocore,
and Prefect its PREFECT_*; what is the product's own is here.

==============================  =======================================================  =====================
variable                        meaning                                                  default
==============================  =======================================================  =====================
BLORA_ROOT                      the store: a folder or s3://bucket/prefix                ./blora-store
BLORA_DEVICES                   slots, e.g. ``cuda:0,cuda:1`` or ``cpu``                 every GPU, else the CPU
BLORA_STALL_TIMEOUT_SECONDS     a slot silent for longer is ended and its item retried   1800
BLORA_LEASE_SECONDS             life of a training lease between two renewals            120
BLORA_STARTING_SECONDS          how long a flow run that a worker has taken may need      900
                                to start; a killed worker's goes to another after that
BLORA_SLOT_MODULE               what a slot's child runs; orchestration is tested with   tasks.slot_main
                                another one, which makes objects without a model
BLORA_WEBHOOK_URL               where ``blora deploy`` has failed runs told; kept secret  nothing is told
BLORA_NIGHT_CRON                when the night begins, for ``blora deploy``               0 2 * * *
BLORA_NIGHT_TIMEZONE            of that, an IANA name                                    UTC
BLORA_PAGES_URL                 where the store is served over http(s); artifacts link   no link
                                to pages below it
==============================  =======================================================  =====================
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

DEFAULT_ROOT = "./blora-store"

NVIDIA_SMI_SECONDS = 30.0
"""How long the driver's tool may take to answer."""


def store_root() -> str:
    """Where the store is, unless the command says otherwise."""
    return os.environ.get("BLORA_ROOT", DEFAULT_ROOT)


def stall_timeout_seconds() -> float:
    """How long a slot may be silent."""
    return _positive_seconds("BLORA_STALL_TIMEOUT_SECONDS", 1800.0)


def heartbeat_seconds() -> float:
    """How often a slot says that it lives while what it does has no steps to tell of."""
    return min(10.0, stall_timeout_seconds() / 3)


def lease_seconds() -> float:
    """Life of a training lease; a dead holder's adapter is free again after this."""
    return _positive_seconds("BLORA_LEASE_SECONDS", 120.0)


def starting_seconds() -> float:
    """How long a flow run on the work pool may be taken and give no sign of life: an image is pulled, say."""
    return _positive_seconds("BLORA_STARTING_SECONDS", 900.0)


def slot_module() -> str:
    """The module that a slot's child runs."""
    return os.environ.get("BLORA_SLOT_MODULE", "tasks.slot_main")


def webhook_url() -> str:
    """Where failed runs are told; a secret, which is why it is no option of a command."""
    return os.environ.get("BLORA_WEBHOOK_URL", "")


def night_cron() -> str:
    """When the night begins, unless the command says otherwise: minute, hour, day, month, weekday."""
    return os.environ.get("BLORA_NIGHT_CRON", "0 2 * * *")


def night_timezone() -> str:
    """The time zone of that."""
    return os.environ.get("BLORA_NIGHT_TIMEZONE", "UTC")


def with_variables(variables: Mapping[str, str]) -> dict[str, str]:
    """This process's environment with some more variables, for a child process."""
    return {**os.environ, **variables}


def pages_url() -> str:
    """Where a browser finds the store, without a slash at its end; empty where it is not served.

    Raises:
        ValueError: it is no http(s) address, or has credentials or a query in it.
    """
    url = os.environ.get("BLORA_PAGES_URL", "").strip()
    if not url:
        return ""
    parts = urlsplit(url)
    if (
        parts.scheme not in ("http", "https")
        or not parts.hostname
        or parts.query
        or parts.fragment
        or "@" in parts.netloc
    ):
        raise ValueError("BLORA_PAGES_URL: accepted: an http(s) address without credentials and query")
    return url.rstrip("/")


def devices(asked: str = "auto") -> tuple[str, ...]:
    """The devices to make slots of.

    Args:
        asked: ``auto``, or a comma-separated list of ``cpu`` and ``cuda:<index>``.

    Raises:
        ValueError: a word that is neither, a GPU that is not there, or GPUs of which nobody can tell.
    """
    wanted = os.environ.get("BLORA_DEVICES", "auto") if asked == "auto" else asked
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
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
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

    None where nobody can tell. Asked without importing torch.

    Raises:
        ValueError: one of the GPUs is not there.
    """
    if not (gpus := physical_gpus(devices)):
        try:
            return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")), False
        except (ValueError, OSError):
            return None, False
    try:
        free_mib = _nvidia_smi(f"--id={','.join(gpus)}", "--query-gpu=memory.free", "--format=csv,noheader,nounits")
        return min(float(line) * 2**20 for line in free_mib.split()), True
    except (ValueError, TimeoutError):
        return None, True


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


def quiet_prefect(verbose: bool) -> None:
    """Defaults for a command on a terminal: no telemetry, and Prefect's own log lines only when asked for.

    Has an effect only before Prefect is first imported; what the user has set stays.
    """
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    # The temporary server of a command: its usual 20 seconds are too few where the processor is busy.
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "180")
    if not verbose:
        os.environ.setdefault("PREFECT_LOGGING_LEVEL", "ERROR")
        os.environ.setdefault("PREFECT_SERVER_LOGGING_LEVEL", "ERROR")


def _positive_seconds(name: str, default: float) -> float:
    text = os.environ.get(name)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not value > 0:
        raise ValueError(f"{name}: received {text!r}; accepted: a positive number of seconds")
    return value
