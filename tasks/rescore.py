"""Judge pictures of one shard by one more scorer, in a slot, and keep the rows for the end of the rescoring."""

from __future__ import annotations

import time
from typing import Any

from blora.errors import ScorerError
from blora.settings.scorer_spec import parse_scorer
from manifests import layout
from manifests.store.run_folder import find_table
from manifests.tables.parquet import to_parquet_bytes, to_table
from manifests.tables.run import SCORES
from tasks.resident import Resident
from tasks.score import judge


def rescore_shard(resident: Resident, payload: dict[str, Any]) -> dict[str, Any]:
    """Give pictures of a shard their scores by one more scorer.

    Rows of the same scorer that the shard's part has for other pictures are kept, if they are of the same version.

    Args:
        resident: the slot's working set.
        payload: ``run_id`` and ``shard_id``; ``scorer`` (its line); ``only``, the sample ids.

    Returns:
        ``scored`` (sample ids scored by this call), ``score_seconds``, and ``busy_seconds`` of them spent on scores.

    Raises:
        ScorerError: A picture cannot be judged; the others are.
    """
    plan = resident.plan(payload["run_id"])
    shard = plan.shard(payload["shard_id"])
    kind, only = parse_scorer(payload["scorer"]).kind, frozenset(payload["only"])
    key = layout.added_scores_key(plan.run.run_id, shard.shard_id, kind)
    started = time.monotonic()
    wanted = [sample for sample in shard.samples if sample.sample_id in only]
    judged = judge(resident, plan, wanted, lambda: [resident.further_scorer(payload["scorer"])])
    if judged.ids:
        versions = {row["scorer_version"] for row in judged.rows}
        old = find_table(resident.store, key, SCORES).to_pylist()
        kept = [row for row in old if row["scorer_version"] in versions and row["sample_id"] not in only]
        resident.store.replace(key, to_parquet_bytes(to_table([*kept, *judged.rows], SCORES)))
    done = {"kind": "score", "id": f"{shard.shard_id}-{kind}", "done": len(wanted), "total": len(wanted)}
    resident.emit(done)
    if judged.faults:  # what was judged is kept, but all of a scorer's scores are published together, or none
        raise ScorerError(f"{len(judged.faults)} pictures could not be judged", str(judged.faults[0]))
    seconds = time.monotonic() - started
    return {"scored": judged.ids, "score_seconds": seconds, "busy_seconds": judged.busy_seconds}
