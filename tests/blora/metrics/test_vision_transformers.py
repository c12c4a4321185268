"""The larger scorers on their real architectures with random weights, and the ways in which weights can be wrong."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from numpy.typing import NDArray
from open_clip.transformer import QuickGELU, VisionTransformer
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import Dinov2Config, Dinov2Model

import blora
from blora.errors import ScorerError, SettingsError
from blora.metrics import vision_transformers
from blora.metrics.feature_scorer import ScoreItem
from blora.metrics.score import load_scorer, load_scorers, score_samples
from blora.metrics.vision_transformers import load_encoder
from blora.metrics.weights import Weights, locate_weights
from blora.settings.judging import ScoreSettings
from blora.settings.resolve import resolve
from blora.settings.scorer_spec import PUBLISHED, parse_scorer

Picture = NDArray[np.uint8]
CLIP_COLOURS = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
IMAGENET_COLOURS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
SMALL_TOWER = {"width": 64, "layers": 2, "heads": 4, "output_dim": 24}


def picture(seed: int, height: int = 90, width: int = 140) -> Picture:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def prepared(rgb: Picture, shorter_px: int, colours: tuple[tuple[float, ...], tuple[float, ...]]) -> Tensor:
    """Resize the shorter side, keep the middle 224 px, centre and scale: written out, without torchvision."""
    image = Image.fromarray(rgb)
    scale = shorter_px / min(image.size)
    size = (int(image.width * scale), int(image.height * scale))
    resized = image.resize(size, Image.Resampling.BICUBIC)
    left, top = round((resized.width - 224) / 2), round((resized.height - 224) / 2)
    cropped = np.asarray(resized.crop((left, top, left + 224, top + 224)), np.float32) / 255
    return torch.from_numpy((cropped - np.float32(colours[0])) / np.float32(colours[1])).permute(2, 0, 1)[None]


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def unit(features: Tensor) -> Tensor:
    return nn.functional.normalize(features, dim=-1)


@pytest.fixture
def csd_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """CSD with a tower of 2 layers and random weights, under the names of the published file."""
    monkeypatch.setattr(vision_transformers, "CSD_TOWER", SMALL_TOWER)
    torch.manual_seed(0)
    tower = VisionTransformer(image_size=224, patch_size=14, mlp_ratio=4.0, act_layer=QuickGELU, **SMALL_TOWER)
    tensors = {f"backbone.{name}": tensor for name, tensor in tower.state_dict().items() if name != "proj"}
    tensors |= {f"last_layer_{side}": torch.randn(64, 24) for side in ("content", "style")}
    save_file(tensors, tmp_path / "csd.safetensors")
    return tmp_path / "csd.safetensors"


@pytest.fixture
def clip_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """CLIP ViT-L/14 cut to 2 layers of width 64, OpenAI's activation, random weights, as open_clip writes it."""
    config = {
        "embed_dim": 24,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 224, "layers": 2, "width": 64, "head_width": 16, "patch_size": 14},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
    }
    (tmp_path / "short-vit-l-14.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "short-vit-l-14.json")
    monkeypatch.setattr(vision_transformers, "CLIP", {"clip-l14": "short-vit-l-14"})
    torch.manual_seed(0)
    save_file(open_clip.create_model("short-vit-l-14").state_dict(), tmp_path / "open_clip_model.safetensors")
    return tmp_path / "open_clip_model.safetensors"


def test_dinov2_gives_the_class_token_of_pictures_prepared_as_its_authors_do(dino_folder: Path) -> None:
    encoder = load_encoder("dinov2-small", locate_weights(parse_scorer(f"dinov2-small={dino_folder}")))
    reference = Dinov2Model.from_pretrained(dino_folder).eval()
    pictures = [picture(0), picture(1, 300, 260)]
    features = encoder.extract(pictures)
    with torch.no_grad():
        wanted = [
            reference(prepared(one, 256, IMAGENET_COLOURS)).last_hidden_state[:, 0] for one in pictures
        ]  # ViT-S sees 16 x 16 patches; its positions for 37 x 37 are interpolated
    assert features.content.shape == (2, 384)
    torch.testing.assert_close(features.content, unit(torch.cat(wanted)), atol=2e-5, rtol=0)
    assert torch.equal(features.content, features.style)


def test_csd_judges_style_by_its_style_head_and_content_by_the_other(csd_file: Path) -> None:
    scorer = load_scorer(f"csd={csd_file}#sha256:{sha256(csd_file)}")
    tensors = load_file(csd_file)
    tower = VisionTransformer(image_size=224, patch_size=14, mlp_ratio=4.0, act_layer=QuickGELU, **SMALL_TOWER).eval()
    plain = {name.removeprefix("backbone."): one for name, one in tensors.items() if name.startswith("backbone.")}

    def feature(rgb: Picture, head: str) -> Tensor:
        tower.load_state_dict(plain | {"proj": tensors[f"last_layer_{head}"]})
        with torch.no_grad():
            return unit(tower(prepared(rgb, 224, CLIP_COLOURS)))[0]

    sample, content, style = picture(0), picture(1), picture(2)
    (row,) = scorer.score([ScoreItem(sample, content, style, "words that CSD cannot read")])
    assert set(row) == {"content_csd", "style_csd", "leakage_csd", "harmonic_mean_csd", "transfer_csd"}
    assert row["style_csd"] == pytest.approx(float(feature(sample, "style") @ feature(style, "style")), abs=2e-5)
    assert row["content_csd"] == pytest.approx(
        float(feature(sample, "content") @ feature(content, "content")), abs=2e-5
    )
    assert row["leakage_csd"] == pytest.approx(float(feature(sample, "content") @ feature(style, "content")), abs=2e-5)


def test_csd_as_its_authors_train_it_and_in_half_precision_gives_the_same(csd_file: Path, tmp_path: Path) -> None:
    tensors = load_file(csd_file)
    save_file({f"module.{name}": one for name, one in tensors.items()}, tmp_path / "parallel.safetensors")
    save_file({name: one.half() for name, one in tensors.items()}, tmp_path / "half.safetensors")
    rows = [
        load_scorer(f"csd={path}").score([ScoreItem(picture(0), picture(1), picture(2))])[0]
        for path in (csd_file, tmp_path / "parallel.safetensors", tmp_path / "half.safetensors")
    ]
    assert rows[1] == rows[0]
    assert rows[2] == pytest.approx(rows[0], abs=5e-3)


def test_clip_gives_what_open_clip_gives_for_pictures_and_texts(clip_file: Path) -> None:
    encoder = load_encoder("clip-l14", locate_weights(parse_scorer(f"clip-l14={clip_file.parent}")))
    model, prepare = open_clip.create_model_from_pretrained("short-vit-l-14", pretrained=str(clip_file))
    pictures = [picture(0), picture(1, 500, 300)]
    batch = torch.stack([prepare(Image.fromarray(one)) for one in pictures])
    texts = ["a pepper", "a pepper in woodblock style, on a table, at night"]
    with torch.no_grad():
        seen = unit(model.eval().encode_image(batch))
        read = unit(model.encode_text(open_clip.get_tokenizer("short-vit-l-14")(texts)))
    torch.testing.assert_close(encoder.extract(pictures).content, seen, atol=2e-5, rtol=0)
    torch.testing.assert_close(encoder.embed_texts(texts), read, atol=2e-5, rtol=0)  # type: ignore[union-attr]
    (row,) = load_scorer(f"clip-l14={clip_file}").score([ScoreItem(pictures[0], text="a pepper")])
    assert row == {"text_clip_l14": pytest.approx(float(seen[0] @ read[0]), abs=2e-5)}


def test_openais_weights_get_openais_activation_and_laions_theirs() -> None:
    models = {kind: open_clip.get_model_config(architecture) for kind, architecture in vision_transformers.CLIP.items()}
    assert models["clip-l14"]["quick_gelu"] and not models["clip-bigg14"].get("quick_gelu")
    for kind, tag in (("clip-l14", "openai"), ("clip-bigg14", "laion2b_s39b_b160k")):
        published = open_clip.get_pretrained_cfg(vision_transformers.CLIP[kind], tag)
        assert bool(published.get("quick_gelu")) is bool(models[kind].get("quick_gelu"))
        assert published["hf_hub"].strip("/") == PUBLISHED[kind].repo
        assert (published["mean"], published["std"]) == CLIP_COLOURS
        assert (published["interpolation"], published["resize_mode"]) == ("bicubic", "shortest")


@pytest.mark.parametrize(
    ("kind", "file_bytes"),
    [("dinov2-base", 346_345_912), ("dinov2-large", 1_217_522_888), ("clip-bigg14", 10_158_382_892)],
)
def test_a_network_has_as_many_numbers_as_the_published_file(kind: str, file_bytes: int) -> None:
    """Sizes as the hub lists them: four bytes a number, and a header of about a hundred bytes a tensor."""
    with torch.device("meta"):
        if kind in vision_transformers.CLIP:
            network: nn.Module = open_clip.CLIP(**open_clip.get_model_config(vision_transformers.CLIP[kind]))
        else:
            network = Dinov2Model(Dinov2Config(image_size=518, patch_size=14, **vision_transformers.DINOV2[kind]))
    tensors = network.state_dict().values()
    header = file_bytes - 4 * sum(tensor.numel() for tensor in tensors)
    assert 80 < header / len(tensors) < 140


@pytest.mark.slow
def test_csd_at_full_size_in_the_published_layout(tmp_path: Path) -> None:
    """ViT-L/14 (304 M parameters) with random weights in the number formats of the published file, which has its size.

    OpenAI's CLIP keeps norms and embeddings in fp32 where the rest is fp16, and so does that file: its length, as the
    hub lists it, is that of these tensors but for the order of its header.
    """
    torch.manual_seed(0)
    tower = VisionTransformer(
        image_size=224, patch_size=14, mlp_ratio=4.0, act_layer=QuickGELU, **vision_transformers.CSD_TOWER
    )
    full = ("ln_", "embedding")
    tensors = {
        f"backbone.{name}": one if any(part in name for part in full) else one.half()
        for name, one in tower.state_dict().items()
        if name != "proj"
    }
    tensors |= {f"last_layer_{side}": torch.randn(1024, 768).half() for side in ("content", "style")}
    path = tmp_path / "model.safetensors"
    save_file(tensors, path)
    assert path.stat().st_size == pytest.approx(610_273_592, abs=1000)
    del tower, tensors
    weights = locate_weights(parse_scorer(f"csd={path}"))
    features = load_encoder("csd", weights).extract([picture(0)])
    assert features.content.shape == features.style.shape == (1, 768)
    assert float(features.content @ features.style.T) < 0.5, "two heads, two features"
    torch.testing.assert_close(features.style.norm(dim=1), torch.ones(1))


def test_the_version_of_a_score_follows_from_the_weights(csd_file: Path, tmp_path: Path) -> None:
    scorers = load_scorers(ScoreSettings(scorers=(f"csd={csd_file}",), features="none", colour=False))
    (row,) = score_samples(scorers, [ScoreItem(picture(0), picture(1), picture(2))])
    assert (row["style_csd"].scorer, row["style_csd"].version) == ("csd", f"{sha256(csd_file)[:12]}-1")
    assert row["harmonic_mean"].scorer == "embedded-clip", "what was there keeps its name and its scorer"
    assert {"transfer", "transfer_csd", "style_clip", "style_csd"} <= set(row)
    tensors = load_file(csd_file)
    save_file(tensors | {"last_layer_style": -tensors["last_layer_style"]}, tmp_path / "other.safetensors")
    other = locate_weights(parse_scorer(f"csd={tmp_path / 'other.safetensors'}"))
    assert other.version != row["style_csd"].version


def test_the_command_of_the_readme_converts_the_authors_checkpoint(csd_file: Path, tmp_path: Path) -> None:
    """The same tensors as their training script writes them: in a pickle, beside other things, named as in parallel."""
    readme = (Path(blora.__file__).parent / "README.md").read_text("utf-8")
    (code,) = re.findall(r'^\$ python -c "(import torch, safetensors.*)"$', readme, re.MULTILINE)
    tensors = load_file(csd_file)
    named = {f"module.{name}": tensor for name, tensor in tensors.items()}
    torch.save({"model_state_dict": named, "iter": 7}, tmp_path / "pytorch_model.bin")
    (tmp_path / "converted").mkdir()
    shutil.move(tmp_path / "pytorch_model.bin", tmp_path / "converted")
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path / "converted")
    converted = load_scorer(f"csd={tmp_path / 'converted' / 'csd.safetensors'}")
    item = ScoreItem(picture(0), picture(1), picture(2))
    assert converted.score([item]) == load_scorer(f"csd={csd_file}").score([item])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("dinov2", r"unknown scorer.*'dinov2'; accepted csd, dinov2-small"),
        ("csd=", "without its source"),
        ("csd#9f86d081", r"not a checksum.*sha256: and 64 hex digits"),
        ("csd=weights.pth", r"not safetensors.*weights\.pth.*weights_only=True"),
        ("csd=pytorch_model.bin#sha256:" + "0" * 64, "not safetensors"),
    ],
)
def test_lines_that_cannot_be_meant_are_refused_with_the_settings(line: str, message: str) -> None:
    with pytest.raises(ScorerError, match=message):
        parse_scorer(line)
    with pytest.raises(SettingsError, match=r"score\.scorers"):
        resolve("demo", {"score.scorers": [line]})


def test_one_kind_of_scorer_twice_is_refused() -> None:
    with pytest.raises(SettingsError, match="each kind of scorer once"):
        resolve("demo", {"score.scorers": ["csd", "csd=./other.safetensors"]})


def test_weights_that_are_not_the_ones_meant_are_refused(csd_file: Path) -> None:
    with pytest.raises(ScorerError, match=rf"not the ones.*sha256 {sha256(csd_file)}; accepted sha256 {'0' * 64}"):
        load_scorer(f"csd={csd_file}#sha256:{'0' * 64}")


def test_weights_that_are_not_there_are_told_by_what_is(csd_file: Path, tmp_path: Path) -> None:
    with pytest.raises(ScorerError, match=r"no weights there.*nowhere\.safetensors"):
        load_scorer(f"csd={tmp_path / 'nowhere.safetensors'}")
    with pytest.raises(ScorerError, match=r"no weights there.*copy a bucket to a folder first"):
        load_scorer("csd=s3://bucket/csd.safetensors")
    with pytest.raises(ScorerError, match=r"no weights there.*40 hex digits"):
        load_scorer("dinov2-base=facebook/dinov2-base")
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(ScorerError, match=r"no one file of weights: received none in .*folder; accepted model"):
        load_scorer(f"csd={folder}")
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(ScorerError, match="not safetensors"):
        load_scorer(f"csd={folder}")
    for name in ("one", "two"):
        shutil.copy(csd_file, folder / f"{name}.safetensors")
    with pytest.raises(ScorerError, match=r"received one\.safetensors, two\.safetensors in .*name the file itself"):
        load_scorer(f"csd={folder}")
    shutil.copy(csd_file, folder / "model.safetensors")
    assert locate_weights(parse_scorer(f"csd={folder}")).path == folder / "model.safetensors"


def test_torn_and_foreign_files_are_told_apart(csd_file: Path, dino_folder: Path, tmp_path: Path) -> None:
    torn = tmp_path / "torn.safetensors"
    torn.write_bytes(csd_file.read_bytes()[:-100])
    with pytest.raises(ScorerError, match=r"scorer csd: unreadable weights: received torn\.safetensors"):
        load_scorer(f"csd={torn}")
    with pytest.raises(ScorerError, match=r"of another network.*backbone\.class_embedding is missing; .*and \d+ more"):
        load_scorer(f"csd={dino_folder}")
    tensors = load_file(csd_file)
    tensors["last_layer_style"] = tensors["last_layer_style"][:, :-1].contiguous()
    save_file(tensors, tmp_path / "short.safetensors")
    with pytest.raises(ScorerError, match=r"last_layer_style has shape \(64, 23\) instead of \(64, 24\)"):
        load_scorer(f"csd={tmp_path / 'short.safetensors'}")
    with pytest.raises(ScorerError, match=r"embeddings\.cls_token has shape \(1, 1, 384\) instead of \(1, 1, 768\)"):
        load_encoder("dinov2-base", Weights(dino_folder / "model.safetensors", "0" * 64))


def test_published_weights_come_from_the_hub_at_their_commit_and_are_checked(dino_folder: Path, tmp_path: Path) -> None:
    """The hub is out of reach and its cache holds a file for the pinned commit: it is found, hashed and refused."""
    published = PUBLISHED["dinov2-small"]
    snapshot = tmp_path / "hub" / "models--facebook--dinov2-small" / "snapshots" / published.revision
    shutil.copytree(dino_folder, snapshot)
    code = (
        "import sys\nfrom blora.errors import BloraError\nfrom blora.metrics.weights import locate_weights\n"
        "from blora.settings.scorer_spec import parse_scorer\n"
        "for line in sys.argv[1:]:\n"
        "    try: print('found', locate_weights(parse_scorer(line)).sha256)\n"
        "    except BloraError as error: print(type(error).__name__, error)\n"
        "print('torch' in sys.modules)"
    )
    own = f"dinov2-small=facebook/dinov2-small@{published.revision}"
    environment = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path), "PATH": ""}
    command = [sys.executable, "-c", code, "dinov2-small", own, "dinov2-large"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, timeout=120)
    pinned, named, absent, loaded = done.stdout.splitlines()
    found = sha256(dino_folder / "model.safetensors")
    assert pinned.startswith("ScorerError scorer dinov2-small: the weights are not the ones") and found in pinned
    assert f"accepted sha256 {published.sha256}" in pinned
    assert named == f"found {found}"
    assert absent.startswith(
        f"BaseUnreachableError facebook/dinov2-large@{PUBLISHED['dinov2-large'].revision}: the hub"
    )
    assert loaded == "False"


def test_settings_without_further_scorers_have_the_identity_that_they_always_had() -> None:
    assert ScoreSettings().identity() == {
        "clip_model": "embedded",
        "clip_pretrained": "",
        "features": "efficientnet-lite0",
        "colour": True,
        "leakage": True,
    }


def test_a_checksum_and_not_a_place_is_what_scores_depend_on() -> None:
    def identity(*scorers: str) -> object:
        return resolve("demo", {"score.scorers": list(scorers)}).score.identity()

    published = PUBLISHED["csd"].sha256
    assert identity("csd") == identity(f"csd=./elsewhere.safetensors#sha256:{published}") != identity()
    assert identity("csd=./one.safetensors") != identity("csd=./two.safetensors")
    assert identity("csd", "dinov2-base") != identity("csd")
