"""Score one shard in a slot and write its part of the score data set."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from PIL import Image

from blora.blocks import Half
from blora.score import Scored, ScoreItem, Scorer, score_samples
from manifests import layout
from manifests.parquet import find_table, to_parquet_bytes, to_table
from manifests.store import Missing
from manifests.tables import SCORES
from tasks.report.thumbnails import write_shard_thumbnails
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
    run_id = payload["run_id"]
    plan = resident.plan(run_id)
    shard = plan.shard(payload["shard_id"])
    key = scores_key(plan.run, shard)
    rows = find_table(resident.store, key, SCORES).to_pylist()
    known = {row["sample_id"] for row in rows}
    started = time.monotonic()
    unscored = [sample for sample in shard.samples if sample.sample_id not in known]
    judged, new, busy_seconds = judge(resident, plan, unscored, lambda: resident.scorers(plan.run.settings.score))
    if judged:
        resident.store.replace(key, to_parquet_bytes(to_table([*rows, *new], SCORES)))
        at_hand = {s.sample_id: Image.fromarray(resident.picture(s.key)) for s in unscored if s.sample_id in judged}
        write_shard_thumbnails(resident.store, run_id, shard.samples, dict.fromkeys(known) | at_hand)
    resident.emit({"kind": "score", "id": shard.shard_id, "done": len(shard.samples), "total": len(shard.samples)})
    return {"scored": judged, "score_seconds": time.monotonic() - started, "busy_seconds": busy_seconds}


def judge(
    resident: Resident,
    plan: Plan,
    samples: Sequence[PlannedSample],
    scorers: Callable[[], Sequence[Scorer]],
    key_of: Callable[[PlannedSample], str] = lambda sample: sample.key,
) -> tuple[list[str], list[dict[str, Any]], float]:
    """Judge those of some pictures that are there.

    Args:
        resident: the slot's working set.
        plan: their plan.
        samples: the pictures.
        scorers: gives the scorers; not called where there is nothing to judge.
        key_of: where the picture of a sample lies.

    Returns:
        Ids of the pictures judged, their rows of the SCORES table, and the seconds spent on it.
    """
    planned: list[PlannedSample] = []
    items: list[list[tuple[float, ScoreItem]]] = []
    with ThreadPoolExecutor(READERS) as threads:
        pictures = list(threads.map(lambda sample: _picture(resident, key_of(sample)), samples))
    for sample, picture in zip(samples, pictures, strict=True):
        if picture is None:
            continue
        planned.append(sample)
        items.append(_items(resident, picture, sample, plan))
    if not planned:
        return [], [], 0.0
    began = time.monotonic()
    loaded = scorers()
    scored_at = datetime.now(UTC)
    rows = [
        _identity(sample, plan.run.run_id)
        | {
            "score": name,
            "value": scored.value,
            "scorer": scored.scorer,
            "scorer_version": scored.version,
            "scored_at": scored_at,
        }
        for sample, scores in zip(planned, _judged(loaded, items), strict=True)
        for name, scored in scores.items()
    ]
    return [sample.sample_id for sample in planned], rows, time.monotonic() - began


def _picture(resident: Resident, key: str) -> Pixels | None:
    try:
        return resident.picture(key)
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
