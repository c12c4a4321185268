"""How steady a clip is: the source itself, a still, flicker and motion elsewhere get the numbers they should."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from blora.metrics.steadiness import steadiness

Clip = list[NDArray[np.uint8]]


def ball(count: int = 6, side_px: int = 32, colour: tuple[int, int, int] = (200, 30, 30), paper: int = 255) -> Clip:
    """A disc that moves to the right."""
    rows, columns = np.mgrid[:side_px, :side_px] / side_px
    frames = []
    for number in range(count):
        frame = np.full((side_px, side_px, 3), paper, np.uint8)
        frame[(rows - 0.5) ** 2 + (columns - 0.25 - 0.08 * number) ** 2 < 0.03] = colour
        frames.append(frame)
    return frames


def test_the_source_itself_changes_as_the_source_does() -> None:
    found = steadiness(ball(), ball())
    assert found.flicker_ratio == pytest.approx(1) and found.motion_correlation == pytest.approx(1)
    assert 0 < found.source_change == found.drawn_change < 1


def test_a_still_does_not_flicker_and_does_not_move() -> None:
    found = steadiness([ball()[0]] * 6, ball())
    assert (found.flicker_ratio, found.motion_correlation) == (0.0, 0.0)


def test_flicker_is_a_ratio_above_one_and_motion_elsewhere_is_no_correlation() -> None:
    rng = np.random.default_rng(0)
    noisy = [np.clip(f + rng.normal(0, 40, f.shape), 0, 255).astype(np.uint8) for f in ball()]
    plain, flickering = steadiness(ball(), ball()), steadiness(noisy, ball())
    assert flickering.flicker_ratio is not None and flickering.flicker_ratio > 1.5
    assert 0.1 < float(flickering.motion_correlation or 0) < float(plain.motion_correlation or 0)
    upright = [np.ascontiguousarray(f.transpose(1, 0, 2)) for f in ball()]
    assert float(steadiness(upright, ball()).motion_correlation or 0) < 0.4


def test_another_palette_with_the_same_motion_still_correlates() -> None:
    found = steadiness(ball(colour=(240, 200, 40), paper=10), ball())
    assert found.motion_correlation == pytest.approx(1) and found.flicker_ratio != pytest.approx(1, abs=0.05)


def test_sources_are_cut_and_resized_as_the_drawn_frames_are() -> None:
    wide = [
        np.pad(frame, ((0, 0), (40, 40), (0, 0)), constant_values=255).repeat(2, 0).repeat(2, 1) for frame in ball()
    ]
    found = steadiness(ball(), wide)
    assert found.motion_correlation is not None and found.motion_correlation > 0.95
    assert found.flicker_ratio == pytest.approx(1, abs=0.1)


def test_a_source_that_does_not_change_has_nothing_to_compare_with() -> None:
    found = steadiness(ball(), [ball()[0]] * 6)
    assert found.drawn_change > 0 and (found.flicker_ratio, found.motion_correlation) == (None, None)


@pytest.mark.parametrize(
    ("drawn", "sources"), [(ball(1), ball(1)), (ball(3), ball(2)), ([*ball(2), *ball(1, 16)], ball(3))]
)
def test_what_is_no_clip(drawn: Clip, sources: Clip) -> None:
    with pytest.raises(ValueError, match="frames: received"):
        steadiness(drawn, sources)
