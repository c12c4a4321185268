"""Which scores say most about a picture, and which way each of them is good."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

HEADLINE: Final = "overall"
"""The one number that pictures are ordered by; it is made of the scores by `overall`, and not kept in a table."""

HEADLINE_OF: Final = ("content_lite0", "style_lite0")
"""What the headline is made of."""

DECIDING: Final = (
    *(HEADLINE, "transfer_csd", "transfer", "text_clip"),
    *("style_lite0", "content_lite0", "style_clip", "content_clip"),
)
"""What pictures are told apart by where nothing is said: the first of these scores that any of them has."""


def overall(scores: Mapping[str, float]) -> float | None:
    """DRAFT"""
    if not {"content_lite0", "style_lite0"} <= scores.keys():
        return None
    return min(scores["content_lite0"], scores["style_lite0"])


def with_overall(scores: Mapping[str, float]) -> dict[str, float]:
    """The scores of a picture with the headline ahead of them, where they make one."""
    value = overall(scores)
    return dict(scores) if value is None else {HEADLINE: value, **scores}


def lower_is_better(score: str) -> bool:
    """Whether a small number is the good one, which a score's name says: distances and leakage."""
    return score.startswith("leakage") or score.endswith("distance")


def default_sort(names: Collection[str]) -> str:
    """The score that says most about pictures with these scores; pictures with one side have no headline."""
    return next((name for name in DECIDING if name in names), min(names, default=HEADLINE))
