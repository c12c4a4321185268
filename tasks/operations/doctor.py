"""`blora doctor`: whether this machine can do the work, one line a check, with what to do where one fails."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from blora.bases.headers import check_file
from blora.bases.hub import hub_files, in_cache
from blora.bases.locate import files_to_fetch, locate_base
from blora.bases.places import DENOISERS, hub_place
from blora.bases.spec import BACKENDS, Quantization, parse_base, require_backend
from blora.errors import BaseUnreachableError, BloraError
from manifests.errors import ManifestsError
from manifests.store.address import is_bucket
from manifests.store.store import Store
from tasks.devices import chosen_devices, tried_devices
from tasks.downloads import BASES_CACHE, revision_of
from tasks.operations.driver import driver_here
from tasks.run.which import try_store

GB = 10**9
_SPARE_BYTES = 2 * GB


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        name: of the check.
        is_well: whether work can go on so.
        told: what was found, in a line.
        hint: what to do, where it is not well.
    """

    name: str
    is_well: bool
    told: str
    hint: str = ""


def examine(base: str, root: str, devices: str = "auto") -> Iterator[Finding]:
    """Check this machine, one thing after the other; a check that fails keeps none from being made.

    Args:
        base: as `blora.bases.spec` says.
        root: the store's folder or s3:// address.
        devices: as for a run.
    """
    yield from _devices(devices)
    needed_bytes, parts = 0, parse_base(base)
    if kept := parts.quantize:
        yield _guarded("quantize", lambda: _backend(kept, parts.label), "install the extra quantize")
    for place in parts.places:
        finding, missing_bytes = _base(place, parts.rest, is_file=place == parts.model)
        needed_bytes += missing_bytes
        yield finding
    yield _disk(needed_bytes)
    yield _guarded("store", lambda: _store(root), "correct --root or BLORA_ROOT, or the rights on it")
    yield _prefect()


def _guarded(name: str, check: Callable[[], str], hint: str) -> Finding:
    try:
        return Finding(name, True, check())
    except BloraError as error:
        told = ": ".join(part for part in (error.where, error.what, error.received) if part)
        return Finding(name, False, " ".join(told.split()), error.hint or hint)
    except (ManifestsError, OSError, ValueError) as error:
        return Finding(name, False, " ".join(str(error).split()), hint)


def _backend(quantize: Quantization, label: str) -> str:
    """The package that keeps weights in few bits."""
    require_backend(quantize, label)
    return f"{quantize}: {BACKENDS[quantize]} {version(BACKENDS[quantize])}"


def _devices(asked: str) -> Iterator[Finding]:
    """Torch and each device."""
    try:
        names = chosen_devices(asked)
    except ValueError as error:
        yield Finding("devices", False, str(error), "mend the driver, or choose with --devices")
        names = ("cpu",)
    try:
        said = tried_devices(names)
    except ValueError as error:
        hint = (
            "see whether nvidia-smi answers, and install a torch that fits the driver: https://pytorch.org/get-started"
        )
        yield Finding("torch", False, str(error), hint)
        yield _driver(None)
        return
    gpus = [name for name in names if name != "cpu"]
    cuda = f"CUDA {said['cuda']}" if said["cuda"] else "no CUDA in it"
    told = f"{said['torch']}, {cuda}, diffusers {said['diffusers']}"
    if said["fault"]:
        yield Finding("torch", False, *said["fault"].split("; do: "))
        yield _driver(said["cuda"])
        return
    yield Finding("torch", True, told)
    yield _driver(said["cuda"])
    tried = [*(["cpu"] if "cpu" in names else []), *gpus]
    for name, (line, fault) in zip(tried, said["devices"], strict=True):
        if fault:
            yield Finding(name, False, *fault.split("; do: "))
        else:
            yield Finding(name, True, line + ("" if gpus else "; no GPU is used"))


def _driver(built_for: str | None) -> Finding:
    """The driver of the GPUs, against the CUDA that torch is built for; None where that is not known."""
    try:
        driver = driver_here()
    except TimeoutError as error:
        return Finding("driver", False, str(error), "mend the driver, or choose with --devices cpu")
    if driver is None:
        return Finding("driver", True, "none is seen: nvidia-smi is not here, or finds none")
    if not driver.is_too_old(built_for):
        return Finding("driver", True, driver.told)
    major = str(built_for).partition(".")[0]
    hint = (
        f"install a driver for CUDA {major} or newer, or a torch built for an older CUDA: "
        "https://pytorch.org/get-started"
    )
    return Finding("driver", False, f"{driver.told}: too old for torch, which is built for CUDA {built_for}", hint)


def _base(place: str, rest: str = "", *, is_file: bool = False) -> tuple[Finding, int]:
    """Whether a part of the base is at hand, and how many bytes are still to be fetched.

    For a run in half precision, as all presets for SDXL are: it takes fp16 files where there are some.

    Args:
        place: where it lies.
        rest: where a model that is one file gets its other parts from.
        is_file: whether it is that file.
    """
    hub = hub_place(place)
    if hub is None:
        return _guarded("base", lambda: _local(place, beside_rest=bool(rest) and is_file), "correct the base"), 0
    try:
        files = hub_files(hub.repo, hub.revision)
    except BaseUnreachableError as error:
        known = hub.file or "config.json"
        cached = any(in_cache(hub.repo, hub.revision, name) for name in ("model_index.json", known))
        told = f"{place}: {error.what}; its cache has {'a copy' if cached else 'nothing of it'}"
        return Finding("base", cached, told, error.hint), 0
    except BloraError as error:
        return Finding("base", False, f"{place}: {error.what}", error.hint), 0
    wanted = {name: files.get(name, 0) for name in files_to_fetch(place, files, half=True, is_rest=place == rest)}
    if missing := wanted.keys() - files.keys():
        return Finding("base", False, f"{place}: the repository has no {', '.join(missing)}", "correct the name"), 0
    left = {name: size for name, size in wanted.items() if not in_cache(hub.repo, hub.revision, name)}
    total, to_fetch = sum(wanted.values()), sum(left.values())
    told = f"{total / GB:.1f} GB in the hub's cache"
    if left:
        told = f"{to_fetch / GB:.1f} of {total / GB:.1f} GB to be fetched; the hub answers"
    return Finding("base", True, f"{place}: {told}"), to_fetch


def _local(place: str, *, beside_rest: bool) -> str:
    """A place of this machine or of a bucket: present, and built as it must be."""
    if is_bucket(place):
        return f"{place}: revision {revision_of(place)[:12]}"
    if place == "embedded":
        return "embedded: in the package"
    path = Path(place.partition("#")[0])
    if beside_rest:
        check_file(path, place, has_rest=True)
        files = [path]
    elif any((path / part).is_dir() for part in DENOISERS) or path.is_file():
        located = locate_base(place, "not asked")
        files = [located.file] if located.file else [one for one in path.rglob("*") if one.is_file()]
    else:  # an autoencoder alone; whoever loads the base judges it
        revision_of(place)
        files = [one for one in path.rglob("*") if one.is_file()]
    return f"{place}: {sum(one.stat().st_size for one in files) / GB:.1f} GB, built as it must be"


def _disk(needed_bytes: int) -> Finding:
    """Room for what is fetched: in the cache of the hub, and in that of bases from buckets."""
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE)
    free = shutil.disk_usage(_there(folder)).free
    buckets = shutil.disk_usage(_there(BASES_CACHE)).free
    told = f"{free / GB:.1f} GB free for {folder}, {buckets / GB:.1f} GB for {BASES_CACHE}"
    hint = f"make room for {(needed_bytes + _SPARE_BYTES) / GB:.1f} GB, or set HF_HOME to a larger disk"
    return Finding("disk", free > needed_bytes + _SPARE_BYTES, told, hint)


def _there(folder: Path) -> Path:
    return next(parent for parent in (folder, *folder.parents) if parent.exists())


def _store(root: str) -> str:
    """Read, write, and a second write of one name, which must be refused: what keeps two runs apart."""
    store = Store.open(root)
    try_store(store)
    return f"{store.root}: written, read, and a second write refused"


def _prefect() -> Finding:
    from prefect import __version__
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL

    url = PREFECT_API_URL.value()
    if not url:
        return Finding("prefect", True, f"{__version__}; no server is named: a command starts one for itself")
    try:
        with get_client(sync_client=True) as client:
            client.raise_for_api_version_mismatch()
            version = client.api_version()
    except Exception as error:  # whatever a client makes of an address that is none
        told = f"{url.rpartition('@')[2]}: {' '.join(str(error).split())[:200] or type(error).__name__}"
        return Finding("prefect", False, told, "start the server, or correct PREFECT_API_URL")
    return Finding("prefect", True, f"{__version__}; the server at {url.rpartition('@')[2]} has {version}")
