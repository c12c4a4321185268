"""Draws targets and the two pictures that describe each: one with the same layout, one with the same look."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from blora.embedded.drawings.pictures import Pictures

THING_ONLY = 0.07
"""Share of content references that show the thing as another hand drew it: so that things are learnt, too."""


@dataclass(frozen=True)
class Triples:
    """Rows of one batch: targets and the references that describe them."""

    target: np.ndarray
    content: np.ndarray
    style: np.ndarray


class TripleSampler:
    """Triples for training: a content reference has another look, a style reference another thing."""

    def __init__(self, pictures: Pictures, rng: np.random.Generator, usable: np.ndarray | None = None) -> None:
        """Group the training rows by what they share; `usable` marks those that may be drawn, if not all may."""
        self.pictures, self.rng = pictures, rng
        rows = pictures.for_training()
        self.rows = rows if usable is None else rows[usable[rows]]
        self.worded = self.rows[np.array([bool(k["words"]) for k in pictures.looks])[pictures.look[self.rows]]]
        self.of_geometry = self._groups(pictures.geometry)
        self.of_thing = self._groups(pictures.thing)
        self.of_look = self._groups(pictures.look)

    def _groups(self, key: np.ndarray) -> dict[int, np.ndarray]:
        order = self.rows[np.argsort(key[self.rows], kind="stable")]
        cuts = np.flatnonzero(np.diff(key[order])) + 1
        return {int(key[part[0]]): part for part in np.split(order, cuts)}

    def draw(self, size: int, worded: bool = False) -> Triples:
        """`size` triples; with `worded`, of looks that have words."""
        p = self.pictures
        target = self.rng.choice(self.worded if worded else self.rows, size)
        content, style = target.copy(), target.copy()
        for i, row in enumerate(target):
            loose = self.rng.random() < THING_ONLY
            pool = self.of_thing[p.thing[row]] if loose else self.of_geometry[p.geometry[row]]
            other = pool[p.look[pool] != p.look[row]]
            if len(other):
                content[i] = self.rng.choice(other)
            same = self.of_look[p.look[row]]
            for _ in range(8):
                style[i] = self.rng.choice(same)
                if p.thing[style[i]] != p.thing[row]:
                    break
        return Triples(target, content, style)


def fixed_triples(pictures: Pictures, held_out: bool, count: int = 48, seed: int = 123) -> Triples:
    """The same triples each time, to judge by: of things held out of training, or trained on; always known looks."""
    rng = np.random.default_rng(seed)
    held_thing, held_look = pictures.held_out_thing(), pictures.held_out_look()
    wanted = np.flatnonzero((held_thing if held_out else ~held_thing) & ~held_look & pictures.judged)
    known = np.flatnonzero(~held_thing & ~held_look & pictures.judged)
    rows: list[tuple[int, int, int]] = []
    while len(rows) < count:
        target = int(rng.choice(wanted))
        same_layout = (pictures.geometry[wanted] == pictures.geometry[target]) & (
            pictures.look[wanted] != pictures.look[target]
        )
        same_look = (pictures.look[known] == pictures.look[target]) & (pictures.thing[known] != pictures.thing[target])
        content, style = wanted[same_layout], known[same_look]
        if len(content) and len(style):
            rows.append((target, int(rng.choice(content)), int(rng.choice(style))))
    table = np.array(rows)
    return Triples(table[:, 0], table[:, 1], table[:, 2])
