"""A base model on this machine: every part brought here, its revision fixed, its topology checked. Imports no torch."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase as fnmatch
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

from blora.bases.headers import SingleFile, check_file, flux_shape, refuse_other_files
from blora.bases.hub import fetch_files
from blora.bases.places import (
    DENOISERS,
    HALVED,
    WEIGHTED,
    HubPlace,
    bring_file,
    hub_place,
    place_revision,
    split_digest,
    weight_files,
)
from blora.bases.spec import BaseSpec, Quantization, parse_base, require_backend
from blora.bases.topology import FamilyName, check_shape, check_topology, check_vae, family_of
from blora.errors import BaseModelError

__all__ = ["SDXL_FOLDER", "Located", "base_revision", "files_to_fetch", "locate_base"]

SDXL_FOLDER: Final = Path(__file__).parent / "sdxl"
"""SDXL's configuration, which a single file lacks; its tokenizers are the embedded model's: both are CLIP's."""
_TOLD: Final = ["*.json", "tokenizer*/*.txt"]
_BESIDE: Final = tuple(part for part in WEIGHTED if part not in DENOISERS)
"""Parts whose weights a file with a transformer alone lacks."""
_VAE_FILES: Final = ["config.json", "diffusion_pytorch_model*.safetensors"]


@dataclass(frozen=True)
class Located:
    """A base model on this machine.

    Attributes:
        spec: How it was asked for, in one line.
        folder: The configuration of its parts in diffusers' layout, and their weights where no file has them.
        revision: What fixes its content.
        file: A single file in the original layout that has the weights: all of SDXL's, or FLUX's transformer's alone.
        vae: A folder or file with the autoencoder that takes the place of the model's own.
        fuse: Files of LoRAs that are added to the UNet, with their weights.
        scheduler: What a single file says of itself beside the folder's scheduler configuration.
        half: Whether parts are loaded from fp16 files where the folder has them; see `weight_files`.
        quantize: What the weights of the denoiser's blocks are kept in.
    """

    spec: str
    folder: Path
    revision: str
    file: Path | None = None
    vae: Path | None = None
    fuse: tuple[tuple[Path, float], ...] = ()
    scheduler: Mapping[str, Any] = field(default_factory=dict)
    half: bool = False
    quantize: Quantization | Literal[""] = ""

    @property
    def label(self) -> str:
        """What others may be shown: no folders of this machine."""
        return parse_base(self.spec).label

    @property
    def family(self) -> FamilyName:
        """What kind of model it is."""
        return family_of(self.folder)

    @property
    def tokenizers(self) -> Path:
        """The folder that holds both tokenizers."""
        if (self.folder / "tokenizer").is_dir():
            return self.folder
        from blora.embedded import MODEL_DIR  # see base_revision

        return Path(MODEL_DIR)


def base_revision(spec: str | os.PathLike[str] | BaseSpec, of: Callable[[str], str] = place_revision) -> str:
    """Return what fixes a base model's content, without loading it.

    Args:
        spec: As `blora.bases.spec` says.
        of: The revision of one place; whoever knows buckets brings its own.

    Returns:
        The revision of the model's place; where an autoencoder, LoRAs or a quantisation stand beside it, the SHA-256
        over all of them.

    Raises:
        BaseModelError: The spec is none, names a revision that may move, or a file of this machine that is no SDXL.
    """
    base = parse_base(spec)
    if hub_place(base.model) is None and _is_file(base.model):  # its header is read in no time, unlike all of it
        file = Path(split_digest(base.model)[0])
        refuse_other_files(file, base.model)
        check_file(file, base.model, vae_comes=bool(base.vae), has_rest=bool(base.rest))
    model = of(base.model)
    if base.is_plain:
        return model
    parts = {"model": model, "vae": of(base.vae) if base.vae else ""}
    if base.quantize:
        parts["quantize"] = base.quantize
    if base.rest:
        parts["rest"] = of(base.rest)
    fuse = [[of(one.lora), one.weight] for one in base.fuse]
    return hashlib.sha256(json.dumps([parts, fuse], sort_keys=True).encode()).hexdigest()


def locate_base(spec: str | os.PathLike[str] | BaseSpec, revision: str = "", *, half: bool = False) -> Located:
    """Bring a base model to this machine and check its topology before any weights move.

    Args:
        spec: As `blora.bases.spec` says.
        revision: What fixes its content, where that is known; else `base_revision` tells.
        half: Whether it is for a run in half precision, which takes fp16 files where there are some (`weight_files`).

    Raises:
        BaseModelError: Unknown spec, a file that is no such model, a repository or revision that does not exist, or a
            quantisation whose package is not installed.
        BaseUnreachableError: The hub did not answer and the model is not in its cache.
        TopologyError: The model is of no family, or not built as others of its family are.
    """
    base = parse_base(spec)
    require_backend(base.quantize, base.text)
    revision = revision or base_revision(base)
    said: SingleFile | None = None
    file: Path | None = None
    if base.rest and not _is_file(base.model):
        hint = "leave rest out, or name the file of the transformer as model"
        raise BaseModelError("rest beside a whole model", base.model, "a .safetensors file", base.text, hint)
    if _is_file(base.model):
        file = bring_file(base.model)
        said = check_file(file, base.model, vae_comes=bool(base.vae), has_rest=bool(base.rest))
        folder = SDXL_FOLDER
        if base.rest:
            folder = _folder(base.rest, base.text, half, _BESIDE)
            check_shape(folder, flux_shape(file, base.model), base.text)
    else:
        folder = _folder(base.model, base.text, half)
    vae = _vae(base.vae, folder, base.text) if base.vae else None
    if base.fuse and family_of(folder) != "sdxl":
        hint = "take a base that it has been fused into already"
        raise BaseModelError("LoRAs are fused into SDXL alone", base.label, "a base without fuse", base.text, hint)
    fuse = tuple((bring_file(one.lora), one.weight) for one in base.fuse)
    return Located(base.text, folder, revision, file, vae, fuse, _scheduler(said), half, base.quantize)


def files_to_fetch(place: str, names: Iterable[str], *, half: bool = False, is_rest: bool = False) -> list[str]:
    """Choose the files of a hub's repository that `locate_base` would fetch for a place.

    Args:
        place: A place of the hub: a model, an autoencoder, or one file.
        names: What the repository holds.
        half: As for `locate_base`.
        is_rest: Whether it is the rest of a model whose denoiser is a file of its own.
    """
    hub, names = hub_place(place), list(names)
    if hub and hub.file:
        return [hub.file]
    if not any(name.startswith(f"{part}/") for name in names for part in DENOISERS):
        return [name for name in names if any(map(partial(fnmatch, name), _VAE_FILES)) and ".fp16." not in name]
    told = [name for name in names if any(map(partial(fnmatch, name), _TOLD))]
    return told + [name for part in (_BESIDE if is_rest else WEIGHTED) for name in weight_files(names, part, half=half)]


def _is_file(place: str) -> bool:
    hub = hub_place(place)
    return hub.file != "" if hub else Path(split_digest(place)[0]).is_file()


def _folder(place: str, spec: str, half: bool, parts: Sequence[str] = WEIGHTED) -> Path:
    """A model in diffusers' layout, with the weights of these parts."""
    if place == "embedded":
        from blora.embedded import MODEL_DIR  # the embedded model's own package; needed only here

        folder = Path(MODEL_DIR)
    elif hub := hub_place(place):
        folder = fetch_files(hub.repo, hub.revision, _TOLD, [])
        check_topology(folder, spec)
        _fetch_weights(hub, folder, half, parts)
        return folder
    else:
        folder = Path(place).resolve()
    check_topology(folder, spec)
    return folder


def _fetch_weights(hub: HubPlace, folder: Path, half: bool, wanted: Sequence[str]) -> None:
    """Fetch the weights of each part, of the kind that `weight_files` chooses, and of the other where that is missing.

    Where the hub does not answer, what its cache has must do: full files, too, where fp16 ones are asked for.
    """

    def fetch(parts: Sequence[str], fp16: bool) -> list[str]:
        """Fetch files of one kind; returns the parts that have none."""
        names, ignored = ("*.fp16*.safetensors", []) if fp16 else ("*.safetensors", ["*.fp16*"])
        if parts:
            fetch_files(hub.repo, hub.revision, [f"{part}/{names}" for part in parts], ignored)
        return [
            part
            for part in parts
            if not any((".fp16" in path.name) == fp16 for path in (folder / part).glob("*.safetensors"))
        ]

    present = [part for part in wanted if (folder / part).is_dir()]
    halved = [part for part in present if part in HALVED]
    without_full = fetch([*fetch(halved, True), "vae"] if half else present, False)
    fetch(without_full, True)


def _vae(place: str, folder: Path, spec: str) -> Path:
    """An autoencoder of its own: a file, or a folder that fits the UNet."""
    if _is_file(place):
        return bring_file(place)
    hub = hub_place(place)
    vae = fetch_files(hub.repo, hub.revision, _VAE_FILES, ["*.fp16.*"]) if hub else Path(place).resolve()
    check_vae(folder, vae, spec)
    return vae


def _scheduler(said: SingleFile | None) -> dict[str, Any]:
    told: dict[str, Any] = {}
    if said and said.is_v_prediction:
        told["prediction_type"] = "v_prediction"
    if said and said.is_zero_snr:
        told |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    return told
