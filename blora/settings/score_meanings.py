"""What each score says, and the one that pictures are ordered by. No torch.

The words are the one source of the page's labels and legend, of `blora scores --explain` and of the table in README. A
score is named by its kind and, where several judges give that kind, by the judge: ``content_lite0``, ``transfer_csd``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

__all__ = [
    *("HEADLINE", "HEADLINE_OF", "KINDS", "Meaning", "direction", "explained", "lower_is_better"),
    *("meaning_table", "meanings", "overall"),
]

HEADLINE: Final = "overall"
"""The one number that pictures are ordered by: made of their scores by `overall`, and kept in no table of scores."""

HEADLINE_OF: Final = ("content_lite0", "style_lite0", "colour_distance")
"""What it is made of; a picture without the last has one all the same."""

_UNRELATED_TO_REAL: Final = {
    "content_lite0": (0.07, 0.25),
    "style_lite0": (0.67, 0.77),
    "colour_distance": (54.0, 9.0),
}
"""Medians of the 36 validation pairs of the paired benchmark: of the two images given, and of the real drawing."""


def overall(scores: Mapping[str, float]) -> float | None:
    """The poorer of both sides: content kept, and style and palette taken (their mean).

    Each is 0 for what unrelated pictures have and 1 for what the real drawing has, on a fixed line, so that a picture's
    number depends on no other and none is cut off: below 0 is worse still, and pictures stay in order there.

    Args:
        scores: of one picture, by name.

    Returns:
        About 0 to 1; None where one of the two images was not compared with.
    """
    if not {"content_lite0", "style_lite0"} <= scores.keys():
        return None
    parts = {
        name: (scores[name] - low) / (high - low) for name, (low, high) in _UNRELATED_TO_REAL.items() if name in scores
    }
    content = parts.pop("content_lite0")
    return min(content, sum(parts.values()) / len(parts))


def lower_is_better(score: str) -> bool:
    """Whether a small number is the good one, which a score's name says: distances and leakage."""
    return score.startswith("leakage") or score.endswith("distance")


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
        "The poorer of both sides: content kept, style and palette taken. "
        "Pictures are ordered and candidates chosen by it.",
        "about 0 (unrelated pictures) to 1 (the real drawing)",
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
