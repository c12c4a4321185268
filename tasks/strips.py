"""Interpolation strips: a sweep as a row of pictures, ``runs/<run_id>/report/strips.png``.

Which pictures belong to which sweep is written beside the plan (``sweeps.json``): one picture may be a step of several.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from PIL import Image, ImageDraw, ImageFont

from manifests import layout
from manifests.schema.entries import PairEntry
from manifests.store.store import Store
from tasks.contact_sheet import CELL_PX, GAP_PX, INK, LABEL_PX, PAPER, RULE, fit
from tasks.runs import PlannedSample

MOST_STRIPS = 24
"""Strips on the picture, evenly taken from all; the report page has room for more."""


@dataclass(frozen=True)
class StripStep:
    """One picture of a strip, with what it stands for, such as "style_strength 0.5"."""

    label: str
    sample_id: str
    key: str


@dataclass(frozen=True)
class Strip:
    """The pictures of one sweep with one seed, in order."""

    label: str
    steps: tuple[StripStep, ...]


def strips_of(drawn: Sequence[tuple[PairEntry, PlannedSample]]) -> tuple[Strip, ...]:
    """Gather the sweeps of a manifest, by what it says of its pairs."""
    rows: dict[tuple[int | None, str], list[StripStep]] = {}
    for pair, sample in drawn:
        if not pair.sweep:
            continue
        words = [pair.sweep, pair.prompt or ""]
        if pair.colour_of or pair.colour_by:
            words.append(f"colours of {pair.colour_of or 'content'} by {pair.colour_by or 'transfer'}")
        if len(pair.seeds) > 1:
            words.append(f"seed {sample.seed}")
        label = ", ".join(word for word in words if word)
        rows.setdefault((pair.row, label), []).append(StripStep(pair.step, sample.sample_id, sample.key))
    return tuple(Strip(label, tuple(steps)) for (_, label), steps in rows.items())


def write_strips(store: Store, run_id: str, strips: Sequence[Strip]) -> None:
    """Keep a run's sweeps beside its plan; nothing where it has none."""
    if strips:
        body = json.dumps([asdict(strip) for strip in strips], indent=1, ensure_ascii=False)
        store.write_once(layout.run_key(run_id, "sweeps.json"), body.encode())


def read_strips(store: Store, run_id: str) -> tuple[Strip, ...]:
    """Read back what `write_strips` wrote; nothing where a run has no sweeps."""
    rows = json.loads(store.find(layout.run_key(run_id, "sweeps.json")) or "[]")
    return tuple(Strip(row["label"], tuple(StripStep(**step) for step in row["steps"])) for row in rows)


def draw_strips(store: Store, run_id: str) -> bytes | None:
    """Draw a run's strips below each other; pictures that are missing are crossed out.

    Returns:
        A PNG; None where the run has no sweeps.
    """
    strips = read_strips(store, run_id)
    if not strips:
        return None
    strips = strips[:: max(1, -(-len(strips) // MOST_STRIPS))]
    pitch_x, pitch_y = CELL_PX + GAP_PX, CELL_PX + GAP_PX + 2 * LABEL_PX
    width = GAP_PX + pitch_x * max(len(strip.steps) for strip in strips)
    sheet = Image.new("RGB", (width, GAP_PX + pitch_y * len(strips)), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=12)
    for row, strip in enumerate(strips):
        top = GAP_PX + row * pitch_y
        draw.text((GAP_PX, top), strip.label, fill=INK, font=font)
        top += LABEL_PX
        for column, step in enumerate(strip.steps):
            left = GAP_PX + column * pitch_x
            if (picture := store.find(step.key)) is not None:
                sheet.paste(fit(picture), (left, top))
            else:
                draw.rectangle((left, top, left + CELL_PX, top + CELL_PX), outline=RULE)
                draw.line((left, top, left + CELL_PX, top + CELL_PX), fill=RULE)
            draw.text((left + 2, top + CELL_PX + 2), step.label, fill=INK, font=font)
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG")
    return buffer.getvalue()
