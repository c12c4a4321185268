"""What the block probe asks and what it measures: pairs of prompts, and a reading for each block. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["KINDS", "BlockReading", "Kind", "ProbePair"]

Kind = Literal["content", "style"]
"""What the two prompts of a pair differ in: the object, or the colour or look."""

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
class BlockReading:
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
