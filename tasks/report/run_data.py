"""What the page of a run shows, as columns: one list a field and one entry a picture, so that 10,000 stay small."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from blora.adapters.blocks import Half
from blora.settings.score_meanings import explained, lower_is_better
from manifests import layout
from tasks.report.thumbnails import ThumbnailPage
from tasks.review.best import Choice
from tasks.review.decisions import Mark
from tasks.review.score_order import default_sort, with_overall
from tasks.run.inventory import Inventory
from tasks.run.plan import Plan, PlannedSample
from tasks.run.scores import RunScores

DIGITS = 5
"""Significant digits of a score on a page; the table has them all."""

_EXACT = 2**53  # whole numbers up to here are numbers in a browser, too


def run_columns(
    plan: Plan,
    inventory: Inventory,
    choices: Sequence[Choice],
    marks: Mapping[str, Mark],
    references: Sequence[str],
    thumbnails: Sequence[ThumbnailPage],
    faults: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """The data of a run's page.

    Args:
        plan: the run.
        inventory: what the store has of it.
        choices: what was chosen of candidates.
        marks: what reviewers said last, by sample_id.
        references: keys of the input pictures; their thumbnails come first, in this order, then those of the samples.
        thumbnails: the pages of thumbnails.
        faults: rows of table FAULTS, which say why pictures are missing.
    """
    samples = plan.samples
    contents, styles = _Sides(plan, inventory.adapters, "content"), _Sides(plan, inventory.adapters, "style")
    prompts, dials = _Words(), _Words()
    # Where nothing has further candidates, nothing was chosen.
    best = {c.chosen.sample_id for c in choices if c.chosen} if len(choices) < len(samples) else set()
    return {
        "run": plan.run.run_id,
        "name": plan.run.name,
        "width": plan.run.settings.sample.width_px,
        "height": plan.run.settings.sample.height_px,
        "contents": contents.listed,
        "styles": styles.listed,
        "references": list(references),
        "thumbnails": thumbnails,
        "samples": {
            "id": [s.sample_id for s in samples],
            "content": contents.column,
            "style": styles.column,
            "seed": [s.seed if s.seed < _EXACT else str(s.seed) for s in samples],
            "prompt": [prompts.number((s.prompt, s.content_prompt or "", s.negative_prompt)) for s in samples],
            "dials": [dials.number((s.content_strength, s.style_strength)) for s in samples],
            "bytes": [entry.size if (entry := inventory.pictures.get(s.sample_id)) else None for s in samples],
            "best": [int(s.sample_id in best) for s in samples],
        },
        "prompts": prompts.listed,
        "dials": dials.listed,
        "scores": score_columns(samples, inventory.scores),
        "missing": _reasons(samples, inventory, faults),
        "marks": {
            sample_id: [mark.decision, _milliseconds(mark), mark.reviewer, mark.redo_sample_id]
            for sample_id, mark in marks.items()
        },
    }


def score_columns(samples: Sequence[PlannedSample], scores: RunScores) -> list[dict[str, Any]]:
    """One entry a score: its name, direction, scorer, and one value a picture (None where it has none)."""
    place = {sample.sample_id: number for number, sample in enumerate(samples)}
    found: dict[int, dict[str, float]] = {}
    scorers: dict[str, str] = {}
    for sample_id, name, value, scorer, version in scores.columns(
        "sample_id", "score", "value", "scorer", "scorer_version"
    ):
        if sample_id in place and math.isfinite(value):
            found.setdefault(place[sample_id], {})[name] = value
            scorers[name] = f"{scorer} {version}"
    columns: dict[str, dict[str, Any]] = {}
    for number, values in found.items():
        for name, value in with_overall(values).items():
            if name not in columns:
                columns[name] = score_head(name) | {"scorer": scorers.get(name, ""), "values": [None] * len(samples)}
            columns[name]["values"][number] = float(f"{value:.{DIGITS}g}")
    first = default_sort(columns.keys())
    return sorted(columns.values(), key=lambda score: (score["name"] != first, score["name"]))


def score_head(name: str) -> dict[str, Any]:
    """What a page says of a score beside its numbers."""
    meaning = explained(name)
    return {"name": name, "label": meaning.label, "says": meaning.says, "lower": lower_is_better(name)}


def _reasons(
    samples: Sequence[PlannedSample], inventory: Inventory, faults: Sequence[Mapping[str, Any]]
) -> dict[int, str]:
    """Why each picture that is not there is not, by its number: a fault of its own or of an adapter that it needs."""
    told = {fault["item"]: fault["what"] for fault in faults}
    reasons = {}
    for number, sample in enumerate(samples):
        if sample.sample_id not in inventory.pictures:
            parts = (*sample.parts("content"), *sample.parts("style"))
            items = (sample.sample_id, *(part.adapter_id for part in parts))
            reasons[number] = next((told[item] for item in items if item in told), "not drawn yet")
    return reasons


class _Words:
    """Values that repeat, each listed once."""

    def __init__(self) -> None:
        self.listed: list[Any] = []
        self._numbers: dict[Any, int] = {}

    def number(self, value: Any) -> int:
        if value not in self._numbers:
            self._numbers[value] = len(self.listed)
            self.listed.append(value)
        return self._numbers[value]


class _Sides:
    """The contents, or the styles, of a run: under each name an id, and the input pictures of its adapters, if any."""

    def __init__(self, plan: Plan, whole: Collection[str], half: Half) -> None:
        adapters = {adapter.adapter_id: adapter for adapter in plan.adapters}
        words = _Words()
        self.column: list[int] = []
        self.listed: list[dict[str, Any]] = []
        for sample in plan.samples:
            side_id, name = getattr(sample, f"{half}_id"), getattr(sample, f"{half}_name")
            number = words.number((side_id, name))
            self.column.append(number)
            if number == len(self.listed):
                parts = [adapters[part.adapter_id] for part in sample.parts(half)]
                images = [layout.image_key(image_id) for adapter in parts for image_id in adapter.image_ids]
                self.listed.append({"id": side_id, "name": name, "images": images, "whole": side_id in whole})


def _milliseconds(mark: Mark) -> int:
    return round(mark.decided_at.timestamp() * 1000)
