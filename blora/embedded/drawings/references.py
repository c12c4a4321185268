"""Draws targets and the two pictures that describe each: one with the same layout, one with the same look."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from blora.embedded.drawings.pictures import Pictures

OTHER_HAND, OTHER_HAND_NATIVE = 0.07, 0.5
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
        self.of_geometry = self._groups(pictures.geometry)
        self.of_placing = self._groups(pictures.placing)
        self.of_look = self._groups(pictures.look)

    def _groups(self, key: np.ndarray) -> dict[int, np.ndarray]:
        order = self.rows[np.argsort(key[self.rows], kind="stable")]
        cuts = np.flatnonzero(np.diff(key[order])) + 1
        return {int(key[part[0]]): part for part in np.split(order, cuts)}

    def draw(self, size: int, worded: bool = False) -> Triples:
        """`size` triples; with `worded`, of looks that have words."""
        target = self.rng.choice(self.worded if worded else self.rows, size)
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


JUDGED: dict[str, tuple[bool, bool]] = {
    "seen": (False, False),
    "held_out": (True, False),
    "other_hand": (True, True),
}
"""What trainings are judged on: whether things are held out, and whether another hand drew the content reference."""


def fixed_triples(
    pictures: Pictures, held_out: bool, other_hand: bool = False, count: int = 48, seed: int = 123
) -> Triples:
    """The same triples each time, to judge by: of things held out of training, or trained on; always known looks.

    With `other_hand` the target is a drawing as its set has it and the content reference another hand's drawing.
    """
    rng = np.random.default_rng(seed)
    p, held_thing, held_look = pictures, pictures.held_out_thing(), pictures.held_out_look()
    wanted = np.flatnonzero((held_thing if held_out else ~held_thing) & ~held_look & p.judged)
    known = np.flatnonzero(~held_thing & ~held_look & p.judged)
    targets = wanted[p.native[wanted]] if other_hand else wanted
    rows: list[tuple[int, int, int]] = []
    while len(rows) < count:
        target = int(rng.choice(targets))
        same = p.geometry[wanted] == p.geometry[target]
        described = (p.placing[wanted] == p.placing[target]) & ~same if other_hand else same
        content = wanted[described & (p.look[wanted] != p.look[target])]
        style = known[(p.look[known] == p.look[target]) & (p.thing[known] != p.thing[target])]
        if len(content) and len(style):
            rows.append((target, int(rng.choice(content)), int(rng.choice(style))))
    table = np.array(rows)
    return Triples(table[:, 0], table[:, 1], table[:, 2])


def judged_triples(pictures: Pictures) -> dict[str, Triples]:
    """All that trainings are judged on, by name."""
    return {name: fixed_triples(pictures, *which) for name, which in JUDGED.items()}
