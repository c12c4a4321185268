"""What each score says, in words: the one source of the page's labels and legend, `blora scores --explain` and README.

A score is named by its kind and, where several judges give that kind, by the judge: ``content_lite0``, ``transfer_csd``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from tasks.review.score_order import HEADLINE, lower_is_better

__all__ = ["KINDS", "Meaning", "direction", "explained", "meaning_table", "meanings"]


@dataclass(frozen=True)
class Meaning:
    """What a score says.

    Attributes:
        label: a few words that stand in place of the name.
        says: one sentence.
        scale: which numbers there are.
    """

    label: str
    says: str
    scale: str


KINDS: Final = {
    HEADLINE: Meaning(
        "overall",
        "The poorer of both sides: is the content kept, is the style taken? A copy of either image scores low. "
        "Pictures are ordered and candidates chosen by it.",
        "0 to 1; 1 is the real drawing",
    ),
    "content": Meaning("content kept", "How like the content image the picture is in what it shows.", "-1 to 1"),
    "style": Meaning("style taken", "How like the style image the picture is in how it is drawn.", "-1 to 1"),
    "text": Meaning("fits the words", "How well the picture fits the text.", "-1 to 1"),
    "leakage": Meaning(
        "style's subject leaked in", "How much of what the style image shows is in the picture.", "-1 to 1"
    ),
    "colour_distance": Meaning(
        "colours off the style's", "How far the palette is from the style image's.", "0 upwards, about CIE76"
    ),
    "structure": Meaning(
        "drawn clearly", "How much is drawn at all, of what the plainer of both images has; fog has little.", "0 to 1"
    ),
    "harmonic_mean": Meaning(
        "content and style, plain mean",
        "Harmonic mean of content kept and style taken; a copy of either image scores high.",
        "0 to 1",
    ),
    "transfer": Meaning(
        "gained over a copy",
        "Harmonic mean of what was gained on both sides over a copy of the other image; often 0.",
        "0 to 1",
    ),
}
"""Kinds of score, the one that is read first ahead."""

_JUDGES: Final = {
    "lite0": "Lite0",
    "clip": "CLIP",
    "csd": "CSD",
    "dinov2_small": "DINOv2 small",
    "dinov2_base": "DINOv2 base",
    "dinov2_large": "DINOv2 large",
    "clip_l14": "CLIP L/14",
    "clip_bigg14": "CLIP bigG/14",
}


def explained(name: str) -> Meaning:
    """What a score of this name says; of a name that is not known, the name in words."""
    kind = next(
        (kind for kind in sorted(KINDS, key=len, reverse=True) if name in (kind,) or name.startswith(f"{kind}_")), ""
    )
    if not kind:
        return Meaning(name.replace("_", " "), "No meaning of it is written down.", "")
    judge = name.removeprefix(kind).removeprefix("_")
    shown = f" ({_JUDGES.get(judge, judge)})" if judge else ""
    meaning = KINDS[kind]
    return Meaning(meaning.label + shown, meaning.says, meaning.scale)


def direction(name: str) -> str:
    """Which number is the good one."""
    return "low is good" if lower_is_better(name) else "high is good"


def meanings(names: Iterable[str]) -> list[str]:
    """A line a score, for a terminal: name, what it says, its scale and which number is the good one."""
    lines = []
    for name in names:
        meaning = explained(name)
        scale = f" {meaning.scale}, {direction(name)}." if meaning.scale else f" {direction(name).capitalize()}."
        lines.append(f"{name}: {meaning.label}. {meaning.says}{scale}")
    return lines


def meaning_table() -> str:
    """The kinds of score as a table in Markdown."""
    lines = ["| score | on the page | what it says | numbers | good |", "|---|---|---|---|---|"]
    one_judge = {HEADLINE, "colour_distance", "structure", "harmonic_mean", "transfer"}
    for kind, meaning in KINDS.items():
        shown = f"`{kind}`" if kind in one_judge else f"`{kind}_...`"
        good = direction(kind).removesuffix(" is good")
        lines.append(f"| {shown} | {meaning.label} | {meaning.says} | {meaning.scale} | {good} |")
    return "\n".join(lines)
