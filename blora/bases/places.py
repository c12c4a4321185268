"""One place of a base: what fixes its content, and how it is brought to this machine. Imports no torch.

A place is ``embedded``, a repository or a file of the hub at one commit, a folder, or a .safetensors file with or
without the SHA-256 that it must have. Buckets are known by whoever has a client for them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from blora.bases.digests import file_digest, folder_digest
from blora.bases.headers import PICKLES, refuse_other_files
from blora.bases.hub import fetch_files
from blora.errors import BaseModelError

__all__ = [
    "DENOISERS",
    "HALVED",
    "HUB",
    "PARTS",
    "WEIGHTED",
    "HubPlace",
    "bring_file",
    "check_digest",
    "hub_place",
    "place_revision",
    "split_digest",
    "weight_files",
]

HUB: Final = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)@(?P<revision>[0-9a-f]{40})")
_HUB_FILE: Final = re.compile(HUB.pattern + r"/(?P<file>[\w.-]+(?:/[\w.-]+)*\.safetensors)")
_DIGEST: Final = "#sha256:"
_ACCEPTED: Final = (
    "embedded, sdxl, org/model@<40 hex digits of a commit>, a folder in diffusers' layout, or a .safetensors file"
)
_COMMON_PARTS: Final = ("vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler")
DENOISERS: Final = ("unet", "transformer")
"""The folder of the denoiser: a model in diffusers' layout has one of them."""
PARTS: Final = (*DENOISERS, *_COMMON_PARTS)
"""The folders of a model in diffusers' layout."""
HALVED: Final = (*DENOISERS, "text_encoder", "text_encoder_2")
"""Parts that a run in half precision loads from fp16 files where there are some."""
WEIGHTED: Final = (*HALVED, "vae")
"""Parts that have weights."""
_LOADED: Final = (".json", ".txt", ".safetensors")
_HALF_FILE: Final = re.compile(r"\.fp16[.-]")


@dataclass(frozen=True)
class HubPlace:
    """A repository of the hub at one commit.

    Attributes:
        repo: owner/name.
        revision: The commit.
        file: One file of it; empty for the repository.
    """

    repo: str
    revision: str
    file: str = ""


def hub_place(place: str) -> HubPlace | None:
    """Read a place of the hub; None for any other place."""
    if match := HUB.fullmatch(place):
        return HubPlace(match["repo"], match["revision"])
    match = _HUB_FILE.fullmatch(split_digest(place)[0])
    return HubPlace(match["repo"], match["revision"], match["file"]) if match and ".." not in match["file"] else None


def split_digest(place: str) -> tuple[str, str]:
    """Split ``file#sha256:<64 hex digits>`` into the file and the digest, which is empty where none is said.

    Raises:
        BaseModelError: The digest is none.
    """
    bare, mark, digest = place.partition(_DIGEST)
    if mark and not re.fullmatch(r"[0-9a-f]{64}", digest):
        hint = "write what sha256sum prints for the file"
        raise BaseModelError("no SHA-256", digest, "64 hex digits in lower case", place, hint)
    return bare, digest


def weight_files(names: Iterable[str], part: str, *, half: bool) -> list[str]:
    """Choose the files with the weights of one part: full ones, or its fp16 variant.

    A run in half precision takes the variant of the UNet and of the text encoders where there is one: half the bytes to
    download, keep and read. For fp16 these are the numbers that rounding the full weights gives. For bf16 they are
    rounded twice, so that a weight may lie 9/16 of a step of bf16 from the full one and not half a step (and one below
    6e-5, where fp16 has fewer digits, 3e-8). The autoencoder works in fp32 and is taken in full.

    No revision speaks of this, and ids stay as they were: a commit, or a folder's digest, names all files of either
    kind, and the precision, which chooses between them, is part of every adapter's and picture's id by itself.

    Args:
        names: Files of a model in diffusers' layout, such as "unet/diffusion_pytorch_model.fp16.safetensors".
        part: One of `WEIGHTED`.
        half: Whether the run is in half precision.

    Returns:
        Files of one kind; those of the other where the wanted kind is missing; none where the part has no weights.
    """
    weights = [name for name in names if name.startswith(f"{part}/") and name.endswith(".safetensors")]
    halves = [name for name in weights if _HALF_FILE.search(name)]
    full = [name for name in weights if name not in halves]
    return (half and part in HALVED and halves) or full or halves


def place_revision(place: str) -> str:
    """Return what fixes a place's content, without loading it.

    Returns:
        The embedded model's revision, the commit of a repository (with a file's name where it is one file), the
        SHA-256 of a file, or the SHA-256 over a folder's files.

    Raises:
        BaseModelError: It is no place, or names a revision that may move.
    """
    bare, digest = split_digest(place)
    if place == "embedded":
        from blora.embedded import REVISION  # the embedded model's own package; needed only here

        return str(REVISION)
    if digest:  # whoever loads the file compares them
        return digest
    if bare and Path(bare).is_dir():
        return _folder_revision(Path(bare).resolve())
    if hub := hub_place(place):
        return f"{hub.revision}/{hub.file}" if hub.file else hub.revision
    if Path(bare).is_file():
        refuse_other_files(Path(bare), place)
        return file_digest(Path(bare))
    if re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]*)?", place) and not Path(place.split("/")[0]).is_dir():
        hint = "write org/model@ and the 40 hex digits of the commit you mean; sdxl stands for SDXL base 1.0"
        raise BaseModelError("a hub model without a fixed commit", place, _ACCEPTED, hint=hint)
    if bare.lower().endswith(PICKLES):
        hint = "take its .safetensors twin, or convert it"
        raise BaseModelError("a pickle, which can run code as it is read", place, "a .safetensors file", hint=hint)
    hint = "check the path; copy a bucket to a folder first"
    raise BaseModelError("unknown base model", place, _ACCEPTED, hint=hint)


def bring_file(place: str) -> Path:
    """Bring a place that is one .safetensors file to this machine, and compare it with the digest that it has.

    Raises:
        BaseModelError: There is no such file, it is of another kind, or its digest is another.
        BaseUnreachableError: The hub did not answer and the file is not in its cache.
    """
    bare, digest = split_digest(place)
    hub = hub_place(place)
    path = fetch_files(hub.repo, hub.revision, [hub.file], []) / hub.file if hub and hub.file else Path(bare)
    if not path.is_file():
        raise BaseModelError("no such file", place, "a .safetensors file", hint="check the path")
    refuse_other_files(path, place)
    check_digest(path, digest, place)
    return path


def check_digest(path: Path, digest: str, place: str) -> None:
    """Compare a file with the SHA-256 that it must have; an empty one is not compared.

    Raises:
        BaseModelError: It is another.
    """
    if digest and (found := file_digest(path)) != digest:
        hint = "download the file again, or correct the digest"
        raise BaseModelError("another file than its SHA-256 says", found, digest, place, hint)


def _folder_revision(folder: Path) -> str:
    """Hash what may be loaded."""
    files = [path for part in PARTS for path in (folder / part).glob("*") if path.suffix in _LOADED]
    files += folder.glob("model_index.json")
    if not files:  # one part of a model, such as an autoencoder
        files = [path for path in folder.glob("*") if path.suffix in _LOADED]
    return folder_digest(folder, files)
