"""The pair of blocks that the probe's readings propose, with what is uncertain about it.

The content block is the one with the highest mean gain over pairs that differ in the object, the style block over pairs
that differ in the look. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from blora.probe.readings import KINDS, BlockReading, Kind, ProbePair
from blora.probe.summary import BlockSummary, Interval, KindSummary, summarize_kind, table_by_pair

__all__ = ["ProposedBlock", "Summary", "summarize"]


@dataclass(frozen=True)
class ProposedBlock:
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
    proposal: dict[Kind, ProposedBlock]

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "kinds": {kind: asdict(summary) for kind, summary in self.kinds.items()},
            "proposal": {kind: asdict(choice) for kind, choice in self.proposal.items()},
        }


def summarize(pairs: Sequence[ProbePair], readings: Sequence[BlockReading], seed: int = 0) -> Summary:
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
        table = table_by_pair(pairs, readings, blocks, kind)
        if len(table):
            kinds[kind] = summarize_kind(table, blocks, seed)
    return Summary(kinds, _propose(kinds))


def _propose(kinds: dict[Kind, KindSummary]) -> dict[Kind, ProposedBlock]:
    """Choose a block a kind, all different, with the highest sum of gains."""
    if len(kinds) < len(KINDS):
        return {
            kind: _choice(summary, max(summary.blocks, key=lambda block: block.gain.mean))
            for kind, summary in kinds.items()
        }
    content, style = (kinds[kind] for kind in KINDS)
    options = [
        (block, other_block)
        for block in content.blocks
        for other_block in style.blocks
        if block.block != other_block.block
    ]
    if not options:
        raise ValueError("summarize: received one block; accepted two or more")
    block, other_block = max(options, key=lambda pair: pair[0].gain.mean + pair[1].gain.mean)
    return {"content": _choice(content, block), "style": _choice(style, other_block)}


def _choice(summary: KindSummary, chosen: BlockSummary) -> ProposedBlock:
    others = sorted((block for block in summary.blocks if block is not chosen), key=lambda block: -block.gain.mean)
    rivals = tuple(block.block for block in others if block.gain.overlaps(chosen.gain))
    best = all(block.gain.mean <= chosen.gain.mean for block in others)
    certain = best and not rivals and chosen.gain.low > 0
    return ProposedBlock(chosen.block, chosen.gain, best, rivals, chosen.best_in, certain)
