"""Scores order pictures as they must: real photographs and looks drawn from them, real ImageNet weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from safetensors.torch import save_file
from skimage import color, data

import blora.metrics.lite0
from blora.embedded import REVISION
from blora.errors import ScorerError
from blora.metrics.clip import ClipEncoder, load_clip
from blora.metrics.feature_scorer import FeatureScorer, ScoreItem, harmonic_mean
from blora.metrics.lite0 import Features, Lite0, load_lite0
from blora.metrics.palette_distance import colour_distance, rgb_to_lab
from blora.metrics.score import ColourScorer, load_scorers, score_each, score_samples
from blora.settings.judging import ScoreSettings

Picture = NDArray[np.uint8]
TINY = "tiny-clip-of-the-tests"


def small(picture: Picture, side_px: int = 160) -> Picture:
    side = min(picture.shape[:2])
    top, left = (picture.shape[0] - side) // 2, (picture.shape[1] - side) // 2
    square = Image.fromarray(picture[top : top + side, left : left + side])
    return np.asarray(square.resize((side_px, side_px), Image.Resampling.LANCZOS))


def woodcut(picture: Picture) -> Picture:
    """Two inks and hatching: a strong look."""
    grey = np.asarray(Image.fromarray(picture).convert("L"), np.float32)
    rows, columns = np.indices(grey.shape)
    hatched = grey + 55 * np.sign(np.sin((rows + columns) * 0.9)) > np.median(grey)
    return np.where(hatched[..., None], (240, 226, 196), (24, 34, 92)).astype(np.uint8)


def poster(picture: Picture) -> Picture:
    """Eight flat colours: a milder look."""
    return np.asarray(ImageOps.posterize(Image.fromarray(picture), 1))


@pytest.fixture(scope="module")
def photos() -> dict[str, Picture]:
    return {
        "cat": small(data.chelsea()),
        "cup": small(data.coffee()),
        "rocket": small(data.rocket()),
        "woman": small(data.astronaut()),
    }


@pytest.fixture(scope="module")
def lite0() -> Lite0:
    return load_lite0()


@pytest.fixture(scope="module")
def tiny_clip_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random open_clip model, known to open_clip by name, its weights in a file."""
    folder = tmp_path_factory.mktemp("clip")
    config = {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
    }
    (folder / f"{TINY}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder / f"{TINY}.json")
    torch.manual_seed(0)
    weights = folder / "weights.safetensors"
    save_file({k: v.clone() for k, v in open_clip.create_model(TINY).state_dict().items()}, weights)
    return weights


@pytest.fixture(scope="module")
def tiny_clip(tiny_clip_file: Path) -> ClipEncoder:
    return load_clip(TINY, str(tiny_clip_file))


def test_a_picture_is_nearer_to_its_own_content_than_to_any_other(lite0: Lite0, photos: dict[str, Picture]) -> None:
    scorer = FeatureScorer(lite0)
    for thing, photo in photos.items():
        changed = photo[:, ::-1] // 2 + 60  # mirrored, flat contrast
        near = {
            other: scorer.score([ScoreItem(changed, content=picture)])[0]["content_lite0"]
            for other, picture in photos.items()
        }
        assert max(near, key=near.__getitem__) == thing, near


def test_an_identical_picture_has_similarity_one(
    lite0: Lite0, tiny_clip: ClipEncoder, photos: dict[str, Picture]
) -> None:
    for extractor in (lite0, tiny_clip):
        scores = FeatureScorer(extractor).score([ScoreItem(photos["cat"], photos["cat"], photos["cup"])])[0]
        assert scores[f"content_{extractor.short_name}"] == pytest.approx(1, abs=1e-5)
        assert scores[f"style_{extractor.short_name}"] < 0.999


def test_style_is_told_by_the_look_and_not_by_the_thing(lite0: Lite0, photos: dict[str, Picture]) -> None:
    scorer = FeatureScorer(lite0, leakage=True)
    styled, plain = woodcut(photos["cat"]), photos["cat"]
    other_thing_same_look = woodcut(photos["rocket"])
    with_style, without = scorer.score(
        [ScoreItem(styled, style=other_thing_same_look), ScoreItem(plain, style=other_thing_same_look)]
    )
    assert with_style["style_lite0"] > without["style_lite0"] + 0.2


def test_leakage_is_the_content_feature_of_the_style_image(lite0: Lite0, photos: dict[str, Picture]) -> None:
    scorer = FeatureScorer(lite0, leakage=True)
    style = poster(photos["rocket"])
    clean, leaked = scorer.score(
        [ScoreItem(poster(photos["cat"]), style=style), ScoreItem(photos["rocket"], style=style)]
    )
    assert leaked["leakage_lite0"] > clean["leakage_lite0"]
    assert leaked["style_lite0"] < clean["style_lite0"], "the two must not be one number"
    as_content = scorer.score([ScoreItem(photos["rocket"], content=style)])[0]
    assert leaked["leakage_lite0"] == as_content["content_lite0"]


def test_harmonic_mean_lies_between_both_sides_and_transfer_is_zero_for_copies(
    lite0: Lite0, photos: dict[str, Picture]
) -> None:
    content, style, wanted = photos["cat"], poster(photos["rocket"]), poster(photos["cat"])
    true, copied_content, copied_style, neither = FeatureScorer(lite0).score(
        [ScoreItem(sample, content, style) for sample in (wanted, content, style, photos["woman"])]
    )
    for row in (true, copied_content, copied_style, neither):
        low, high = sorted((max(row["content_lite0"], 0.0), max(row["style_lite0"], 0.0)))
        assert low <= row["harmonic_mean"] <= high
    assert copied_content["transfer"] == pytest.approx(0, abs=1e-4)
    assert copied_style["transfer"] == pytest.approx(0, abs=1e-4)
    assert true["transfer"] > 0.3 > 0.1 > neither["transfer"]


@pytest.mark.parametrize(("one", "other", "mean"), [(1, 1, 1), (0.5, 1, 2 / 3), (0.2, 0, 0), (-0.3, 0.9, 0), (0, 0, 0)])
def test_harmonic_mean_of_two_numbers(one: float, other: float, mean: float) -> None:
    assert harmonic_mean(one, other) == pytest.approx(mean)


def test_scores_that_do_not_apply_are_absent(lite0: Lite0, tiny_clip: ClipEncoder, photos: dict[str, Picture]) -> None:
    scorer = FeatureScorer(lite0, leakage=True)
    assert set(scorer.score([ScoreItem(photos["cat"], content=photos["cup"])])[0]) == {"content_lite0"}
    assert set(scorer.score([ScoreItem(photos["cat"], style=photos["cup"])])[0]) == {"style_lite0", "leakage_lite0"}
    clip = FeatureScorer(tiny_clip, embed_texts=tiny_clip.embed_texts)
    assert clip.score([ScoreItem(photos["cat"])]) == [{}]
    assert set(clip.score([ScoreItem(photos["cat"], text="a cat")])[0]) == {"text_clip"}


def test_an_items_scores_do_not_depend_on_the_others(
    lite0: Lite0, tiny_clip: ClipEncoder, photos: dict[str, Picture]
) -> None:
    names = list(photos)
    items = [
        ScoreItem(photos[names[i]], photos[names[i - 1]], woodcut(photos[names[i - 2]]), text=f"a {names[i]}")
        for i in range(len(names))
    ]
    for extractor, embed in ((lite0, None), (tiny_clip, tiny_clip.embed_texts)):
        together = FeatureScorer(extractor, 32, leakage=True, embed_texts=embed).score(items)
        alone = FeatureScorer(extractor, 1, leakage=True, embed_texts=embed).score(items)
        for row, single in zip(together, alone, strict=True):
            assert row == pytest.approx(single, abs=2e-5)


def test_reference_pictures_are_looked_at_once(lite0: Lite0, photos: dict[str, Picture]) -> None:
    seen: list[int] = []

    class Counting:
        name, short_name, version = lite0.name, lite0.short_name, lite0.version

        def extract(self, pictures: Sequence[Picture]) -> Features:
            seen.append(len(pictures))
            return lite0.extract(pictures)

    scorer = FeatureScorer(Counting())
    for _ in range(2):
        scorer.score([ScoreItem(photos["woman"], photos["cat"].copy(), photos["cup"].copy()) for _ in range(2)])
    assert sum(seen) == 2 + 2, "two references once, and a sample once a call, by however many items it is judged"


def test_lab_agrees_with_scikit_image(photos: dict[str, Picture]) -> None:
    for photo in photos.values():
        np.testing.assert_allclose(rgb_to_lab(photo), color.rgb2lab(photo), atol=0.02)


def test_colour_distance_is_zero_for_one_palette_and_grows_with_the_hue(photos: dict[str, Picture]) -> None:
    cup = photos["cup"]
    assert colour_distance(cup, cup) == 0
    assert colour_distance(cup, cup[::-1, ::-1].copy()) == pytest.approx(0, abs=0.2)
    assert colour_distance(cup, small(data.coffee(), 300)) < 1
    turned = []
    for degrees in (10, 30, 60, 120):
        hsv = color.rgb2hsv(cup)
        hsv[..., 0] = (hsv[..., 0] + degrees / 360) % 1
        turned.append(colour_distance(cup, (color.hsv2rgb(hsv) * 255).round().astype(np.uint8)))
    assert turned == sorted(turned)
    assert turned[0] > 1


def test_colour_distance_of_plain_colours_is_about_cie76() -> None:
    one = np.full((8, 8, 3), (200, 60, 50), np.uint8)
    for other_colour in ((60, 60, 200), (200, 200, 50), (20, 20, 20), (205, 66, 50)):
        other = np.full((5, 9, 3), other_colour, np.uint8)
        exact = float(np.linalg.norm(rgb_to_lab(one)[0, 0] - rgb_to_lab(other)[0, 0]))
        assert colour_distance(one, other) == pytest.approx(exact, rel=0.15)
        assert colour_distance(one, other) == pytest.approx(colour_distance(other, one))


def test_all_scorers_together_sign_every_number(tiny_clip_file: Path, photos: dict[str, Picture]) -> None:
    scorers = load_scorers(ScoreSettings(clip_model=TINY, clip_pretrained=str(tiny_clip_file)))
    item = ScoreItem(woodcut(photos["cat"]), photos["cat"], woodcut(photos["cup"]), "a cat, woodcut")
    (row,) = score_samples(scorers, [item])
    assert set(row) == {
        "content_lite0", "style_lite0", "leakage_lite0", "harmonic_mean", "transfer",
        "content_clip", "style_clip", "text_clip", "colour_distance", "structure",
    }  # fmt: skip
    assert all(scored.scorer and scored.version for scored in row.values())
    assert row["content_clip"].scorer.startswith(f"{TINY}/weights.safetensors-")
    assert row["content_clip"].version == f"open_clip {open_clip.__version__}"
    assert row["harmonic_mean"].scorer == row["content_lite0"].scorer == "efficientnet-lite0"
    (bare,) = score_samples(
        load_scorers(
            ScoreSettings(
                clip_model=TINY, clip_pretrained=str(tiny_clip_file), features="none", colour=False, structure=False
            )
        ),
        [item],
    )
    assert set(bare) == {"content_clip", "style_clip", "text_clip", "harmonic_mean", "transfer"}
    assert bare["harmonic_mean"].scorer == row["content_clip"].scorer


def test_the_embedded_clip_is_the_default_and_signs_with_its_revision(photos: dict[str, Picture]) -> None:
    scorers = load_scorers(ScoreSettings(features="none", colour=False))
    same, other = score_samples(
        scorers,
        [ScoreItem(photos["cat"], photos["cat"], photos["cup"], "a cat"), ScoreItem(photos["cat"], photos["cup"])],
    )
    assert same["content_clip"].value == pytest.approx(1, abs=1e-5)
    assert other["content_clip"].value < 0.9
    assert -1 <= same["text_clip"].value <= 1
    assert (same["text_clip"].scorer, same["text_clip"].version) == ("embedded-clip", REVISION[:12])


@pytest.mark.parametrize(
    "picture",
    [np.zeros((8, 8, 3), np.float32), np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8), None],
    ids=["float", "grey", "alpha", "none"],
)
def test_what_is_no_picture_is_refused(picture: Picture, photos: dict[str, Picture]) -> None:
    with pytest.raises(ScorerError, match="item 1, sample: not a picture"):
        score_samples([], [ScoreItem(photos["cat"]), ScoreItem(picture)])


def test_an_item_that_cannot_be_judged_leaves_the_others_as_they_were(photos: dict[str, Picture]) -> None:
    class Brightness:
        name, version = "brightness", "1"

        def score(self, items: Sequence[ScoreItem]) -> list[dict[str, float]]:
            return [{"contrast": float(item.sample.std() / item.sample.std() if item.sample.any() else np.nan)}
                    for item in items]  # fmt: skip

    scorers = [ColourScorer(), Brightness()]
    black, grey = np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.uint8)
    sound = ScoreItem(photos["cat"], style=photos["cup"])
    rows = score_each(scorers, [ScoreItem(grey), ScoreItem(black), sound])
    assert "item 0, sample: not a picture" in str(rows[0])
    assert "brightness, item 1: a score is not finite" in str(rows[1])
    assert rows[2:] == score_samples(scorers, [sound]) and list(rows[2]) == ["colour_distance", "contrast"]


@pytest.mark.parametrize("architecture", ["ViT-L-14", "ViT-B-32"])
def test_a_quickgelu_mismatch_is_an_error_before_anything_is_fetched(
    architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetched(*_: object, **__: object) -> None:
        raise AssertionError("went on to load the model")

    monkeypatch.setattr(open_clip, "create_model_from_pretrained", fetched)
    with pytest.raises(ScorerError, match=f"QuickGELU mismatch.*use {architecture}-quickgelu"):
        load_clip(architecture, "openai")


def test_unknown_models_and_wrong_weights_are_told_apart(tiny_clip_file: Path, tmp_path: Path) -> None:
    with pytest.raises(ScorerError, match=r"did you mean .*ViT-L-14\b"):
        load_clip("ViT-L-41", "openai")
    with pytest.raises(ScorerError, match=r"or a tag: .*openai"):
        load_clip("ViT-L-14-quickgelu", "opanai")
    wrong = tmp_path / "wrong.safetensors"
    save_file({"visual.proj": torch.zeros(2, 2)}, wrong)
    with pytest.raises(ScorerError, match=r"could not load"):
        load_clip(TINY, str(wrong))


def test_lite0_without_its_weights_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blora.metrics.lite0, "WEIGHTS_SHA256", "0" * 64)
    with pytest.raises(ScorerError, match="not the pinned ones"):
        load_lite0()
    monkeypatch.setitem(__import__("sys").modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(ScorerError, match=r"efficientnet-lite-pytorch 0\.1\.0"):
        load_lite0()
