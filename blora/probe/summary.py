"""Readings of the block probe averaged over pairs, with intervals. Imports no torch.

A block's *gain* is its picture's score less the score of the picture with p in all blocks, from the same noise.
Intervals are 95 % percentile intervals of a bootstrap over pairs (the seeds of a pair are averaged first: pictures of
one pair are not independent). Few pairs make them somewhat too narrow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from blora.metrics.bootstrap import percentile_interval, resampled_counts
from blora.probe.readings import BlockReading, Kind, ProbePair

__all__ = ["BlockSummary", "Interval", "KindSummary", "summarize_kind", "table_by_pair"]

RESAMPLES: Final = 4000
"""Bootstrap resamples; the ends of an interval then move by about a hundredth of its width between seeds."""


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float

    def overlaps(self, other: Interval) -> bool:
        """Whether the two intervals have a point in common."""
        return self.low <= other.high and other.low <= self.high

    def __str__(self) -> str:
        return f"{self.mean:+.4f} [{self.low:+.4f}, {self.high:+.4f}]"


@dataclass(frozen=True)
class BlockSummary:
    """One block over the pairs of one kind.

    Attributes:
        block: Its name in the UNet.
        score: Cosine of its pictures with q.
        gain: The same less that of the pictures with p in all blocks.
        share: Mean gain over the mean gain of q in all blocks; None where the latter's
            interval reaches zero.
        best_in: Share of the resamples in which no other block gained more.
    """

    block: str
    score: Interval
    gain: Interval
    share: float | None
    best_in: float


@dataclass(frozen=True)
class KindSummary:
    """All blocks over the pairs of one kind, and the two pictures they are measured against.

    Attributes:
        pairs: How many pairs.
        score_p: Cosine with q of the pictures with p in all blocks.
        score_q: Of those with q in all blocks.
        gain_q: What q in all blocks gains over p in all blocks.
        blocks: In the order of the UNet.
    """

    pairs: int
    score_p: Interval
    score_q: Interval
    gain_q: Interval
    blocks: tuple[BlockSummary, ...]


def table_by_pair(
    pairs: Sequence[ProbePair], readings: Sequence[BlockReading], blocks: Sequence[str], kind: Kind
) -> NDArray[np.float64]:
    """Scores averaged over seeds, (pairs of this kind, blocks + 2); the last two columns are p and q everywhere."""
    sums = np.zeros((len(pairs), len(blocks), 3))
    counts = np.zeros((len(pairs), len(blocks), 1))
    column = {block: number for number, block in enumerate(blocks)}
    for reading in readings:
        place = reading.pair, column[reading.block]
        sums[place] += reading.score, reading.score_p, reading.score_q
        counts[place] += 1
    seen = [n for n, pair in enumerate(pairs) if pair.kind == kind and counts[n].any()]
    if not (counts[seen] > 0).all():
        raise ValueError("summarize: a pair lacks a block that another has; accepted the same blocks for every pair")
    means = sums[seen] / counts[seen]
    return np.concatenate([means[:, :, 0], means[:, :1, 1], means[:, :1, 2]], axis=1)


def summarize_kind(table: NDArray[np.float64], blocks: Sequence[str], seed: int) -> KindSummary:
    """Average over the pairs of one kind, with intervals; rows of the table as `table_by_pair` gives them."""
    # All columns share the resampled pairs: what makes a pair easy for one block makes it easy for all.
    size = len(table)
    resampled = resampled_counts(size, RESAMPLES, np.random.default_rng(seed)) @ table / size
    mean = table.mean(axis=0)
    count = len(blocks)
    gains, gain = resampled - resampled[:, count, None], mean - mean[count]
    best = gains[:, :count] >= gains[:, :count].max(axis=1, keepdims=True)

    def interval(values: NDArray[np.float64], middle: float) -> Interval:
        return Interval(float(middle), *percentile_interval(values))

    gain_q = interval(gains[:, count + 1], gain[count + 1])
    return KindSummary(
        pairs=size,
        score_p=interval(resampled[:, count], mean[count]),
        score_q=interval(resampled[:, count + 1], mean[count + 1]),
        gain_q=gain_q,
        blocks=tuple(
            BlockSummary(
                block=block,
                score=interval(resampled[:, n], mean[n]),
                gain=interval(gains[:, n], gain[n]),
                share=float(gain[n] / gain_q.mean) if gain_q.low > 0 else None,
                best_in=float(best[:, n].mean()),
            )
            for n, block in enumerate(blocks)
        ),
    )
