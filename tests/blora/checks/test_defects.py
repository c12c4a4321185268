"""Detectors: each sees what it is for and not what the others are for, on real drawings and on made-broken ones."""

from __future__ import annotations

import numpy as np
import pytest

from blora.benchmark.drawings import PairedSet, load_paired
from blora.checks.broken_pictures import blurred, diptych, faded, halves, white_behind
from blora.checks.calibrate import scikit_photographs
from blora.checks.defects import (
    ADAPTER_DEFECTS,
    PICTURE_DEFECTS,
    adapter_defects,
    grey_collapse,
    picture_defects,
    reconstruction_distance,
    split_image,
    structure_loss,
    style_copy,
    white_background,
)
from blora.checks.evidence import choose_limit
from blora.checks.limits import LIMITS, limits_for, picture_passes
from blora.embedded import REVISION
from blora.metrics.feature_scorer import FeatureScorer, ScoreItem
from blora.metrics.lite0 import load_lite0
from blora.metrics.score import score_samples
from blora.metrics.structure import StructureScorer
from blora.sampling.colour_transfer import transfer_colours
from blora.settings.judging import CheckSettings


@pytest.fixture(scope="module")
def paired() -> PairedSet:
    """The shipped drawings."""
    return load_paired()


def drawing(paired: PairedSet, thing: str, style: str) -> np.ndarray:
    """A drawing by the names of its thing and its style."""
    things, styles = [one.name for one in paired.things], [one.name for one in paired.styles]
    return paired.pictures[things.index(thing), styles.index(style)]


@pytest.mark.parametrize("style", ["noto", "coral", "night"])
def test_two_pictures_in_one_are_split(paired: PairedSet, style: str) -> None:
    bear, pepper = drawing(paired, "bear", style), drawing(paired, "hot pepper", style)
    assert split_image(bear) < 0.6 and split_image(pepper) < 0.75
    assert split_image(diptych(bear, bear)) > 0.95, "one thing twice, side by side"
    assert split_image(diptych(bear, bear).transpose(1, 0, 2)) > 0.95, "and above each other"
    balloon = drawing(paired, "balloon", style)
    assert split_image(diptych(pepper, balloon)) > 0.75, "two things and nothing between them"
    other = drawing(paired, "hot pepper", "blueprint")
    assert split_image(halves(bear, other)) > 0.85, "two backgrounds"


def test_an_empty_picture_is_not_split() -> None:
    assert split_image(np.full((40, 64, 3), 200, np.uint8)) == 0


def test_grey_collapse_is_the_share_of_colour_and_contrast_that_is_gone(paired: PairedSet) -> None:
    pepper = drawing(paired, "hot pepper", "coral")
    assert grey_collapse(pepper, pepper) == 0
    values = [grey_collapse(faded(pepper, kept), pepper) for kept in (0.8, 0.5, 0.2, 0)]
    assert values == sorted(values) and values[-1] == pytest.approx(1) and 0.1 < values[0] < 0.4
    assert grey_collapse(pepper, faded(pepper, 0.2)) == 0, "more colour than the image is no collapse"
    plain = np.full((8, 8, 3), 7, np.uint8)
    assert grey_collapse(plain, plain) == 0, "an image of one colour has none to lose"


def test_white_that_the_image_has_is_no_white_background(paired: PairedSet) -> None:
    white, coral = drawing(paired, "bear", "noto"), drawing(paired, "bear", "coral")
    assert white_background(white, white) == white_background(coral, coral) == 0
    assert white_background(white_behind(coral), coral) > 0.4
    assert white_background(faded(coral, 0.02, 255), coral) > 0.9
    assert white_background(coral, white) < -0.3


def test_a_reconstruction_is_as_far_as_its_colours_are_in_their_places(paired: PairedSet) -> None:
    bear = drawing(paired, "bear", "coral")
    assert reconstruction_distance(bear, bear) == 0
    noise = np.random.default_rng(0).integers(-12, 13, bear.shape)
    near = reconstruction_distance((bear + noise).clip(0, 255).astype(np.uint8), bear)
    far = [reconstruction_distance(drawing(paired, *names), bear) for names in (("glasses", "coral"), ("bear", "noto"))]
    assert near < 4 < 15 < min(far)
    black, white = np.zeros((8, 8, 3), np.uint8), np.full((16, 16, 3), 255, np.uint8)
    assert reconstruction_distance(black, white) == pytest.approx(100, abs=0.01), "pictures of any sizes"


def test_a_sample_that_shows_the_style_images_thing_is_a_copy() -> None:
    assert style_copy({"leakage_lite0": 0.9, "content_lite0": 0.4}) == pytest.approx(0.5)
    assert style_copy({"leakage_lite0": 0.9}) is None and style_copy({"text_clip": 0.3}) is None


def test_fog_passes_for_no_picture_by_its_likeness_and_fails_by_its_structure() -> None:
    four = scikit_photographs()[:3] + scikit_photographs()[6:7]  # astronaut, cat, coffee, rocket
    pairs = [(content, style) for content in four for style in four]
    limits = limits_for(CheckSettings(), REVISION)
    scorers = [FeatureScorer(load_lite0(), leakage=True), StructureScorer()]

    def passed(pictures: list[np.ndarray], limits: dict[str, float]) -> int:
        items = [ScoreItem(one, *pair) for one, pair in zip(pictures, pairs, strict=True)]
        scores = ({name: scored.value for name, scored in row.items()} for row in score_samples(scorers, items))
        return sum(picture_passes(row, limits) is True for row in scores)

    fog = [blurred(faded(content, 0.3), 0.05) for content, _ in pairs]
    assert passed(fog, {"style_copy": limits["style_copy"]}) >= 15, "what fog is like says nothing of its being fog"
    assert passed(fog, limits) == 0
    stylised = [transfer_colours(content, style) for content, style in pairs]
    assert passed(stylised, {"structure_loss": limits["structure_loss"]}) == len(pairs)


def test_structure_is_held_against_the_plainer_of_both_images(paired: PairedSet) -> None:
    plain, busy = drawing(paired, "bear", "night"), scikit_photographs()[0]
    (row, bare, empty) = StructureScorer().score(
        [ScoreItem(plain, busy, plain), ScoreItem(plain, busy), ScoreItem(plain)]
    )
    assert row == {"structure": 1} and bare["structure"] < 0.6 and empty == {}
    grey = np.full((8, 8, 3), 90, np.uint8)
    nothing, of_nothing = StructureScorer().score([ScoreItem(grey, busy, plain), ScoreItem(busy, grey)])
    assert nothing == {"structure": 0} and of_nothing == {"structure": 1}
    assert structure_loss({"structure": 0.25}) == 0.75 and structure_loss({"text_clip": 0.3}) is None


@pytest.mark.parametrize(
    ("scores", "limits", "passes"),
    [
        ({"leakage_lite0": 0.5, "content_lite0": 0.4}, {"style_copy": 0.2}, True),
        ({"leakage_lite0": 0.9, "content_lite0": 0.4}, {"style_copy": 0.2, "split_image": 1.0}, False),
        ({"leakage_lite0": 0.9, "content_lite0": 0.4}, {"split_image": 0.0}, None),
        ({"text_clip": 0.3}, {"style_copy": 0.2}, None),
    ],
)
def test_a_picture_passes_where_no_defect_that_can_be_judged_is_beyond_its_limit(
    scores: dict[str, float], limits: dict[str, float], passes: bool | None
) -> None:
    assert picture_passes(scores, limits) is passes


def test_every_defect_has_a_name_a_function_and_a_setting_for_its_limit() -> None:
    black = np.zeros((8, 8, 3), np.uint8)
    scores = dict.fromkeys(("leakage_lite0", "content_lite0", "structure"), 0.5)
    assert tuple(adapter_defects(black, black)) == ADAPTER_DEFECTS
    assert tuple(picture_defects(scores)) == PICTURE_DEFECTS
    assert set(LIMITS) == CheckSettings.model_fields.keys() - {"attempts", "pictures", "steps"}


def test_a_limit_has_the_fewest_errors_and_stands_in_the_middle_of_such() -> None:
    assert choose_limit([0.1, 0.2], [0.6, 0.9]) == pytest.approx(0.4)
    assert 0.3 < choose_limit([0.1, 0.2, 0.3, 0.8], [0.5, 0.6, 0.7, 0.9]) < 0.5
    with pytest.raises(ValueError, match="some of each"):
        choose_limit([0.1], [])
