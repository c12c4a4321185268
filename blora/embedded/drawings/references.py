"""Draws targets and the two pictures that describe each: one with the same layout, one with the same look."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from blora.embedded.drawings.pictures import Pictures

NATIVE = 0.35
"""Share of targets that are drawings of a set as they are; by number they are a seventh."""
OTHER_HAND, OTHER_HAND_NATIVE = 0.15, 0.5
"""Shares of content references that show the thing as another hand drew it, in the same place: of redrawn targets, and
of drawings as they are. Without them a hand's style could only be told by its own drawings' content: outlines on white
were drawn where the content picture had outlines, and never because the style picture had."""


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
        self.native = self.rows[pictures.native[self.rows]]
        self.of_geometry = self._groups(pictures.geometry)
        self.of_placing = self._groups(pictures.placing)
        self.of_look = self._groups(pictures.look)

    def _groups(self, key: np.ndarray) -> dict[int, np.ndarray]:
        order = self.rows[np.argsort(key[self.rows], kind="stable")]
        cuts = np.flatnonzero(np.diff(key[order])) + 1
        return {int(key[part[0]]): part for part in np.split(order, cuts)}

    def draw(self, size: int, worded: bool = False) -> Triples:
        """`size` triples; with `worded`, of looks that have words."""
        native = self.rng.random(size) < NATIVE
        target = np.where(native, self.rng.choice(self.native, size), self.rng.choice(self.rows, size))
        if worded:
            target = self.rng.choice(self.worded, size)
        content, style = ([tell(row) for row in target] for tell in (self._content, self._style))
        return Triples(target, np.array(content), np.array(style))

    def _content(self, row: int) -> int:
        """The same drawing in another look, or another hand's drawing of the thing; the target where there is none."""
        p = self.pictures
        same, placed = self.of_geometry[p.geometry[row]], self.of_placing[p.placing[row]]
        pools = same[p.look[same] != p.look[row]], placed[p.geometry[placed] != p.geometry[row]]
        pools = pools[0], pools[1][p.look[pools[1]] != p.look[row]]
        if self.rng.random() < (OTHER_HAND_NATIVE if p.native[row] else OTHER_HAND):
            pools = pools[::-1]
        return int(self.rng.choice(next((pool for pool in pools if len(pool)), np.array([row]))))

    def _style(self, row: int) -> int:
        """Another thing in the same look, as far as a few tries find one."""
        p, same = self.pictures, self.of_look[self.pictures.look[row]]
        for _ in range(8):
            chosen = int(self.rng.choice(same))
            if p.thing[chosen] != p.thing[row]:
                break
        return chosen


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
