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
BLORA_SLOT_MODULE               what a slot's child runs; orchestration is tested with   tasks.worker.main
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
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

DEFAULT_ROOT = "./blora-store"
OWN_SLOT_MODULE = "tasks.worker.main"
_LOG_BYTES = 5_000_000


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
    return os.environ.get("BLORA_SLOT_MODULE", OWN_SLOT_MODULE)


def webhook_url() -> str:
    """Where failed runs are told; a secret, which is why it is no option of a command."""
    return os.environ.get("BLORA_WEBHOOK_URL", "")


def asked_root() -> str:
    """The same where somebody has said it; empty where nobody has."""
    return os.environ.get("BLORA_ROOT", "")


def night_cron() -> str:
    """When the night begins, unless the command says otherwise: minute, hour, day, month, weekday; empty: as it is."""
    return os.environ.get("BLORA_NIGHT_CRON", "")


def night_timezone() -> str:
    """The time zone of that; empty: as it is."""
    return os.environ.get("BLORA_NIGHT_TIMEZONE", "")


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


def log_file() -> Path:
    """Where tracebacks of flows and what a temporary Prefect server says are written."""
    return Path(os.path.expanduser("~/.cache/blora/blora.log"))


def open_log() -> BinaryIO:
    """The log file, to be written to at its end; it begins anew where it has grown long. Nothing where none can be."""
    try:
        log_file().parent.mkdir(parents=True, exist_ok=True)
        log = open(log_file(), "ab")
        if log.tell() > _LOG_BYTES:
            log.truncate(0)
        return log
    except OSError:  # a home that cannot be written is no reason to fail, and no place to say so
        return open(os.devnull, "wb")


def quiet_prefect(verbose: bool) -> None:
    """Defaults for a command on a terminal: no telemetry, and Prefect's own log lines only when asked for.

    Has an effect only before Prefect is first imported; what the user has set stays.
    """
    warnings.filterwarnings("ignore", message="Failed to create the Prefect home")  # its server says so in the end
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


def devices() -> str:
    """Which devices work, where a command does not say: ``auto``, or a list."""
    return os.environ.get("BLORA_DEVICES", "auto")


def visible_gpus() -> str | None:
    """The GPUs that this process may see, as CUDA is told; None: all."""
    return os.environ.get("CUDA_VISIBLE_DEVICES")
