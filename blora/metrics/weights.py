"""Weights of the larger scorers: how they are asked for, where they come from, and whether they are those. No torch.

A scorer is named in one line, ``KIND`` or ``KIND=SOURCE``, either with a checksum ``#sha256:<64 hex digits>``:

    csd                                        the published weights, at a fixed commit and with a fixed checksum
    csd=./csd.safetensors                      a file, or a folder that holds it
    dinov2-base=org/model@<40 hex digits>      a hub repository at one commit
    clip-l14=s3://bucket/clip#sha256:9ce2...   a bucket's file or folder (in runs; the library reads folders)

Only safetensors are read: a pickle can run code when it is opened. Weights are hashed each time they are loaded, and
the first digits of the hash are in the version of every score, so that numbers of other weights are told apart.

Checksums were taken from public listings of the hub (no file was fetched for it). CSD's authors publish a pickle
(``tomg-group-umd/CSD-ViT-L``); the safetensors are the half-precision copy of ``yuxi-liu-wired/CSD``. README.md has
the command that converts the authors' own file.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Final

from blora.errors import ScorerError
from blora.models.locate import HUB, fetch_files

__all__ = ["PUBLISHED", "Published", "ScorerSpec", "Weights", "locate_weights", "parse_scorer"]

RECIPE: Final = 1
"""Counts changes of `blora.metrics.vision_transformers` that alter a feature; part of the version in every row."""
_CHECKSUM: Final = re.compile(r"sha256:[0-9a-f]{64}")
_SUFFIX: Final = ".safetensors"
_PICKLES: Final = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".tar")
_ACCEPTED: Final = "a .safetensors file, a folder that holds one, org/model@<40 hex digits of a commit>, or s3://..."


@dataclass(frozen=True)
class Published:
    """Weights as they are published: files that a repository may keep them in, best first, and their checksum."""

    repo: str
    revision: str
    files: tuple[str, ...]
    sha256: str


PUBLISHED: Final[Mapping[str, Published]] = MappingProxyType(
    {
        "csd": Published(
            "yuxi-liu-wired/CSD",
            "cd2dac3ad9398e42906127bc44988a6de47abe68",
            ("model.safetensors",),
            "02d842ed2536e1f883fc832cd1566d0e6c569457979f878379e382e04b2bda84",
        ),
        "dinov2-small": Published(
            "facebook/dinov2-small",
            "ed25f3a31f01632728cabb09d1542f84ab7b0056",
            ("model.safetensors",),
            "ae1e99fcefd534ed978cdeb8326f08030c96e28b7a81ffcbc98a857c84d14be1",
        ),
        "dinov2-base": Published(
            "facebook/dinov2-base",
            "f9e44c814b77203eaa57a6bdbbd535f21ede1415",
            ("model.safetensors",),
            "d73036b56966966d07975d696bde331762f37297e2f095de8cea0040c3aa0841",
        ),
        "dinov2-large": Published(
            "facebook/dinov2-large",
            "47b73eefe95e8d44ec3623f8890bd894b6ea2d6c",
            ("model.safetensors",),
            "399fba97a95f22c36834418bc69373364a99af3a1153da1c0fb31db567c92e23",
        ),
        "clip-l14": Published(
            "timm/vit_large_patch14_clip_224.openai",
            "18d0535469bb561bf468d76c1d73aa35156c922b",
            ("open_clip_model.safetensors",),
            "9ce2e8a8ebfff3793d7d375ad6d3c35cb9aebf3de7ace0fc7308accab7cd207e",
        ),
        "clip-bigg14": Published(
            "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k",
            "743c27bd53dfe508a0ade0f50698f99b39d03bec",
            ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors"),
            "db71bd27925917762c506c1b8a08e191d236e5586b5cd99f77d11aced578ec34",
        ),
    }
)
"""By kind of scorer, in the order in which they are listed."""


@dataclass(frozen=True)
class ScorerSpec:
    """A scorer as it was asked for.

    Attributes:
        kind: A key of `PUBLISHED`; the name that stands beside its scores.
        source: A file, folder, hub repository or bucket; empty for the published weights.
        sha256: What the weights must hash to; empty where nobody says it.
    """

    kind: str
    source: str
    sha256: str

    @property
    def identity(self) -> tuple[str, str]:
        """What fixes its scores: kind and checksum, or the source where no checksum is known."""
        return self.kind, f"sha256:{self.sha256}" if self.sha256 else self.source


@dataclass(frozen=True)
class Weights:
    """Weights on this machine.

    Attributes:
        path: The file.
        sha256: What it hashes to, checked against the scorer's if that names one.
    """

    path: Path
    sha256: str

    @property
    def version(self) -> str:
        """The version that scores by these weights carry."""
        return f"{self.sha256[:12]}-{RECIPE}"


def parse_scorer(text: str) -> ScorerSpec:
    """Read a line such as ``csd`` or ``dinov2-base=./weights#sha256:...``.

    Raises:
        ScorerError: An unknown kind, a checksum that is none, or a source of another kind.
    """
    named, marked, checksum = text.strip().partition("#")
    kind, given, source = (part.strip() for part in named.partition("="))
    if kind not in PUBLISHED:
        raise ScorerError("unknown scorer", repr(kind), ", ".join(PUBLISHED), "score.scorers")
    if given and not source:
        raise ScorerError("a scorer without its source", repr(text), _ACCEPTED, f"scorer {kind}")
    if marked and not _CHECKSUM.fullmatch(checksum.strip()):
        raise ScorerError("not a checksum", repr(checksum), "sha256: and 64 hex digits after the #", f"scorer {kind}")
    if Path(source).suffix in _PICKLES:
        raise _pickled(kind, source)
    digest = checksum.strip().removeprefix("sha256:")
    return ScorerSpec(kind, source, digest or ("" if source else PUBLISHED[kind].sha256))


def locate_weights(spec: ScorerSpec) -> Weights:
    """Bring a scorer's weights to this machine, and check them.

    Raises:
        ScorerError: They are not there, are no safetensors, or are not the ones that the checksum means.
        BaseModelError: No such hub repository or commit.
        BaseUnreachableError: The hub did not answer and its cache has no copy.
    """
    published = PUBLISHED[spec.kind]
    source = spec.source or f"{published.repo}@{published.revision}"
    path = Path(source).expanduser()
    if path.is_file():
        file = path
    elif path.is_dir():
        file = _only_file(spec, path)
    elif match := HUB.fullmatch(source):
        file = _only_file(spec, fetch_files(match["repo"], match["revision"], list(published.files), []))
    else:
        hint = "copy a bucket to a folder first" if source.startswith("s3://") else "correct the path"
        raise ScorerError("no weights there", source, _ACCEPTED, f"scorer {spec.kind}", hint)
    if file.suffix != _SUFFIX:
        raise _pickled(spec.kind, source)
    stat = file.stat()
    found = _sha256(file, stat.st_size, stat.st_mtime_ns)
    if spec.sha256 and found != spec.sha256:
        raise ScorerError(
            "the weights are not the ones that were asked for",
            f"{file.name} with sha256 {found}",
            f"sha256 {spec.sha256}",
            f"scorer {spec.kind}",
            "fetch them again, or name the checksum of these: #sha256:<64 hex digits>",
        )
    return Weights(file, found)


def _only_file(spec: ScorerSpec, folder: Path) -> Path:
    """The file of weights in a folder: by its published name, else the only one."""
    for name in PUBLISHED[spec.kind].files:
        if (folder / name).is_file():
            return folder / name
    there = sorted(folder.glob(f"*{_SUFFIX}"))
    if len(there) == 1:
        return there[0]
    if not there and any(path.suffix in _PICKLES for path in folder.iterdir()):
        raise _pickled(spec.kind, str(folder))
    received = f"{', '.join(path.name for path in there) or 'none'} in {folder}"
    accepted = f"{' or '.join(PUBLISHED[spec.kind].files)}, or a single {_SUFFIX} file"
    raise ScorerError("no one file of weights", received, accepted, f"scorer {spec.kind}", "name the file itself")


def _pickled(kind: str, source: str) -> ScorerError:
    hint = "convert it once with torch.load(..., weights_only=True) and safetensors, as README.md shows"
    return ScorerError("weights that are not safetensors are not read", source, _ACCEPTED, f"scorer {kind}", hint)


@lru_cache(maxsize=16)
def _sha256(path: Path, size: int, changed_ns: int) -> str:
    """Hash a file; remembered while neither its size nor its time changes, as one call asks and the next one loads."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
