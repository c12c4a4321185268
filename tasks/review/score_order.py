"""Which score pictures are told apart by: page, tables, sheets and the choice of candidates ask here alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from blora.settings.score_meanings import HEADLINE, overall

DECIDING: Final = (
    *(HEADLINE, "transfer_csd", "transfer", "text_clip"),
    *("style_lite0", "content_lite0", "style_clip", "content_clip"),
)
"""What pictures are told apart by where nothing is said: the first of these scores that any of them has.

The headline is there wherever a picture has two images to compare with and Lite0 judged it, which is so by default.
"""


def with_overall(scores: Mapping[str, float]) -> dict[str, float]:
    """The scores of a picture with the headline ahead of them, where they make one."""
    value = overall(scores)
    return dict(scores) if value is None else {HEADLINE: value, **scores}


def default_sort(names: Collection[str]) -> str:
    """The score that says most about pictures with these scores; pictures with one side have no headline."""
    return next((name for name in DECIDING if name in names), min(names, default=HEADLINE))
