"""Resampling draws what it should, and its intervals hold the truth about as often as they say."""

from __future__ import annotations

import numpy as np
import pytest

from blora.metrics.bootstrap import LEVEL, percentile_interval, resampled_counts


def test_every_resample_has_as_many_units_and_each_unit_its_share() -> None:
    counts = resampled_counts(7, 3000, np.random.default_rng(0))
    assert counts.shape == (3000, 7) and set(counts.sum(axis=1)) == {7}
    assert counts.mean(axis=0) == pytest.approx(np.ones(7), abs=0.1)
    assert resampled_counts(7, 3, np.random.default_rng(0)).tolist() == counts[:3].tolist(), "seeded, so it repeats"


def test_an_interval_of_a_mean_holds_the_truth_about_as_often_as_it_says() -> None:
    draw, held = np.random.default_rng(1), []
    for _ in range(300):
        values = draw.normal(2.0, 1.0, 40)
        low, high = percentile_interval(resampled_counts(40, 500, draw) @ values / 40)
        held.append(low <= 2.0 <= high)
    assert abs(np.mean(held) - LEVEL) < 0.04


def test_an_interval_leaves_out_as_much_on_both_sides() -> None:
    assert percentile_interval(np.arange(1001.0)) == pytest.approx((25, 975))
