"""Interpolation strips: a sweep as a row of pictures, ``runs/<run_id>/report/strips.png``."""

from __future__ import annotations

from manifests.store.parallel import in_parallel
from manifests.store.store import Store
from tasks.figures.grid import LINE_PX, Grid, Spacing
from tasks.pictures import encoded
from tasks.planning.sweeps import read_strips

MOST_STRIPS = 24
"""Strips on the picture, evenly taken from all; the report page has room for more."""


def draw_strips(store: Store, run_id: str) -> bytes | None:
    """Draw a run's strips below each other; pictures that are missing are crossed out.

    Returns:
        A PNG; None where the run has no sweeps.
    """
    strips = read_strips(store, run_id)
    if not strips:
        return None
    strips = strips[:: max(1, -(-len(strips) // MOST_STRIPS))]
    keys = list(dict.fromkeys(step.key for strip in strips for step in strip.steps))
    pictures = dict(zip(keys, in_parallel(store, store.find, keys), strict=True))
    grid = Grid(max(len(strip.steps) for strip in strips), len(strips), Spacing(over=LINE_PX))
    for row, strip in enumerate(strips):
        grid.write_over(row, strip.label)
        for column, step in enumerate(strip.steps):
            grid.show(column, row, pictures[step.key])
            grid.write_under(column, row, step.label)
    return encoded(grid.image)
