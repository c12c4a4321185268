"""Numbers about a picture: does it show the content, in the style, and what has leaked.

    score                          what it says                                                          best
    content_lite0, content_clip    similarity to the content image                                       high
    style_lite0, style_clip        similarity to the style image                                         high
    text_clip                      similarity to the text                                                high
    leakage_lite0                  similarity to the *style* image's content                             low
    colour_distance                how far the palette is from the style image's (about CIE76)           low
    structure                      how much is drawn at all, of what the plainer of both images has      high
                                   (0 to 1; see structure.py)
    harmonic_mean                  of content and style similarity                                       high
    transfer                       harmonic mean of how much nearer to the content image than the style
                                   image is, and to the style image than the content image is (0 to 1)   high

Further scorers (`score.scorers`, see vision_transformers.py) give scores of the same kinds under names of their own:
style_csd, content_dinov2_base, text_clip_l14, transfer_csd.

Similarities are cosines of unit-length features. Never read one side alone: copying the style image maximises style,
not stylising at all maximises content. A plain `harmonic_mean` does not cure that, because similarities of unrelated
pictures are far from zero: on drawings with known truth (see lite0.py) it ranks the true picture above a copy
of the content image in one case of a thousand. `transfer` measures both sides from what copying the other input would
give, so a copy of either input gets 0: there it is 80 %, the rest being ties at 0. Most drawings of a weak
model get 0, too: rank by `overall` (`blora.settings.score_meanings`), which is made of these scores.

CLIP has one embedding for content and style, so its leakage would be its style score once more; leakage therefore
comes from the feature that tells the two apart. Values of one scorer say nothing about those of another: every number
carries its scorer's name and version. A score that does not apply (no style image, no text) is absent, never zero.

Source: harmonic mean as in NP-LoRA, the warning about one-sided scores from LoRA.rar.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from blora.errors import ScorerError
from blora.metrics.clip import ClipEncoder, load_clip
from blora.metrics.feature_scorer import FeatureScorer, ScoreItem
from blora.metrics.lite0 import load_lite0
from blora.metrics.palette_distance import colour_distance
from blora.metrics.structure import StructureScorer
from blora.metrics.weights import locate_weights
from blora.settings.judging import ScoreSettings
from blora.settings.scorer_spec import parse_scorer

__all__ = ["ColourScorer", "Scored", "Scorer", "load_scorer", "load_scorers", "score_each", "score_samples"]


@dataclass(frozen=True)
class Scored:
    """One number with the name and version of the scorer that gave it."""

    value: float
    scorer: str
    version: str


class Scorer(Protocol):
    """What judges pictures; an item's scores do not depend on the other items."""

    name: str
    version: str

    def score(self, items: Sequence[ScoreItem]) -> list[dict[str, float]]:
        """Return the scores of each item by name, those that apply to it."""
        ...


def load_scorers(settings: ScoreSettings, device: str = "cpu") -> list[Scorer]:
    """Load the scorers that the settings ask for; where two give a score of one name, the first one's counts.

    Raises:
        ScorerError: A scorer's model cannot be loaded as asked.
        BaseUnreachableError: The hub did not answer.
    """
    scorers: list[Scorer] = []
    if settings.features == "efficientnet-lite0":
        scorers.append(FeatureScorer(load_lite0(device), settings.batch_size, leakage=settings.leakage))
    clip = load_clip(settings.clip_model, settings.clip_pretrained, device)
    scorers.append(FeatureScorer(clip, settings.batch_size, embed_texts=clip.embed_texts))
    if settings.colour:
        scorers.append(ColourScorer())
    if settings.structure:
        scorers.append(StructureScorer())
    return [*scorers, *(load_scorer(line, device, settings.batch_size) for line in settings.scorers)]


def load_scorer(asked: str, device: str = "cpu", batch_size: int = 32) -> FeatureScorer:
    """Load one of the larger scorers by its line, such as ``csd`` or ``dinov2-base=./weights``.

    Raises:
        ScorerError: An unknown kind, or weights that are missing, not the ones meant, or of another network.
        BaseModelError: No such hub repository or commit.
        BaseUnreachableError: The hub did not answer.
    """
    from blora.metrics.vision_transformers import (
        load_encoder,  # brings torchvision and transformers, which the others need not
    )

    spec = parse_scorer(asked)
    encoder = load_encoder(spec.kind, locate_weights(spec), device)
    # Leakage needs a content feature that is not the style feature once more, which of these CSD alone has.
    texts = encoder.embed_texts if isinstance(encoder, ClipEncoder) else None
    return FeatureScorer(encoder, batch_size, leakage=spec.kind == "csd", embed_texts=texts, own_names=True)


def score_samples(scorers: Sequence[Scorer], items: Sequence[ScoreItem]) -> list[dict[str, Scored]]:
    """Judge each item by each scorer.

    Raises:
        ScorerError: A picture is not RGB uint8, or a scorer gives a number that is not finite.
    """
    scored = score_each(scorers, items)
    for row in scored:
        if isinstance(row, ScorerError):
            raise row
    return [row for row in scored if not isinstance(row, ScorerError)]


def score_each(scorers: Sequence[Scorer], items: Sequence[ScoreItem]) -> list[dict[str, Scored] | ScorerError]:
    """Judge as `score_samples` does; an item that cannot be judged is an error in its place, and no harm to the others.

    That is one with a picture that is not RGB uint8, or with a score that is not finite.
    """
    rows: list[dict[str, Scored] | ScorerError] = [_fault(item, number) or {} for number, item in enumerate(items)]
    sound = [number for number, row in enumerate(rows) if not isinstance(row, ScorerError)]
    for scorer in scorers:
        for number, scores in zip(sound, scorer.score([items[number] for number in sound]), strict=True):
            rows[number] = _signed(rows[number], scorer, scores, number)
    return rows


def _signed(
    row: dict[str, Scored] | ScorerError, scorer: Scorer, scores: Mapping[str, float], number: int
) -> dict[str, Scored] | ScorerError:
    """An item's scores with those of one more scorer, whose names give way to those that are there."""
    if isinstance(row, ScorerError):
        return row
    for name, value in scores.items():
        if not np.isfinite(value):
            where = f"{scorer.name}, item {number}"
            return ScorerError("a score is not finite", f"{name} = {value}", "a finite number", where)
    new = {name: Scored(value, scorer.name, scorer.version) for name, value in scores.items() if name not in row}
    return row | new


class ColourScorer:
    """How far the picture's palette is from the style image's."""

    name = "cielab-sliced-wasserstein"
    version = "1"

    def score(self, items: Sequence[ScoreItem]) -> list[dict[str, float]]:
        """Return `colour_distance` for items with a style image."""
        return [
            {} if item.style is None else {"colour_distance": colour_distance(item.sample, item.style)}
            for item in items
        ]


def _fault(item: ScoreItem, number: int) -> ScorerError | None:
    """Why an item would give wrong numbers: a picture of it is not RGB uint8."""
    for side, picture in (("sample", item.sample), ("content", item.content), ("style", item.style)):
        if picture is None and side != "sample":
            continue
        shape: tuple[int, ...] = getattr(picture, "shape", ())
        kind = getattr(picture, "dtype", type(picture).__name__)
        if len(shape) != 3 or shape[2] != 3 or 0 in shape or kind != np.uint8:
            received, where = f"{kind} of shape {shape}", f"item {number}, {side}"
            return ScorerError("not a picture", received, "uint8 (height, width, 3)", where, "convert it to RGB first")
    return None
