"""Which scores say most about a picture, and which way each of them is good."""

from __future__ import annotations

from collections.abc import Collection

DECIDING = ("transfer_csd", "transfer", "text_clip", "style_lite0", "content_lite0", "style_clip", "content_clip")
"""What pictures are told apart by where nothing is said: the first of these scores that any of them has."""

TIES = {"transfer_csd": "harmonic_mean_csd", "transfer": "harmonic_mean"}
"""What pictures with equal numbers of a score are told apart by."""


def lower_is_better(score: str) -> bool:
    """Whether a small number is the good one, which a score's name says: distances and leakage."""
    return score.startswith("leakage") or score.endswith("distance")


def default_sort(names: Collection[str]) -> str:
    """The score that says most about pictures with these scores; pictures with one side have no `transfer`."""
    return next((name for name in DECIDING if name in names), min(names, default="transfer"))
