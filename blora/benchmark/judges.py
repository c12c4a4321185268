"""Judges of the paired benchmark: is it the right style, is it the right thing, how far is it from the real drawing.

    measure               what it says                                                                     best
    style_right           of all styles, the nearest (by centroid of drawings of other things) is B        1
    thing_right           of all things of the split, the nearest (by drawings of other hands) is c        1
    perceptual_distance   unit-length activations of Lite0 place by place, mean squared difference         0
    colour_distance       between palettes, about CIE76 (see palette_distance.py)                          0
    content_colour_distance  the same from the content picture: are its own colours kept                   0
    edge_distance         one minus the cosine between maps of edge strength, 16 x 16 cells                0

Centroids come from the other split, so that no drawing that is asked for or given has shaped them. The gallery leaves
out the hands of A and B: neither the content picture nor a redrawing of the truth's outlines can be found in it. Each
judge has a choice of features and takes the one that names real drawings of the validation things best, whatever
split is then judged.

Source: perceptual distance as in Zhang et al. 2018 (LPIPS) without learned weights, on another network.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from blora.benchmark.drawings import Pair, PairedSet, Split
from blora.metrics.lite0 import Lite0
from blora.metrics.palette_distance import colour_distance, rgb_to_lab

__all__ = ["Judge", "Judgement", "edge_map", "perceptual_distance"]

RECIPE: Final = 1
"""Counts changes of this file that alter a number."""
PLACE_BLOCKS: Final = (1, 4, 10)
"""Blocks of Lite0 that are compared place by place: 56, 28 and 14 cells a side."""
CELLS: Final = 16
BATCH: Final = 12
_BINS: Final = (8, 8, 8)
_LAB_RANGE: Final = ((0.0, 100.0), (-80.0, 80.0), (-80.0, 80.0))

Vectors = NDArray[np.float32]
KINDS: Final[Mapping[str, tuple[tuple[str, ...], ...]]] = {
    "style": (("style",), ("colours",), ("style", "colours")),
    "thing": (("content",), ("edges",), ("content", "edges")),
}
"""The features among which each judge chooses; several are laid side by side."""


@dataclass(frozen=True)
class Judgement:
    """What the judges say of one picture; names are numbers in the paired set, distances are from the real drawing."""

    style: int
    style_right: bool
    thing: int
    thing_right: bool
    perceptual_distance: float
    colour_distance: float
    edge_distance: float
    content_colour_distance: float


class Judge:
    """Judges pictures of one split; an answer does not depend on the other pictures.

    Attributes:
        version: Network, recipe and the features chosen.
        chosen: Rate at which each choice of features names real validation drawings, by "style" and "thing".
    """

    def __init__(self, paired: PairedSet, split: Split, extractor: Lite0) -> None:
        """Look at all drawings of the set once, which takes a minute or two on a CPU."""
        self.paired, self._extractor = paired, extractor
        self._things = paired.members(split)
        self._others = paired.members("test" if split == "validation" else "validation")
        flat = paired.pictures.reshape(-1, *paired.pictures.shape[2:])
        shape = (len(paired.things), len(paired.styles), -1)
        looked = [vectors for vectors, _ in self._look(list(flat))]
        self._all = {name: np.concatenate([drawing[name] for drawing in looked]).reshape(shape) for name in looked[0]}
        self._hands = [style.hand for style in paired.styles]
        self.chosen: dict[str, dict[str, float]] = {"style": {}, "thing": {}}
        self._by_kind: dict[tuple[str, ...], Vectors] = {}
        self._look_by(*self._choose())

    def judging_by(self, style: tuple[str, ...], thing: tuple[str, ...]) -> Judge:
        """The same judges with features of one's own choice, such as those of pixels alone.

        Args:
            style: Features that the style judge looks at, of `KINDS`.
            thing: Features that the thing judge looks at, of `KINDS`.
        """
        other = copy.copy(self)
        other._look_by(style, thing)
        return other

    def _look_by(self, style: tuple[str, ...], thing: tuple[str, ...]) -> None:
        self._style_kind, self._thing_kind = style, thing
        self._centroids = self._joined(style)[self._others].mean(axis=0)
        self._means = self._joined(thing)[self._others].mean(axis=0)
        self._galleries: dict[frozenset[str], Vectors] = {}
        self.version = f"{self._extractor.version}-{RECIPE}-{'+'.join(style)}-{'+'.join(thing)}"

    def judge(self, pictures: Sequence[NDArray[np.uint8]], pairs: Sequence[Pair]) -> list[Judgement]:
        """Judge one picture a pair.

        Args:
            pictures: RGB (height, width, 3) of any sizes.
            pairs: What each was meant to be.
        """
        verdicts = []
        for start in range(0, len(pairs), BATCH):
            asked, given = pairs[start : start + BATCH], list(pictures[start : start + BATCH])
            real = [self.paired.pictures[pair.truth] for pair in asked]
            ((vectors, maps),), ((_, real_maps),) = self._look(given), self._look(real)
            for row, pair in enumerate(asked):
                own = {name: values[row] for name, values in vectors.items()}
                style = self._name_style(own)
                thing = self._find_thing(own, style, pair)
                apart = perceptual_distance(maps, real_maps, row)
                colour = colour_distance(given[row], real[row])
                edges = float(1 - own["edges"] @ self._all["edges"][pair.truth])
                kept = colour_distance(given[row], self.paired.pictures[pair.content])
                right = style == pair.style, thing == pair.thing
                verdicts.append(Judgement(style, right[0], thing, right[1], apart, colour, edges, kept))
        return verdicts

    def _look(self, pictures: list[NDArray[np.uint8]]) -> Iterator[tuple[dict[str, Vectors], dict[int, Tensor]]]:
        """Unit-length vectors by kind, and the activations to compare place by place, batch by batch."""
        for start in range(0, len(pictures), BATCH):
            batch = pictures[start : start + BATCH]
            maps = self._extractor.activations(batch, PLACE_BLOCKS)
            features = self._extractor.summarise(maps)
            vectors = {"content": features.content.numpy(), "style": features.style.numpy()}
            vectors["colours"] = np.stack([_colours(picture) for picture in batch])
            vectors["edges"] = np.stack([edge_map(picture) for picture in batch])
            yield vectors, maps

    def _choose(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The features that name real drawings of the validation things best."""
        things = self.paired.members("validation")
        for kind in KINDS["style"]:
            self.chosen["style"]["+".join(kind)] = self._rate_style(kind, things)
        for kind in KINDS["thing"]:
            self.chosen["thing"]["+".join(kind)] = self._rate_thing(kind, things)
        best = {side: max(rates, key=lambda name: rates[name]) for side, rates in self.chosen.items()}
        return tuple(best["style"].split("+")), tuple(best["thing"].split("+"))

    def _rate_style(self, kind: tuple[str, ...], things: list[int]) -> float:
        right = []
        for thing in things:
            centroids = self._joined(kind)[[other for other in things if other != thing]].mean(axis=0)
            right += [
                int(_nearest(features, centroids)) == style for style, features in enumerate(self._joined(kind)[thing])
            ]
        return float(np.mean(right))

    def _rate_thing(self, kind: tuple[str, ...], things: list[int]) -> float:
        means = self._joined(kind)[things].mean(axis=0)
        right = []
        for style in range(len(self.paired.styles)):
            gallery = self._gallery(kind, things, means, {self._hands[style]})
            for row, thing in enumerate(things):
                right.append(int(np.argmax(gallery @ (self._joined(kind)[thing, style] - means[style]))) == row)
        return float(np.mean(right))

    def _name_style(self, own: Mapping[str, Vectors]) -> int:
        """The style whose centroid, of drawings of the other split, is nearest."""
        return _nearest(np.concatenate([own[name] for name in self._style_kind]), self._centroids)

    def _find_thing(self, own: Mapping[str, Vectors], style: int, pair: Pair) -> int:
        """The thing whose drawings by other hands are nearest; what drawings of a style share is taken out first.

        The picture's own style is what the style judge says: a rule that knows nothing of what was asked for.
        """
        left_out = frozenset({self._hands[pair.style], self._hands[pair.content_style]})
        if left_out not in self._galleries:
            self._galleries[left_out] = self._gallery(self._thing_kind, self._things, self._means, left_out)
        vector = np.concatenate([own[name] for name in self._thing_kind]) - self._means[style]
        return self._things[int(np.argmax(self._galleries[left_out] @ vector))]

    def _gallery(self, kind: tuple[str, ...], things: list[int], means: Vectors, left_out: Set[str]) -> Vectors:
        """One unit-length vector a thing, the mean of its drawings by the other hands."""
        styles = np.flatnonzero([hand not in left_out for hand in self._hands])
        gaps = self._joined(kind)[things][:, styles] - means[styles]
        return _unit(_unit(gaps).mean(axis=1))

    def _joined(self, kind: tuple[str, ...]) -> Vectors:
        """Vectors (things, styles, length) of the features side by side."""
        if kind not in self._by_kind:
            self._by_kind[kind] = np.concatenate([self._all[name] for name in kind], axis=-1)
        return self._by_kind[kind]


def perceptual_distance(maps: Mapping[int, Tensor], others: Mapping[int, Tensor], row: int) -> float:
    """Mean squared difference of unit-length activations over places, averaged over `PLACE_BLOCKS`; 0 to 4."""
    gaps = []
    for block in PLACE_BLOCKS:
        one, other = (torch.nn.functional.normalize(side[block][row], dim=0) for side in (maps, others))
        gaps.append(float((one - other).square().sum(dim=0).mean()))
    return sum(gaps) / len(gaps)


def edge_map(picture: NDArray[np.uint8]) -> Vectors:
    """Mean strength of the light's gradient in each of 16 x 16 cells, unit length (256,)."""
    light = rgb_to_lab(picture)[..., 0]
    strength = np.hypot(*np.gradient(light))
    rows = np.array_split(strength, CELLS, axis=0)
    cells = [cell.mean() for row in rows for cell in np.array_split(row, CELLS, axis=1)]
    return _unit(np.array(cells, np.float32))


def _colours(picture: NDArray[np.uint8]) -> Vectors:
    """Root of the histogram of colours in CIELAB: unit length, and a rare colour counts for something (512,)."""
    counts, _ = np.histogramdd(rgb_to_lab(picture).reshape(-1, 3), bins=_BINS, range=_LAB_RANGE)
    return _unit(np.sqrt(counts).ravel().astype(np.float32))


def _unit(vectors: Vectors) -> Vectors:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    result: Vectors = vectors / np.maximum(lengths, 1e-9)
    return result


def _nearest(vector: Vectors, centroids: Vectors) -> int:
    return int(((centroids - vector) ** 2).sum(axis=-1).argmin())
