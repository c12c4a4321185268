"""Scores from features: similarities of a picture to its content and its style, and what both say together."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from blora.metrics.lite0 import Features
from blora.training.photos import pixel_digest

__all__ = ["Extractor", "FeatureScorer", "ScoreItem", "harmonic_mean"]

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


class Extractor(Protocol):
    """What turns pictures into a content and a style feature each."""

    name: str
    short_name: str
    version: str

    def extract(self, pictures: Sequence[NDArray[np.uint8]]) -> Features:
        """Return unit-length features, one row a picture."""
        ...


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
        self._remembered: OrderedDict[str, tuple[Tensor, Tensor]] = OrderedDict()

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
            content = None if item.content is None else references[pixel_digest(item.content)]
            style = None if item.style is None else references[pixel_digest(item.style)]
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

    def _look_up(self, pictures: Sequence[NDArray[np.uint8]]) -> Mapping[str, tuple[Tensor, Tensor]]:
        """Features of pictures by digest, each computed once while it is remembered."""
        needed = {pixel_digest(picture): picture for picture in pictures}
        known = {key: self._remembered[key] for key in needed if key in self._remembered}
        for keys in _batches([key for key in needed if key not in known], self._batch_size):
            features = self._extractor.extract([needed[key] for key in keys])
            known |= zip(keys, zip(features.content, features.style, strict=True), strict=True)
        for key, pair in known.items():
            self._remembered[key] = pair
            self._remembered.move_to_end(key)
        while len(self._remembered) > REMEMBERED_PICTURES:
            self._remembered.popitem(last=False)
        return known


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
