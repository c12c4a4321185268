"""From the readings of the block probe to a summary and a pair of blocks, with what is uncertain about it.

A block's *gain* is its picture's score less the score of the picture with p in all blocks, from the same noise. The
content block is the one with the highest mean gain over pairs that differ in the object, the style block over pairs
that differ in the look. Intervals are 95 % percentile intervals of a bootstrap over pairs (the seeds of a pair are
averaged first: pictures of one pair are not independent). Few pairs make them somewhat too narrow.

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "BlockSummary",
    "Choice",
    "Interval",
    "Kind",
    "KindSummary",
    "ProbePair",
    "Reading",
    "Summary",
    "summarize",
]

Kind = Literal["content", "style"]
"""What the two prompts of a pair differ in: the object, or the colour or look."""

RESAMPLES: Final = 4000
"""Bootstrap resamples; the ends of an interval then move by about a hundredth of its width between seeds."""

KINDS: Final[tuple[Kind, ...]] = ("content", "style")


@dataclass(frozen=True)
class ProbePair:
    """Two prompts to tell blocks apart by.

    Attributes:
        kind: What they differ in.
        p: Goes into all blocks but one.
        q: Goes into that one, and is what the picture is compared with.
        seeds: One picture a block for each, from 0.
    """

    kind: Kind
    p: str
    q: str
    seeds: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class Reading:
    """One picture's score, with those of the two pictures it is measured against; all are cosines with q (-1 to 1).

    Attributes:
        pair: Index of the pair.
        seed: Of the noise.
        block: The block that was told q.
        score: q in this block, p in the others.
        score_p: p in all blocks.
        score_q: q in all blocks, and in the pooled embedding where the model has one.
    """

    pair: int
    seed: int
    block: str
    score: float
    score_p: float
    score_q: float


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


@dataclass(frozen=True)
class Choice:
    """The block proposed for one kind.

    Attributes:
        block: Its name.
        gain: Its gain.
        best: Whether it has the highest gain; not so where the other kind needs that block more.
        rivals: Blocks whose intervals overlap with its own, the nearest first.
        best_in: Share of the resamples in which no other block gained more.
        certain: It is the best, its interval lies above zero and apart from all others.
    """

    block: str
    gain: Interval
    best: bool
    rivals: tuple[str, ...]
    best_in: float
    certain: bool

    def __str__(self) -> str:
        """Return one line that says how far the choice can be trusted."""
        doubts = []
        if not self.best:
            doubts.append("the best block is taken by the other kind")
        if self.gain.low <= 0:
            doubts.append("its interval reaches zero")
        if self.rivals:
            doubts.append(f"its interval overlaps with {', '.join(self.rivals)}")
        said = "certain at 95 %" if self.certain else f"not certain: {'; '.join(doubts)}"
        return f"{self.block}, gain {self.gain}, best in {self.best_in:.0%} of resamples; {said}"


@dataclass(frozen=True)
class Summary:
    """What a probe says. A kind without pairs is absent."""

    kinds: dict[Kind, KindSummary]
    proposal: dict[Kind, Choice]

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "kinds": {kind: asdict(found) for kind, found in self.kinds.items()},
            "proposal": {kind: asdict(choice) for kind, choice in self.proposal.items()},
        }


def summarize(pairs: Sequence[ProbePair], readings: Sequence[Reading], seed: int = 0) -> Summary:
    """Average over pairs, and propose the blocks.

    The two blocks must differ. Where one block is best for both kinds, the pair of blocks with the highest sum of
    gains is proposed, and the kind that yields says so.

    Args:
        pairs: What was measured.
        readings: Every pair has the same blocks; pairs may have different numbers of seeds.
        seed: Of the bootstrap.

    Raises:
        ValueError: No readings, or a pair lacks a block that another has.
    """
    blocks = tuple(dict.fromkeys(reading.block for reading in readings))
    if not blocks:
        raise ValueError("summarize: received no readings; accepted one or more")
    kinds: dict[Kind, KindSummary] = {}
    for kind in KINDS:
        table = _by_pair(pairs, readings, blocks, kind)
        if len(table):
            kinds[kind] = _summarize_kind(table, blocks, seed)
    return Summary(kinds, _propose(kinds))


def _by_pair(
    pairs: Sequence[ProbePair], readings: Sequence[Reading], blocks: Sequence[str], kind: Kind
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


def _summarize_kind(table: NDArray[np.float64], blocks: Sequence[str], seed: int) -> KindSummary:
    # All columns share the resampled pairs: what makes a pair easy for one block makes it easy for all.
    size = len(table)
    times_drawn = np.random.default_rng(seed).multinomial(size, [1 / size] * size, RESAMPLES)
    resampled = times_drawn @ table / size
    mean = table.mean(axis=0)
    count = len(blocks)
    gains, gain = resampled - resampled[:, count, None], mean - mean[count]
    best = gains[:, :count] >= gains[:, :count].max(axis=1, keepdims=True)

    def interval(values: NDArray[np.float64], middle: float) -> Interval:
        low, high = np.percentile(values, [2.5, 97.5])
        return Interval(float(middle), float(low), float(high))

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


def _propose(kinds: dict[Kind, KindSummary]) -> dict[Kind, Choice]:
    """Choose a block a kind, all different, with the highest sum of gains."""
    if len(kinds) < len(KINDS):
        return {kind: _choice(found, max(found.blocks, key=lambda one: one.gain.mean)) for kind, found in kinds.items()}
    content, style = (kinds[kind] for kind in KINDS)
    options = [(one, other) for one in content.blocks for other in style.blocks if one.block != other.block]
    if not options:
        raise ValueError("summarize: received one block; accepted two or more")
    one, other = max(options, key=lambda pair: pair[0].gain.mean + pair[1].gain.mean)
    return {"content": _choice(content, one), "style": _choice(style, other)}


def _choice(found: KindSummary, chosen: BlockSummary) -> Choice:
    others = sorted((one for one in found.blocks if one is not chosen), key=lambda one: -one.gain.mean)
    rivals = tuple(one.block for one in others if one.gain.overlaps(chosen.gain))
    best = all(one.gain.mean <= chosen.gain.mean for one in others)
    certain = best and not rivals and chosen.gain.low > 0
    return Choice(chosen.block, chosen.gain, best, rivals, chosen.best_in, certain)
