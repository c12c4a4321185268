"""The drawings of the embedded model: looks redraw without moving anything, and nothing held out is ever drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from blora.embedded.drawings import build, icons
from blora.embedded.drawings.named_looks import HELD_OUT_NAMED, NAMED, random_look, white_look
from blora.embedded.drawings.pictures import Pictures
from blora.embedded.drawings.references import TripleSampler, fixed_triples, judged_triples
from blora.embedded.drawings.sets import SETS
from blora.embedded.words import captions


def _drawing(side: int = 64) -> np.ndarray:
    """A square, half red and half blue, on nothing."""
    out = np.zeros((side, side, 4), np.uint8)
    out[16:40, 20:34], out[16:40, 34:48] = (220, 40, 30, 255), (30, 40, 130, 255)
    return out


@pytest.mark.parametrize(
    "look",
    [*NAMED, *HELD_OUT_NAMED, *(lot(seed) for lot in (random_look, white_look) for seed in range(8))],
    ids=lambda k: k.name,
)
def test_a_look_keeps_size_and_place_and_is_the_same_each_time(look) -> None:
    drawing = _drawing()
    picture = look.draw(drawing)
    assert picture.shape == (64, 64, 3) and picture.dtype == np.uint8
    assert np.array_equal(picture, look.draw(drawing))
    empty = look.draw(np.zeros_like(drawing))
    changed = np.abs(picture.astype(int) - empty).max(-1) > 20
    inside = np.zeros((64, 64), bool)
    inside[10:46, 14:54] = True  # the square and what a line or a blur may add around it
    assert changed.any() and not changed[~inside].any()


def test_a_thing_always_lands_in_one_place_whoever_drew_it() -> None:
    drawing = np.zeros((128, 128, 4), np.uint8)
    drawing[32:96, 32:96] = 255
    noto, twemoji, other = build.Planned(1, 0, 0), build.Planned(1, 2, 2), build.Planned(2, 0, 0)
    first, again, apart = (build.place(drawing, row.placing()) for row in (noto, twemoji, other))
    assert np.array_equal(first, again) and not np.array_equal(first, apart)
    assert noto.key() != twemoji.key(), "they are other drawings all the same"


def test_held_out_sets_are_never_redrawn_and_named_held_out_looks_only_of_held_out_things() -> None:
    things = [{"code": f"{i:X}", "held_out": i == 2} for i in range(4)]
    rows = build.plan_pictures(things, np.ones((4, len(SETS)), bool), build.Each(3, 2, 1))
    held_looks = {i for i, (_, held) in enumerate(build.all_looks()) if held}
    for row in rows:
        if SETS[row.set].held_out:
            assert row.look == row.set
        if row.look in held_looks and row.look >= len(SETS):
            assert things[row.thing]["held_out"]
    assert {row.look for row in rows} & held_looks, "nothing held out was planned at all"


def test_what_is_placed_again_is_mirrored_and_never_held_out() -> None:
    things = [{"code": f"{i:X}", "held_out": i == 2} for i in range(4)]
    rows = build.plan_again(things, np.ones((4, len(SETS)), bool), build.Each(3, 2, 1))
    held_looks = {i for i, (_, held) in enumerate(build.all_looks()) if held}
    assert {row.thing for row in rows} == {0, 1, 3} and not {row.look for row in rows} & held_looks
    drawing = np.zeros((128, 128, 4), np.uint8)
    drawing[:, :64] = 255
    for key in ("1", "2", "3", "4"):
        left = [build.place(drawing, key, again)[..., 3].astype(int) for again in (False, True)]
        heavy = [picture[:, :64].sum() > picture[:, 64:].sum() for picture in left]
        assert heavy[0] != heavy[1] and left[0].any() and left[1].any()


def test_no_icon_shares_a_word_with_a_thing_held_out() -> None:
    held_out = {"horse", "owl", "mail"}
    near = ["horse head", "seahorse", "horses", "owl", "mailbox shut", "snail mailer"]
    far = ["camel", "bowl", "growl", "main", "arrow left"]
    assert all(icons.is_near(name, held_out) for name in near)
    assert not any(icons.is_near(name, held_out) for name in far)


def test_a_silhouette_is_filled_where_the_outside_does_not_reach() -> None:
    alpha = np.zeros((64, 64), np.uint8)
    alpha[10:50, 10:50], alpha[20:40, 20:40] = 255, 0  # a ring
    alpha[0:6, 0:6] = 255  # touches the border
    made = icons.painted(alpha, np.random.default_rng(0))
    ink, hole, outside = made[12, 12], made[30, 30], made[60, 60]
    assert ink[3] == hole[3] == 255 and outside[3] == 0
    assert not np.array_equal(ink[:3], hole[:3]) and np.array_equal(made[2, 2], ink)


def test_training_draws_nothing_that_is_held_out(built: Path) -> None:
    pictures = Pictures.read(built)
    draw = TripleSampler(pictures, np.random.default_rng(0)).draw(200)
    forbidden = pictures.held_out_thing() | pictures.held_out_look()
    assert forbidden.any()
    for rows in (draw.target, draw.content, draw.style):
        assert not forbidden[rows].any()


def test_a_reference_shares_one_thing_only_with_its_target(built: Path) -> None:
    pictures = Pictures.read(built)
    draw = TripleSampler(pictures, np.random.default_rng(0)).draw(100)
    assert (pictures.look[draw.content] != pictures.look[draw.target]).all()
    assert (pictures.thing[draw.content] == pictures.thing[draw.target]).all()
    assert (pictures.look[draw.style] == pictures.look[draw.target]).all()
    assert (pictures.thing[draw.style] != pictures.thing[draw.target]).mean() > 0.9


def test_a_drawing_that_is_in_no_other_look_is_described_by_another_hands_and_never_by_itself(built: Path) -> None:
    """A code of the target itself says how it is drawn, and then the style reference is not asked."""
    pictures = Pictures.read(built)
    sampler = TripleSampler(pictures, np.random.default_rng(0))
    row = int(np.flatnonzero((pictures.thing == 0) & (pictures.look == pictures.look.max()))[0])
    assert (pictures.geometry == pictures.geometry[row]).sum() == 1
    for _ in range(20):
        other = sampler._content(row)
        assert pictures.placing[other] == pictures.placing[row] and pictures.geometry[other] != pictures.geometry[row]


def test_a_hand_is_asked_for_where_another_is_given(built: Path) -> None:
    pictures = Pictures.read(built)
    draw = TripleSampler(pictures, np.random.default_rng(0)).draw(600)
    native, apart = pictures.native[draw.target], pictures.geometry[draw.content] != pictures.geometry[draw.target]
    assert native.mean() > 0.3
    assert (pictures.placing[draw.content] == pictures.placing[draw.target]).all()
    assert apart[native].mean() > apart[~native].mean() > 0


@pytest.mark.parametrize("held_out", [False, True])
def test_judged_triples_are_the_same_each_time_and_of_the_right_things(built: Path, held_out: bool) -> None:
    pictures = Pictures.read(built)
    first, again = (fixed_triples(pictures, held_out, count=12) for _ in range(2))
    assert np.array_equal(first.target, again.target) and np.array_equal(first.style, again.style)
    assert (pictures.held_out_thing()[first.target] == held_out).all()


def test_another_hands_drawing_is_judged_in_the_same_place_and_of_held_out_things(built: Path) -> None:
    pictures = Pictures.read(built)
    judged = judged_triples(pictures)["other_hand"]
    assert pictures.held_out_thing()[judged.target].all() and pictures.native[judged.target].all()
    assert (pictures.placing[judged.content] == pictures.placing[judged.target]).all()
    assert (pictures.geometry[judged.content] != pictures.geometry[judged.target]).all()
    assert (pictures.look[judged.style] == pictures.look[judged.target]).all()


def test_captions_have_their_article() -> None:
    rng = np.random.default_rng(0)
    said = {captions.caption("owl", "blueprint", rng) for _ in range(50)}
    assert said == {
        "A owl in blueprint style",
        "an owl in blueprint style",
        "owl, blueprint",
        "an owl, blueprint style",
    }
