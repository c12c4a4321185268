"""A base model in a bucket: copied once, named by its listing, loaded like any folder."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from blora.bases.spec import BaseSpec, Fused
from blora.errors import BaseModelError, TopologyError
from blora.models.model import Base
from manifests.store.store import Store
from tasks import downloads
from tests.tiny import save_tiny_base

pytestmark = pytest.mark.s3


def _small_files_alone(store: Store, key: str) -> bytes:
    """Weights of a base may be larger than memory: they go to a file as they come."""
    assert not key.endswith(".safetensors"), f"{key} is read whole into memory"
    return store._backend.read(key, None)


def test_a_base_in_a_bucket_is_copied_once_and_changes_its_revision_with_its_files(
    s3_root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "BASES_CACHE", tmp_path / "cache")
    folder = save_tiny_base(tmp_path / "tiny")
    store = Store.open(s3_root)
    for path in folder.rglob("*"):
        if path.is_file():
            store.replace(path.relative_to(folder).as_posix(), path.read_bytes())
    full = "unet/diffusion_pytorch_model.safetensors"
    fp16 = full.replace(".safetensors", ".fp16.safetensors")
    store.replace(fp16, store.read(full))
    monkeypatch.setattr(Store, "read", _small_files_alone)
    half = downloads.located_base(s3_root, half=True)
    assert (half.folder / fp16).is_file() and not (half.folder / full).exists(), "what is not loaded is not copied"
    located = downloads.located_base(s3_root)
    assert half.revision == located.revision and not (located.folder / fp16).exists()
    assert located.spec == s3_root and located.revision == downloads.revision_of(s3_root)
    marker = located.folder / "unet" / "config.json"
    first = marker.stat().st_mtime_ns
    assert downloads.located_base(s3_root) == located
    assert marker.stat().st_mtime_ns == first, "copied again"
    assert Base(located).revision == located.revision
    configuration = store.read("scheduler/scheduler_config.json")
    store.replace("scheduler/scheduler_config.json", configuration)
    assert downloads.revision_of(s3_root) == located.revision, "the same file uploaded anew is the same base"
    store.replace("scheduler/scheduler_config.json", configuration + b" ")
    assert downloads.revision_of(s3_root) != located.revision


def test_parts_of_a_base_in_a_bucket_are_copied_once_and_held_to_their_sha_256(
    s3_root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "BASES_CACHE", tmp_path / "cache")
    store, data = Store.open(s3_root), safetensors.numpy.save({"x": np.zeros(1)})
    digest = hashlib.sha256(data).hexdigest()
    store.replace("loras/lcm.safetensors", data)
    store.replace("loras/other.safetensors", b"not copied")
    place = f"{s3_root}/loras/lcm.safetensors"
    spec = BaseSpec("embedded", fuse=(Fused(place, 0.5),))
    located = downloads.located_base(spec.text)
    ((copy, weight),) = located.fuse
    assert (located.spec, located.revision, weight) == (spec.text, downloads.revision_of(spec.text), 0.5)
    assert copy.read_bytes() == data and [path.name for path in copy.parent.iterdir()] == ["lcm.safetensors"]
    said = BaseSpec("embedded", fuse=(Fused(f"{place}#sha256:{digest}", 0.5),))
    here = BaseSpec("embedded", fuse=(Fused(f"{copy}#sha256:{digest}", 0.5),))
    assert downloads.revision_of(said.text) == downloads.revision_of(here.text) != located.revision
    assert downloads.located_base(said.text).fuse[0][0].read_bytes() == data
    with pytest.raises(BaseModelError, match="another file than its SHA-256 says"):
        downloads.located_base(said.text.replace(digest, "0" * 64))
    with pytest.raises(BaseModelError, match="no such object"):
        downloads.revision_of(f"{s3_root}/loras/gone.safetensors")


def test_a_bucket_without_a_model_is_refused_by_name(
    s3_root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "BASES_CACHE", tmp_path / "cache")
    Store.open(s3_root).replace("readme.txt", b"nothing here")
    with pytest.raises(TopologyError, match="unet/"):
        downloads.located_base(s3_root)
