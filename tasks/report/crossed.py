"""How sure a mean is whose values come from a grid: every content met every style, so no two of them are independent.

Contents and styles are resampled apart, each with replacement, and a value counts as often as both its content and its
style were drawn (the pigeonhole bootstrap: A. Owen, Annals of Applied Statistics 1 (2007), 386-411). Resampling pairs
as if they were independent would make the interval of a mean too narrow wherever one content or style is easier than
the others; this one is rather too wide than too narrow. Where there is one content and one style, seeds are resampled.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from blora.metrics.bootstrap import percentile_interval, resampled_counts

RESAMPLES: Final = 2000


def crossed_interval(
    values: Sequence[float], rows: Sequence[int], columns: Sequence[int], seed: int = 0
) -> tuple[float, float] | None:
    """Return the percentile interval of the mean of some values, or None where there are fewer than two.

    Args:
        values: one number an item.
        rows: which content each belongs to, from 0.
        columns: which style, from 0.
        seed: of the resampling.
    """
    if len(values) < 2:
        return None
    draw = np.random.default_rng(seed)
    sums, counts = _tables(np.asarray(values, np.float64), rows, columns)
    if sums.shape == (1, 1):
        return percentile_interval(draw.choice(np.asarray(values, np.float64), (RESAMPLES, len(values))).mean(axis=1))
    height, width = sums.shape
    row_weights, column_weights = resampled_counts(height, RESAMPLES, draw), resampled_counts(width, RESAMPLES, draw)
    total = np.einsum("nr,rc,nc->n", row_weights, sums, column_weights, optimize=True)
    weight = np.einsum("nr,rc,nc->n", row_weights, counts, column_weights, optimize=True)
    return percentile_interval(total[weight > 0] / weight[weight > 0])  # of a grid with gaps a draw may hit gaps alone


def _tables(
    values: NDArray[np.float64], rows: Sequence[int], columns: Sequence[int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sums and counts of the values of each row and column."""
    shape = (max(rows) + 1, max(columns) + 1)
    sums, counts = np.zeros(shape), np.zeros(shape)
    np.add.at(sums, (np.asarray(rows), np.asarray(columns)), values)
    np.add.at(counts, (np.asarray(rows), np.asarray(columns)), 1.0)
    return sums, counts
