"""The judges tell real drawings from copies of either input, and their distances are distances."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from blora.benchmark.drawings import Pair, PairedSet, load_paired, make_pairs
from blora.benchmark.judges import Judge, Judgement, edge_map
from blora.metrics.lite0 import load_lite0
from tests.tiny import picture

STYLES = ("noto", "fluent-ink", "openmoji", "blueprint", "sunset", "coral")


@pytest.fixture(scope="module")
def paired() -> PairedSet:
    """Half of the styles and fewer things, so that judging takes seconds."""
    whole = load_paired()
    things = [*whole.members("validation")[:8], *whole.members("test")[:10]]
    columns = [number for number, style in enumerate(whole.styles) if style.name in STYLES]
    return replace(
        whole,
        things=tuple(whole.things[number] for number in things),
        styles=tuple(whole.styles[number] for number in columns),
        pictures=whole.pictures[np.ix_(things, columns)],
    )


@pytest.fixture(scope="module")
def judge(paired: PairedSet) -> Judge:
    return Judge(paired, "test", load_lite0())


@pytest.fixture(scope="module")
def pairs(paired: PairedSet) -> list[Pair]:
    return make_pairs(paired, "test", 24)


def rates(verdicts: list[Judgement]) -> tuple[float, float]:
    return float(np.mean([v.style_right for v in verdicts])), float(np.mean([v.thing_right for v in verdicts]))


def test_the_real_drawing_beats_copies_of_either_input(judge: Judge, paired: PairedSet, pairs: list[Pair]) -> None:
    real = judge.judge([paired.pictures[pair.truth] for pair in pairs], pairs)
    content = judge.judge([paired.pictures[pair.content] for pair in pairs], pairs)
    style = judge.judge([paired.pictures[pair.reference] for pair in pairs], pairs)
    assert rates(real)[0] > 0.8 and rates(real)[1] > 0.7
    assert rates(content)[0] < 0.2 < rates(real)[0] - 0.5
    assert rates(style)[1] < 0.3 < rates(real)[1] - 0.4
    for name in ("perceptual_distance", "colour_distance", "edge_distance"):
        assert max(getattr(v, name) for v in real) == pytest.approx(0, abs=1e-5)
        assert min(getattr(v, name) for v in style) > 1e-3


def test_a_verdict_does_not_depend_on_the_other_pictures(judge: Judge, paired: PairedSet, pairs: list[Pair]) -> None:
    given = [paired.pictures[pair.content] for pair in pairs[:3]]
    together, alone = judge.judge(given, pairs[:3]), judge.judge(given[1:2], pairs[1:2])
    assert (together[1].style, together[1].thing) == (alone[0].style, alone[0].thing)
    assert together[1].perceptual_distance == pytest.approx(alone[0].perceptual_distance, rel=1e-4)


def test_the_judges_say_what_they_chose_among(judge: Judge) -> None:
    for side, kinds in (("style", "style colours style+colours"), ("thing", "content edges content+edges")):
        assert set(judge.chosen[side]) == set(kinds.split())
        best = max(judge.chosen[side], key=lambda kind: judge.chosen[side][kind])
        assert best in judge.version and judge.chosen[side][best] > 1 / len(STYLES)


def test_judges_of_pixels_alone_know_real_drawings_and_leave_the_usual_ones_as_they_are(
    judge: Judge, paired: PairedSet, pairs: list[Pair]
) -> None:
    before, pixels = judge.version, judge.judging_by(("colours",), ("edges",))
    assert pixels.version.endswith("-colours-edges") and judge.version == before
    real = rates(pixels.judge([paired.pictures[pair.truth] for pair in pairs], pairs))
    copied = rates(pixels.judge([paired.pictures[pair.reference] for pair in pairs], pairs))
    assert real[0] > 0.7 and real[1] > 0.25 > copied[1], "of ten things, where chance finds one"


def test_edges_ignore_colour_and_see_shape() -> None:
    one, other = picture(0), picture(1)
    assert float(edge_map(one) @ edge_map(255 - one)) > 0.9
    assert float(edge_map(one) @ edge_map(other)) < 0.8
    assert not edge_map(np.zeros((32, 32, 3), np.uint8)).any()
