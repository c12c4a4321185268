"""The contact sheet of a run, ``report/contact_sheet.png``: the chosen picture of one seed of each pair."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from PIL import Image

from blora.adapters.blocks import Half
from manifests import layout
from manifests.store.parallel import in_parallel
from manifests.store.store import Store
from tasks.figures.contact_sheet import contact_sheet
from tasks.figures.grid import CELL_PX, PAPER, fit
from tasks.pictures import encoded
from tasks.review.best import Choice
from tasks.run.plan import Plan, PlannedSample, SidePart

SHEET_MOST = 12
"""Contents and styles on the sheet; larger grids are for the report page."""

Edge = Mapping[str, tuple[SidePart, ...]]
"""What is referred to along an edge of the sheet: names, and the adapters of each; none where the name is a prompt."""


def draw_sheet(store: Store, plan: Plan, choices: Sequence[Choice]) -> bytes:
    """Draw the sheet; pictures that are missing are crossed out.

    Returns:
        A PNG.
    """
    contents, styles = _edge(plan, "content"), _edge(plan, "style")
    first: dict[tuple[str, str], PlannedSample] = {}
    for choice in choices:
        sample = choice.chosen or choice.candidates[0]
        if sample.content_name in contents and sample.style_name in styles:
            first.setdefault((sample.content_name, sample.style_name), sample)
    drawn = in_parallel(store, store.find, [sample.key for sample in first.values()])
    cells = dict(zip(first, drawn, strict=True))
    inputs = _read_inputs(store, plan, (contents, styles))
    rows, columns = ([(name, _reference(parts, inputs)) for name, parts in edge.items()] for edge in (contents, styles))
    return contact_sheet(rows, columns, cells)


def _edge(plan: Plan, half: Half) -> Edge:
    """The first contents or styles of a plan; of samples that share a name the last one says what it refers to."""
    named = {getattr(sample, f"{half}_name"): sample for sample in plan.samples}
    return {name: sample.parts(half) for name, sample in list(named.items())[:SHEET_MOST]}


def _read_inputs(store: Store, plan: Plan, edges: Sequence[Edge]) -> dict[str, list[bytes]]:
    """The input pictures of the adapters along the edges, by adapter_id.

    Raises:
        Missing: one is not in the store.
    """
    wanted = {part.adapter_id for edge in edges for parts in edge.values() for part in parts}
    images = {adapter.adapter_id: adapter.image_ids for adapter in plan.adapters if adapter.adapter_id in wanted}
    image_ids = list(dict.fromkeys(image_id for several in images.values() for image_id in several))
    data = in_parallel(store, store.read, [layout.image_key(image_id) for image_id in image_ids])
    by_image = dict(zip(image_ids, data, strict=True))
    return {adapter_id: [by_image[image_id] for image_id in several] for adapter_id, several in images.items()}


def _reference(parts: Sequence[SidePart], inputs: Mapping[str, Sequence[bytes]]) -> bytes | None:
    """What a name on the edge refers to: a picture, an object's photos, slices of a mix.

    None for a prompt and for a finished adapter, which have no picture.
    """
    photos = {part: several for part in parts if (several := inputs[part.adapter_id])}
    pictures = [_tiled(several) if len(several) > 1 else several[0] for several in photos.values()]
    if len(pictures) > 1:
        return _sliced(pictures, [part.weight for part in photos])
    return pictures[0] if pictures else None


def _sliced(pictures: Sequence[bytes], weights: Sequence[float]) -> bytes:
    """Upright slices of pictures side by side, as wide as their weights: what a mix refers to."""
    card, left, total = Image.new("RGB", (CELL_PX, CELL_PX), PAPER), 0.0, sum(weights)
    for picture, weight in zip(pictures, weights, strict=True):
        right = left + CELL_PX * weight / total
        box = (round(left), 0, round(right), CELL_PX)
        card.paste(fit(picture).crop(box), box[:2])
        left = right
    return encoded(card)


def _tiled(pictures: Sequence[bytes]) -> bytes:
    """Pictures in one square cell, a row after the other: the photos of one object."""
    side = math.ceil(math.sqrt(len(pictures)))
    cell = CELL_PX // side
    card = Image.new("RGB", (CELL_PX, CELL_PX), PAPER)
    for number, picture in enumerate(pictures):
        small = fit(picture).resize((cell, cell), Image.Resampling.LANCZOS)
        card.paste(small, (number % side * cell, number // side * cell))
    return encoded(card)
