"""How sure a mean is: units drawn again with replacement, and the percentiles of what the mean then is. No torch.

    weights = resampled_counts(len(values), 2000, np.random.default_rng(0))
    low, high = percentile_interval(weights @ values / len(values))

Whatever is not independent is one unit: the pairs of a content picture, the seeds of a pair of prompts.

Source: Efron 1979, "Bootstrap methods: another look at the jackknife"; the percentile interval.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["LEVEL", "percentile_interval", "resampled_counts"]

LEVEL: Final = 0.95
"""Share of the resamples that an interval holds."""


def resampled_counts(units: int, resamples: int, draw: np.random.Generator) -> NDArray[np.int64]:
    """How often each of some units is drawn, (resamples, units); every row sums to the number of units."""
    return draw.multinomial(units, np.full(units, 1 / units), resamples)


def percentile_interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """The ends of the middle `LEVEL` of what the resamples gave."""
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)
