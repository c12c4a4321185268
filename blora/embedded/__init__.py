"""The small model shipped with the package: SDXL's topology, its CLIP, their card; and how they were trained."""

from __future__ import annotations

import hashlib
from pathlib import Path

_HERE = Path(__file__).parent
MODEL_DIR = _HERE / "model"
CLIP_DIR = _HERE / "clip"
_REVISION_FILE = _HERE / "revision.txt"


def compute_revision(root: Path = _HERE) -> str:
    """SHA-256 over names and bytes of all files of the model and its CLIP under `root`, in sorted order."""
    digest = hashlib.sha256()
    for folder in (root / "model", root / "clip"):
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                digest.update(path.relative_to(root).as_posix().encode() + b"\0")
                digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


# Written by training.export; empty only while the first export is under way.
REVISION = _REVISION_FILE.read_text().strip() if _REVISION_FILE.exists() else ""


def verify() -> None:
    """Raise ValueError if the files on disk are not the ones that REVISION names."""
    revision = compute_revision()
    if revision != REVISION:
        raise ValueError(
            f"The embedded model in {_HERE} does not match its revision: expected {REVISION or 'none'}, "
            f"found {revision}. "
            "The files were changed or only partly installed; install the package again."
        )
