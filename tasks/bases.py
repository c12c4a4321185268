"""Base models, wherever they lie. The method knows folders and the hub; a bucket's are copied to this machine first."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from blora.models.locate import Located, base_revision, check_topology, locate_base
from manifests import ids
from manifests.store.store import Store

CACHE = Path("~/.cache/blora/bases").expanduser()


def revision_of(spec: str) -> str:
    """The pinned revision of a base model, wherever it lies.

    A bucket's revision is the digest of its listing, names and ETags: other files make another base, and the same ones
    uploaded anew, in parts of the same size, do not.

    Raises:
        BaseModelError: there is no such base, or it has no pinned revision.
        StoreError: the bucket does not answer.
    """
    if not spec.startswith("s3://"):
        return base_revision(spec)
    listing = Store.open(spec).list("")
    return ids.digest("bucket base", [[key, entry.version] for key, entry in listing.items()])


def located_base(spec: str) -> Located:
    """The base on this machine, copied or fetched here if need be.

    Args:
        spec: ``embedded``, ``org/model@<revision>``, a folder, or ``s3://bucket/folder``.
    """
    if not spec.startswith("s3://"):
        return locate_base(spec)
    revision = revision_of(spec)
    folder = CACHE / revision
    if not folder.exists():
        store = Store.open(spec)
        copy_objects(store, store.list(""), folder)
    check_topology(folder, spec)
    return Located(spec, folder, revision)


def copy_objects(store: Store, keys: Iterable[str], folder: Path) -> None:
    """Copy objects of a bucket into a folder that is not there yet; it appears under its name only when it is whole."""
    if folder.exists():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        whole = Path(scratch) / "base"
        for key in keys:
            path = whole / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(store.read(key))
        try:
            os.rename(whole, folder)
        except OSError:
            if not folder.exists():  # anything but a twin that was quicker
                raise


def is_plain(base: str) -> bool:
    """Whether a base is a folder with a single text encoder, as Stable Diffusion 1.5's is."""
    folder = Path(base)
    return bool(base) and (folder / "text_encoder").is_dir() and not (folder / "text_encoder_2").is_dir()
