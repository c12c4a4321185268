"""Weights of the larger scorers on this machine: where they come from, and whether they are those. No torch.

Weights are hashed each time they are loaded, and the first digits of the hash are in the version of every score, so
that numbers of other weights are told apart.
"""

from __future__ import annotations

import hashlib
import os.path
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from blora.bases.hub import fetch_files
from blora.bases.places import HUB
from blora.errors import ScorerError
from blora.settings.scorer_spec import ACCEPTED_SOURCES, PICKLES, PUBLISHED, WEIGHTS_SUFFIX, ScorerSpec, pickled

__all__ = ["Weights", "locate_weights"]

RECIPE: Final = 1
"""Counts changes of `blora.metrics.vision_transformers` that alter a feature; part of the version in every row."""


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


def locate_weights(spec: ScorerSpec) -> Weights:
    """Bring a scorer's weights to this machine, and check them.

    Raises:
        ScorerError: They are not there, are no safetensors, or are not the ones that the checksum means.
        BaseModelError: No such hub repository or commit.
        BaseUnreachableError: The hub did not answer and its cache has no copy.
    """
    published = PUBLISHED[spec.kind]
    source = spec.source or f"{published.repo}@{published.revision}"
    path = Path(os.path.expanduser(source))
    if path.is_file():
        file = path
    elif path.is_dir():
        file = _only_file(spec, path)
    elif match := HUB.fullmatch(source):
        file = _only_file(spec, fetch_files(match["repo"], match["revision"], list(published.files), []))
    else:
        hint = "copy a bucket to a folder first" if source.startswith("s3://") else "correct the path"
        raise ScorerError("no weights there", source, ACCEPTED_SOURCES, f"scorer {spec.kind}", hint)
    if file.suffix != WEIGHTS_SUFFIX:
        raise pickled(spec.kind, source)
    stat = file.stat()
    digest = _sha256(file, stat.st_size, stat.st_mtime_ns)
    if spec.sha256 and digest != spec.sha256:
        raise ScorerError(
            "the weights are not the ones that were asked for",
            f"{file.name} with sha256 {digest}",
            f"sha256 {spec.sha256}",
            f"scorer {spec.kind}",
            "fetch them again, or name the checksum of these: #sha256:<64 hex digits>",
        )
    return Weights(file, digest)


def _only_file(spec: ScorerSpec, folder: Path) -> Path:
    """The file of weights in a folder: by its published name, else the only one."""
    for name in PUBLISHED[spec.kind].files:
        if (folder / name).is_file():
            return folder / name
    there = sorted(folder.glob(f"*{WEIGHTS_SUFFIX}"))
    if len(there) == 1:
        return there[0]
    if not there and any(path.suffix in PICKLES for path in folder.iterdir()):
        raise pickled(spec.kind, str(folder))
    received = f"{', '.join(path.name for path in there) or 'none'} in {folder}"
    accepted = f"{' or '.join(PUBLISHED[spec.kind].files)}, or a single {WEIGHTS_SUFFIX} file"
    raise ScorerError("no one file of weights", received, accepted, f"scorer {spec.kind}", "name the file itself")


@lru_cache(maxsize=16)
def _sha256(path: Path, size: int, changed_ns: int) -> str:
    """Hash a file; remembered while neither its size nor its time changes, as one call asks and the next one loads."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
