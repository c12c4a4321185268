"""Score one shard in a slot and write its part of the score data set."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from blora.blocks import Half
from blora.score import Scored, ScoreItem, Scorer, score_samples
from manifests import layout
from manifests.store import Missing
from manifests.tables import SCORES, from_parquet_bytes, to_parquet_bytes, to_table
from tasks.resident import Pixels, Resident
from tasks.runs import Plan, PlannedSample, scores_key

READERS = 4  # pictures read and decoded at once


def score_shard(resident: Resident, payload: dict[str, Any]) -> dict[str, Any]:
    """Make every picture of a shard that exists have its scores.

    Rows that are there are kept; pictures that came later are added to the same part.

    Args:
        resident: the slot's working set.
        payload: ``run_id`` and ``shard_id``.

    Returns:
        ``scored`` (sample ids scored by this call), ``score_seconds``, and ``busy_seconds`` of them spent on scores.
    """
    plan = resident.plan(payload["run_id"])
    shard = plan.shard(payload["shard_id"])
    key = scores_key(plan, shard)
    try:
        rows = from_parquet_bytes(resident.store.read(key), SCORES).to_pylist()
    except Missing:
        rows = []
    known = {row["sample_id"] for row in rows}
    started = time.monotonic()
    planned: list[PlannedSample] = []
    items: list[list[tuple[float, ScoreItem]]] = []
    unscored = [sample for sample in shard.samples if sample.sample_id not in known]
    with ThreadPoolExecutor(READERS) as threads:
        pictures = list(threads.map(lambda sample: _picture(resident, sample), unscored))
    for sample, picture in zip(unscored, pictures, strict=True):
        if picture is None:
            continue
        planned.append(sample)
        items.append(_items(resident, picture, sample, plan))
    busy_seconds = 0.0
    if planned:
        began = time.monotonic()
        scorers = resident.scorers(plan.run.settings.score)
        scored_at = datetime.now(UTC)
        for sample, scores in zip(planned, _judged(scorers, items), strict=True):
            for name, scored in scores.items():
                rows.append(
                    _identity(sample, plan.run.run_id)
                    | {
                        "score": name,
                        "value": scored.value,
                        "scorer": scored.scorer,
                        "scorer_version": scored.version,
                        "scored_at": scored_at,
                    }
                )
        busy_seconds = time.monotonic() - began
        resident.store.replace(key, to_parquet_bytes(to_table(rows, SCORES)))
    resident.emit({"kind": "score", "id": shard.shard_id, "done": len(shard.samples), "total": len(shard.samples)})
    return {
        "scored": [sample.sample_id for sample in planned],
        "score_seconds": time.monotonic() - started,
        "busy_seconds": busy_seconds,
    }


def _picture(resident: Resident, sample: PlannedSample) -> Pixels | None:
    try:
        return resident.picture(sample.key)
    except Missing:
        return None


def _items(resident: Resident, picture: Pixels, sample: PlannedSample, plan: Plan) -> list[tuple[float, ScoreItem]]:
    """What is judged, by weight: one item for each content and style picture.

    A mix has those of its parts, an object those of all its photos, and a side that the prompt says has none.
    """

    def pictures(half: Half) -> list[tuple[float, Pixels | None]]:
        parts = sample.parts(half)
        total = sum(part.weight for part in parts) or 1.0
        photos = {part: plan.adapter(part.adapter_id).image_ids for part in parts}
        return [
            (part.weight / total / len(image_ids), resident.picture(layout.image_key(image_id)))
            for part, image_ids in photos.items()
            for image_id in image_ids
        ] or [(1.0, None)]

    return [
        (share * other, ScoreItem(sample=picture, content=content, style=style, text=sample.text))
        for share, content in pictures("content")
        for other, style in pictures("style")
    ]


def _judged(scorers: Sequence[Scorer], items: Sequence[list[tuple[float, ScoreItem]]]) -> list[dict[str, Scored]]:
    """The scores of each picture; their mean over all contents and styles, weighted as these are mixed."""
    rows = iter(score_samples(scorers, [item for group in items for _, item in group]))
    judged = []
    for group in items:
        scores = [(share, next(rows)) for share, _ in group]
        judged.append(
            {
                name: replace(one, value=sum(share * row[name].value for share, row in scores))
                for name, one in scores[0][1].items()
            }
        )
    return judged


def _identity(sample: PlannedSample, run_id: str) -> dict[str, Any]:
    fields = ("sample_id", "content_id", "style_id", "content_name", "style_name", "seed")
    return {"run_id": run_id} | {field: getattr(sample, field) for field in fields}
