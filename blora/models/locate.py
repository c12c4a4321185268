"""Where a base model comes from: its folder, its fixed revision, and whether its topology fits. Imports no torch.

A base is named by a *spec*: ``embedded`` (the small model shipped with the package), ``org/model@<40 hex digits>`` (a
hub repository at one commit; a name such as "main" moves and is refused), or a folder in diffusers' layout.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from blora.adapters.blocks import BLOCKS
from blora.errors import BaseModelError, BaseUnreachableError, TopologyError

__all__ = ["HUB", "Located", "base_revision", "check_topology", "fetch_files", "locate_base"]

HUB: Final = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)@(?P<revision>[0-9a-f]{40})")
_ACCEPTED: Final = '"embedded", org/model@<40 hex digits of a commit>, or a folder in diffusers\' layout'
_PARTS: Final = ("unet", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler")
_WEIGHTS: Final = [f"{part}/*.safetensors" for part in _PARTS]
_LOADED: Final = (".json", ".txt", ".safetensors")


@dataclass(frozen=True)
class Located:
    """A base model on this machine.

    Attributes:
        spec: How it was asked for.
        folder: Its diffusers folder.
        revision: What fixes its content.
    """

    spec: str
    folder: Path
    revision: str


def base_revision(spec: str | os.PathLike[str]) -> str:
    """Return what fixes a base model's content, without loading it.

    Returns:
        The embedded model's revision, the commit of a hub repository, or the sha256 over a folder's files.

    Raises:
        BaseModelError: The spec is none of the three, or names a revision that may move.
    """
    spec = os.path.expanduser(spec)
    if spec == "embedded":
        from blora.embedded import REVISION  # the embedded model's own package; needed only here

        return str(REVISION)
    if spec and Path(spec).is_dir():
        return _folder_revision(Path(spec).resolve())
    match = HUB.fullmatch(spec)
    if match:
        return match["revision"]
    if re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]*)?", spec) and not Path(spec.split("/")[0]).is_dir():
        hint = "write org/model@ and the 40 hex digits of the commit you mean"
        raise BaseModelError("a hub model without a fixed commit", spec, _ACCEPTED, hint=hint)
    hint = "check the path; copy a bucket to a folder first"
    raise BaseModelError("unknown base model", spec, _ACCEPTED, hint=hint)


def locate_base(spec: str | os.PathLike[str]) -> Located:
    """Bring a base model to this machine and check its topology before any weights move.

    Raises:
        BaseModelError: Unknown spec, or a repository or revision that does not exist.
        BaseUnreachableError: The hub did not answer and the model is not in its cache.
        TopologyError: The model is not built as SDXL is.
    """
    spec = os.path.expanduser(spec)
    revision = base_revision(spec)
    if spec == "embedded":
        from blora.embedded import MODEL_DIR  # see base_revision

        folder = Path(MODEL_DIR)
        check_topology(folder, spec)
    elif Path(spec).is_dir():
        folder = Path(spec).resolve()
        check_topology(folder, spec)
    else:
        repo = spec.partition("@")[0]
        folder = fetch_files(repo, revision, ["*.json", "tokenizer*/*.txt"], [])
        check_topology(folder, spec)
        # Full weights are preferred; a repository that has only half-precision ones is taken as it is.
        fetch_files(repo, revision, _WEIGHTS, ["*.fp16.*"])
        if not list((folder / "unet").glob("*.safetensors")):
            fetch_files(repo, revision, [weights.replace("*", "*.fp16*") for weights in _WEIGHTS], [])
    return Located(spec, folder, revision)


def check_topology(folder: Path, spec: str) -> None:
    """Compare a folder's configuration files with what the method needs, by name.

    Raises:
        TopologyError: With everything that is missing.
    """
    missing = [f"{part}/" for part in _PARTS if not (folder / part).is_dir()]
    if missing:
        received = f"without {', '.join(missing)}"
        raise TopologyError("not a diffusers SDXL folder", received, "all of " + ", ".join(_PARTS), spec)
    unet = _read_json(folder / "unet" / "config.json", spec)
    scheduler = _read_json(folder / "scheduler" / "scheduler_config.json", spec)
    projection = _read_json(folder / "text_encoder_2" / "config.json", spec).get("projection_dim")
    faults = []
    if unet.get("_class_name") != "UNet2DConditionModel":
        faults.append(f"unet is {unet.get('_class_name')}, not UNet2DConditionModel")
    layers = unet.get("layers_per_block", 2)
    first = layers[-1] if isinstance(layers, list) else layers  # up blocks run through the levels backwards
    if (unet.get("up_block_types") or ["none"])[0] != "CrossAttnUpBlock2D" or first + 1 < len(BLOCKS):
        faults.append(f"no {' or '.join(BLOCKS.values())}")
    if unet.get("addition_embed_type") != "text_time":
        faults.append(f"conditioning is {unet.get('addition_embed_type')}, not text_time")
    elif unet["projection_class_embeddings_input_dim"] != 6 * unet["addition_time_embed_dim"] + (projection or 0):
        faults.append("text_time does not take a pooled prompt and six numbers of size and crop")
    if scheduler.get("prediction_type", "epsilon") not in ("epsilon", "v_prediction"):
        faults.append(f"prediction type {scheduler.get('prediction_type')}, not epsilon or v_prediction")
    if faults:
        raise TopologyError("not SDXL's topology", "; ".join(faults), "SDXL base 1.0 or a model built like it", spec)


def _read_json(path: Path, spec: str) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError) as error:
        raise TopologyError("unreadable configuration", f"{path}: {error}", "a JSON object", spec) from error


def _folder_revision(folder: Path) -> str:
    """Hash what would be loaded; remembered while no file changes its size or time."""
    files = [path for part in _PARTS for path in (folder / part).glob("*") if path.suffix in _LOADED]
    files += folder.glob("model_index.json")
    signature = tuple(
        (path.relative_to(folder).as_posix(), path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(files)
    )
    return _hash_files(str(folder), signature)


@lru_cache(maxsize=16)
def _hash_files(folder: str, signature: tuple[tuple[str, int, int], ...]) -> str:
    total = hashlib.sha256()
    for name, _, _ in signature:
        with (Path(folder) / name).open("rb") as file:
            total.update(f"{name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()


def fetch_files(repo: str, revision: str, patterns: list[str], ignore: list[str]) -> Path:
    """Download some files of one commit, or find them in the hub's own cache; returns the folder of that commit.

    Raises:
        BaseModelError: No such repository or commit.
        BaseUnreachableError: The hub did not answer and its cache has no copy.
    """
    import httpx  # with the hub client: an embedded base or a folder must not need either
    from huggingface_hub import errors, snapshot_download

    where = f"{repo}@{revision}"

    def snapshot(local_files_only: bool) -> Path:
        return Path(
            snapshot_download(
                repo,
                revision=revision,
                allow_patterns=patterns,
                ignore_patterns=ignore,
                local_files_only=local_files_only,
            )
        )

    try:
        return snapshot(local_files_only=False)
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError) as error:
        hint = "check the name, the commit and, for a private or gated model, the hub's token"
        raise BaseModelError("no such hub model", str(error).splitlines()[0], _ACCEPTED, where, hint) from error
    except (httpx.HTTPError, OSError) as error:
        try:
            return snapshot(local_files_only=True)
        except OSError:
            received = f"{type(error).__name__}: {error}".splitlines()[0]
            accepted = "an answer, or the model in the hub's cache"
            hint = "try again later, or download it elsewhere and name the folder"
            raise BaseUnreachableError("the hub cannot be reached", received, accepted, where, hint) from error
