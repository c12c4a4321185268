"""Base models and weights of scorers, wherever they lie.

The method knows folders and the hub; what lies in a bucket is copied to this machine first.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from blora.bases.hub import fetch_files
from blora.bases.locate import SDXL_FOLDER, Located, base_revision, files_to_fetch, locate_base
from blora.bases.places import DENOISERS, HUB, place_revision, split_digest
from blora.bases.spec import KNOWN, BaseSpec, parse_base
from blora.bases.topology import FamilyName, family_of, family_of_denoiser
from blora.embedded import MODEL_DIR
from blora.errors import BaseModelError, BaseUnreachableError, ScorerError
from blora.settings.judging import ScoreSettings
from blora.settings.scorer_spec import parse_scorer
from manifests import ids
from manifests.errors import Missing, StoreError
from manifests.store.address import is_bucket
from manifests.store.backend import Entry
from manifests.store.store import Store

BASES_CACHE = Path("~/.cache/blora/bases").expanduser()
SCORERS_CACHE = Path("~/.cache/blora/scorers").expanduser()
_FILE = ".safetensors"


def revision_of(spec: str) -> str:
    """The pinned revision of a base model, wherever its parts lie.

    A bucket's revision is the digest of its listing, names and ETags: other files make another base, and the same ones
    uploaded anew, in parts of the same size, do not. Of a file whose SHA-256 is said, it is that.

    Raises:
        BaseModelError: there is no such base, or it has no pinned revision.
        StoreError: the bucket does not answer.
    """
    return base_revision(spec, _place_revision)


def located_base(spec: str, *, half: bool = False) -> Located:
    """The base on this machine, copied or fetched here if need be.

    Args:
        spec: as `blora.bases.spec` says; its places may be s3:// addresses of folders and .safetensors files.
        half: whether it is for a run in half precision, which takes fp16 files where there are some.
    """
    base = parse_base(spec)
    if not any(map(is_bucket, base.places)):
        return locate_base(base, half=half)
    here = BaseSpec(
        _copied(base.model, half),
        base.vae and _copied(base.vae),
        tuple(replace(one, lora=_copied(one.lora)) for one in base.fuse),
        base.quantize,
        base.rest and _copied(base.rest, half, is_rest=True),
    )
    revision = revision_of(spec)
    return replace(locate_base(here, revision, half=half), spec=base.text)


def _place_revision(place: str) -> str:
    if not is_bucket(place) or split_digest(place)[1]:
        return place_revision(place)
    return _version(_objects(place)[1])


def _version(objects: Mapping[str, Entry]) -> str:
    return ids.digest("bucket base", [[key, entry.version] for key, entry in objects.items()])


def _copied(place: str, half: bool = False, is_rest: bool = False) -> str:
    """A place as a path of this machine; what is loaded of it is copied once from where it lies in a bucket."""
    if not is_bucket(place):
        return place
    bare, digest = split_digest(place)
    store, objects = _objects(bare)
    if not bare.endswith(_FILE):
        objects = {name: objects[name] for name in files_to_fetch(bare, objects, half=half, is_rest=is_rest)}
    folder = BASES_CACHE / ((digest or _version(objects)) + ("-rest" if is_rest else ""))
    copy_objects(store, objects, folder)
    name = next(iter(objects), "") if bare.endswith(_FILE) else ""
    return str(folder / name) + (f"#sha256:{digest}" if digest else "")


def _objects(place: str) -> tuple[Store, dict[str, Entry]]:
    """The objects below an s3:// address, or the one that it names.

    Raises:
        BaseModelError: it names a file that is not there, or no .safetensors file.
    """
    if not place.endswith(_FILE):
        store = Store.open(place)
        return store, store.list("")
    folder, _, name = place.rpartition("/")
    store = Store.open(folder)
    entry = store.list("").get(name)
    if entry is None:
        raise BaseModelError("no such object", place, "a .safetensors file in the bucket", hint="correct the address")
    return store, {name: entry}


def read_config(spec: str, part: str) -> dict[str, Any]:
    """The configuration of a base's UNet or of another part, wherever it lies; no weights are fetched for it.

    Raises:
        BaseModelError: it is not there, or no JSON object.
        BaseUnreachableError: the hub did not answer and its cache has no copy.
        StoreError: the bucket does not answer.
    """
    model, name = parse_base(spec).told_by, f"{part}/config.json"
    hub = HUB.fullmatch(model)
    try:
        if is_bucket(model) and not model.endswith(_FILE):
            return dict(json.loads(Store.open(model).read(name)))
        folder = fetch_files(hub["repo"], hub["revision"], [name], []) if hub else Path(model)
        if model == "embedded":
            folder = MODEL_DIR
        elif split_digest(model)[0].endswith(_FILE):
            folder = SDXL_FOLDER
        return dict(json.loads((folder / name).read_text("utf-8")))
    except (Missing, OSError, ValueError, TypeError) as error:
        received = f"{name}: {error}"
        hint = "check the base: blora doctor --base"
        raise BaseModelError("unreadable configuration", received, "a JSON object", spec, hint) from error


def base_config(spec: str) -> dict[str, Any] | None:
    """The configuration of a base's denoiser; None where it cannot be had now: whoever loads the base says why."""
    for part in DENOISERS:
        try:
            return read_config(spec, part)
        except BaseUnreachableError:
            return None
        except (BaseModelError, StoreError):
            continue
    return None


def base_family(spec: str) -> FamilyName:
    """The kind of a base's model, wherever it lies; SDXL's where that cannot be told now."""
    try:
        base = parse_base(spec)
    except BaseModelError:  # whoever looks for it says what is wrong
        return "sdxl"
    if base.model in {one.model for one in KNOWN.values()} or base.model == "embedded":
        return "sdxl"
    if not is_bucket(base.told_by) and not HUB.fullmatch(base.told_by):
        return family_of(Path(base.told_by))
    return _remote_family(base.told_by)


@lru_cache(maxsize=32)
def _remote_family(model: str) -> FamilyName:
    return family_of_denoiser(base_config(model) or {})


def copy_objects(store: Store, keys: Iterable[str], folder: Path) -> None:
    """Copy objects of a bucket into a folder that is not there yet; it appears under its name only when it is whole."""
    if folder.exists():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        whole = Path(scratch) / "base"
        whole.mkdir()
        for key in keys:
            path = whole / key
            path.parent.mkdir(parents=True, exist_ok=True)
            if not store.find_into(key, path):
                raise Missing(f"{store.root}/{key} went while it was copied")
        try:
            os.rename(whole, folder)
        except OSError:
            if not folder.exists():  # anything but a twin that was quicker
                raise


def is_plain(base: str) -> bool:
    """Whether a base is a folder with a single text encoder, as Stable Diffusion 1.5's is."""
    folder = Path(parse_base(base).model)
    return bool(base) and (folder / "text_encoder").is_dir() and not (folder / "text_encoder_2").is_dir()


def with_local_weights(settings: ScoreSettings) -> ScoreSettings:
    """The same settings with every scorer's weights on this machine or on the hub.

    Raises:
        ScorerError: a bucket's file or folder has no weights.
        StoreError: the bucket does not answer.
    """
    return settings.model_copy(update={"scorers": tuple(local_scorer(line) for line in settings.scorers)})


def local_scorer(asked: str) -> str:
    """The line of a scorer with its weights copied here, if they lie in a bucket.

    The copy is named by the objects' names and ETags: other weights are copied again. What they must hash to, if the
    line says so, is checked as they are loaded, like any other file.

    Raises:
        ScorerError: the address has no weights.
        StoreError: the bucket does not answer.
    """
    spec = parse_scorer(asked)
    if not is_bucket(spec.source):
        return asked
    folder, _, name = spec.source.rstrip("/").rpartition("/")
    if not name.endswith(".safetensors"):
        folder, name = spec.source, ""
    store = Store.open(folder)
    there = {key: entry for key, entry in store.list("").items() if "/" not in key and key.endswith(".safetensors")}
    wanted = {key: entry for key, entry in there.items() if not name or key == name}
    if not wanted:
        accepted = "a .safetensors object, or a folder that holds one"
        received = f"{spec.source}, beside {', '.join(there)}" if there else spec.source
        raise ScorerError("no weights there", received, accepted, f"scorer {spec.kind}", "correct the address")
    copy = SCORERS_CACHE / ids.digest("scorer weights", [[key, entry.version] for key, entry in wanted.items()])
    copy_objects(store, wanted, copy)
    return f"{spec.kind}={copy / name}" + (f"#sha256:{spec.sha256}" if spec.sha256 else "")
