"""Judge pictures of one shard by one more scorer, in a slot, and keep the rows for the end of the rescoring."""

from __future__ import annotations

import time
from typing import Any

from blora.weights import parse_scorer
from manifests import layout
from manifests.parquet import find_table, to_parquet_bytes, to_table
from manifests.tables import SCORES
from tasks.resident import Resident
from tasks.score import judge


def rescore_shard(resident: Resident, payload: dict[str, Any]) -> dict[str, Any]:
    """Give pictures of a shard their scores by one more scorer.

    Rows of the same scorer that the shard's part has for other pictures are kept, if they are of the same version.

    Args:
        resident: the slot's working set.
        payload: ``run_id`` and ``shard_id``; ``scorer`` (its line, see `blora.weights`); ``only``, the sample ids.

    Returns:
        ``scored`` (sample ids scored by this call), ``score_seconds``, and ``busy_seconds`` of them spent on scores.
    """
    plan, shard = resident.shard(payload["run_id"], payload["shard_id"])
    kind, only = parse_scorer(payload["scorer"]).kind, frozenset(payload["only"])
    key = layout.added_scores_key(plan.run.run_id, shard.shard_id, kind)
    started = time.monotonic()
    wanted = [sample for sample in shard.samples if sample.sample_id in only]
    judged, rows, busy_seconds = judge(resident, plan, wanted, lambda: [resident.further_scorer(payload["scorer"])])
    if judged:
        versions = {row["scorer_version"] for row in rows}
        old = find_table(resident.store, key, SCORES).to_pylist()
        kept = [row for row in old if row["scorer_version"] in versions and row["sample_id"] not in only]
        resident.store.replace(key, to_parquet_bytes(to_table([*kept, *rows], SCORES)))
    done = {"kind": "score", "id": f"{shard.shard_id}-{kind}", "done": len(wanted), "total": len(wanted)}
    resident.emit(done)
    return {"scored": judged, "score_seconds": time.monotonic() - started, "busy_seconds": busy_seconds}
