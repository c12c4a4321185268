"""Numbers about a picture: does it show the content, in the style, and what has leaked.

    score                          what it says                                                          best
    content_lite0, content_clip    similarity to the content image                                       high
    style_lite0, style_clip        similarity to the style image                                         high
    text_clip                      similarity to the text                                                high
    leakage_lite0                  similarity to the *style* image's content                             low
    colour_distance                how far the palette is from the style image's (about CIE76)           low
    harmonic_mean                  of content and style similarity                                       high
    transfer                       harmonic mean of how much nearer to the content image than the style
                                   image is, and to the style image than the content image is (0 to 1)   high

Further scorers (`score.scorers`, see encoders.py) give scores of the same kinds under names of their own: style_csd,
content_dinov2_base, text_clip_l14, transfer_csd.

Similarities are cosines of unit-length features. Never read one side alone: copying the style image maximises style,
not stylising at all maximises content. A plain `harmonic_mean` does not cure that, because similarities of unrelated
pictures are far from zero: on drawings with known truth (see features.py) it ranks the true picture above a copy
of the content image in one case of a thousand. `transfer` measures both sides from what copying the other input would
give, so a copy of either input gets 0: there it is 80 %, the rest being ties at 0. Rank by `transfer`.

CLIP has one embedding for content and style, so its leakage would be its style score once more; leakage therefore
comes from the feature that tells the two apart. Values of one scorer say nothing about those of another: every number
carries its scorer's name and version. A score that does not apply (no style image, no text) is absent, never zero.

Source: harmonic mean as in NP-LoRA, the warning about one-sided scores from LoRA.rar.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from blora.clip import Clip, load_clip
from blora.colour import colour_distance
from blora.config import ScoreSettings
from blora.errors import ScorerError
from blora.features import Features, load_lite0
from blora.weights import locate_weights, parse_scorer

__all__ = [
    "ColourScorer",
    "FeatureScorer",
    "ScoreItem",
    "Scored",
    "Scorer",
    "load_scorer",
    "load_scorers",
    "score_each",
    "score_samples",
]

T = TypeVar("T")

REMEMBERED_PICTURES: Final = 256
"""Content and style images whose features a scorer keeps: in a grid each comes back in many rows."""


@dataclass(frozen=True, eq=False)
class ScoreItem:
    """A picture to judge and what it was meant to show; pictures are RGB uint8 (height, width, 3) of any size.

    Attributes:
        sample: The picture to judge.
        content: The image its content came from, if any.
        style: The image its style came from, if any.
        text: What it should show, in plain words (object word and style word, not their tokens); empty for none.
    """

    sample: NDArray[np.uint8]
    content: NDArray[np.uint8] | None = None
    style: NDArray[np.uint8] | None = None
    text: str = ""


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


class Extractor(Protocol):
    """What turns pictures into a content and a style feature each."""

    name: str
    short_name: str
    version: str

    def extract(self, pictures: Sequence[NDArray[np.uint8]]) -> Features:
        """Return unit-length features, one row a picture."""
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
    return [*scorers, *(load_scorer(one, device, settings.batch_size) for one in settings.scorers)]


def load_scorer(asked: str, device: str = "cpu", batch_size: int = 32) -> FeatureScorer:
    """Load one of the larger scorers by its line, such as ``csd`` or ``dinov2-base=./weights``.

    Raises:
        ScorerError: An unknown kind, or weights that are missing, not the ones meant, or of another network.
        BaseModelError: No such hub repository or commit.
        BaseUnreachableError: The hub did not answer.
    """
    from blora.encoders import load_encoder  # brings torchvision and transformers, which the others need not

    spec = parse_scorer(asked)
    encoder = load_encoder(spec.kind, locate_weights(spec), device)
    # Leakage needs a content feature that is not the style feature once more, which of these CSD alone has.
    texts = encoder.embed_texts if isinstance(encoder, Clip) else None
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


class FeatureScorer:
    """Similarities between features, and what both sides say together."""

    def __init__(
        self,
        extractor: Extractor,
        batch_size: int = 32,
        *,
        leakage: bool = False,
        embed_texts: Callable[[Sequence[str]], Tensor] | None = None,
        own_names: bool = False,
    ) -> None:
        """Take name and version from the extractor.

        Args:
            extractor: Gives the features.
            batch_size: Pictures in one pass.
            leakage: Also score leakage; only makes sense where the content feature is not the style feature too.
            embed_texts: Unit-length embeddings of texts in the space of content features, where there is such a thing.
            own_names: Also name scores of both sides after the extractor, so that they stand beside another's.
        """
        self.name, self.version = extractor.name, extractor.version
        self._extractor, self._batch_size, self._leakage = extractor, batch_size, leakage
        self._embed_texts = embed_texts
        self._suffix = f"_{extractor.short_name}" if own_names else ""
        self._remembered: OrderedDict[bytes, tuple[Tensor, Tensor]] = OrderedDict()

    def score(self, items: Sequence[ScoreItem]) -> list[dict[str, float]]:
        """Judge items in batches, so that memory does not grow with their number."""
        return [scores for batch in _batches(items, self._batch_size) for scores in self._score_batch(batch)]

    def _score_batch(self, items: Sequence[ScoreItem]) -> list[dict[str, float]]:
        references = self._look_up([p for item in items for p in (item.content, item.style) if p is not None])
        places = {id(item.sample): item.sample for item in items}  # one sample may be judged by several references
        samples = self._extractor.extract(list(places.values()))
        rank = {key: number for number, key in enumerate(places)}
        texts = self._embed([item.text for item in items])
        rows = []
        for item in items:
            number = rank[id(item.sample)]
            content = None if item.content is None else references[_digest(item.content)]
            style = None if item.style is None else references[_digest(item.style)]
            row = self._compare((samples.content[number], samples.style[number]), content, style)
            if item.text in texts:
                row[f"text_{self._extractor.short_name}"] = _cosine(samples.content[number], texts[item.text])
            rows.append(row)
        return rows

    def _compare(
        self, sample: tuple[Tensor, Tensor], content: tuple[Tensor, Tensor] | None, style: tuple[Tensor, Tensor] | None
    ) -> dict[str, float]:
        """Scores of one sample; each argument is a (content feature, style feature) pair."""
        kind = self._extractor.short_name
        row: dict[str, float] = {}
        if content is not None:
            row[f"content_{kind}"] = _cosine(sample[0], content[0])
        if style is not None:
            row[f"style_{kind}"] = _cosine(sample[1], style[1])
            if self._leakage:
                row[f"leakage_{kind}"] = _cosine(sample[0], style[0])
        if content is not None and style is not None:
            held, taken = row[f"content_{kind}"], row[f"style_{kind}"]
            row[f"harmonic_mean{self._suffix}"] = harmonic_mean(held, taken)
            row[f"transfer{self._suffix}"] = harmonic_mean(
                _gain(held, _cosine(content[0], style[0])), _gain(taken, _cosine(content[1], style[1]))
            )
        return row

    def _embed(self, texts: Sequence[str]) -> Mapping[str, Tensor]:
        """Embeddings by text, where the extractor understands texts at all."""
        different = sorted(set(texts) - {""})
        if self._embed_texts is None or not different:
            return {}
        return dict(zip(different, self._embed_texts(different), strict=True))

    def _look_up(self, pictures: Sequence[NDArray[np.uint8]]) -> Mapping[bytes, tuple[Tensor, Tensor]]:
        """Features of pictures by digest, each computed once while it is remembered."""
        needed = {_digest(picture): picture for picture in pictures}
        found = {key: self._remembered[key] for key in needed if key in self._remembered}
        for keys in _batches([key for key in needed if key not in found], self._batch_size):
            features = self._extractor.extract([needed[key] for key in keys])
            found |= zip(keys, zip(features.content, features.style, strict=True), strict=True)
        for key, pair in found.items():
            self._remembered[key] = pair
            self._remembered.move_to_end(key)
        while len(self._remembered) > REMEMBERED_PICTURES:
            self._remembered.popitem(last=False)
        return found


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


def harmonic_mean(one: float, other: float) -> float:
    """Harmonic mean of two similarities; a negative one counts as zero, and with a zero the mean is zero."""
    one, other = max(one, 0.0), max(other, 0.0)
    return 2 * one * other / (one + other) if one + other > 0 else 0.0


def _gain(similarity: float, floor: float) -> float:
    """How far the similarity has come from the floor to one; zero where the floor itself is one."""
    return max(similarity - floor, 0.0) / (1 - floor) if floor < 1 - 1e-6 else 0.0


def _batches(values: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (values[start : start + size] for start in range(0, len(values), size))


def _cosine(one: Tensor, other: Tensor) -> float:
    return float(torch.dot(one, other).clamp(-1, 1))


def _digest(picture: NDArray[np.uint8]) -> bytes:
    return hashlib.sha256(repr(picture.shape).encode() + np.ascontiguousarray(picture).tobytes()).digest()


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
