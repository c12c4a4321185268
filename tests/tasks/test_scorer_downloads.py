"""Weights of a scorer in a bucket: copied once, checked as they are loaded, and told apart from what is no weights."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import Dinov2Config, Dinov2Model

from blora.errors import ScorerError
from blora.metrics import vision_transformers
from blora.metrics.feature_scorer import ScoreItem
from blora.metrics.score import score_samples
from blora.settings.judging import ScoreSettings
from manifests.store.store import Store
from tasks import downloads
from tasks.worker.session import Session

pytestmark = pytest.mark.s3

SMALL = {"dinov2-small": {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}}


@pytest.fixture
def uploaded(s3_root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, bytes]:
    """A small DINOv2 with random weights in a bucket: the folder's address, and the file."""
    monkeypatch.setattr(downloads, "SCORERS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(vision_transformers, "DINOV2", SMALL)
    torch.manual_seed(0)
    model = Dinov2Model(Dinov2Config(image_size=518, patch_size=14, **SMALL["dinov2-small"]))
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    data = (tmp_path / "model.safetensors").read_bytes()
    Store.open(f"{s3_root}/dino").replace("model.safetensors", data)
    return f"{s3_root}/dino", data


def score(tmp_path: Path, line: str) -> dict[str, object]:
    """Scores of a picture by one scorer of a slot; other scorers are left out."""
    session = Session("cpu", Store.open(str(tmp_path / "store")), emit=lambda event: None)
    scorers = session.scorers(ScoreSettings(features="none", colour=False, scorers=(line,)))
    pictures = np.random.default_rng(0).integers(0, 256, (2, 40, 40, 3)).astype(np.uint8)
    (row,) = score_samples(scorers[-1:], [ScoreItem(pictures[0], pictures[0], pictures[1])])
    return dict(row)


@pytest.mark.parametrize("tail", ["", "/", "/model.safetensors"])
def test_a_slot_scores_with_weights_from_a_bucket(uploaded: tuple[str, bytes], tmp_path: Path, tail: str) -> None:
    address, data = uploaded
    checksum = hashlib.sha256(data).hexdigest()
    row = score(tmp_path, f"dinov2-small={address}{tail}#sha256:{checksum}")
    assert row["content_dinov2_small"].value == pytest.approx(1, abs=1e-5)  # type: ignore[attr-defined]
    assert row["style_dinov2_small"].version == f"{checksum[:12]}-1"  # type: ignore[attr-defined]
    (copy,) = (tmp_path / "cache").rglob("*.safetensors")
    written = copy.stat().st_mtime_ns
    assert score(tmp_path, f"dinov2-small={address}{tail}#sha256:{checksum}") == row
    assert copy.stat().st_mtime_ns == written, "copied again"


def test_wrong_weights_in_a_bucket_are_refused(uploaded: tuple[str, bytes], tmp_path: Path) -> None:
    address, data = uploaded
    with pytest.raises(ScorerError, match="not the ones that were asked for"):
        score(tmp_path, f"dinov2-small={address}#sha256:{'0' * 64}")
    with pytest.raises(ScorerError, match=r"no weights there: received s3://.*/other\.safetensors, beside model"):
        score(tmp_path, f"dinov2-small={address}/other.safetensors")
    with pytest.raises(ScorerError, match="no weights there"):
        score(tmp_path, f"dinov2-small={address}-elsewhere")
    with pytest.raises(ScorerError, match="not safetensors"):
        downloads.local_scorer(f"dinov2-small={address}/pytorch_model.bin")
    Store.open(address).replace("model.safetensors", data[:-4])
    with pytest.raises(ScorerError, match="unreadable weights"):
        score(tmp_path, f"dinov2-small={address}")
