"""Judge pictures of one shard by one more scorer, in a slot, and keep the rows for the end of the rescoring."""

from __future__ import annotations

import time

from blora.errors import ScorerError
from blora.settings.scorer_spec import parse_scorer
from manifests import layout
from manifests.store.run_folder import find_table
from manifests.tables.parquet import to_parquet_bytes, to_table
from manifests.tables.run import SCORES
from tasks.messages import Advance, RescoreShard, ScoreAnswer
from tasks.worker.score import judge
from tasks.worker.session import Resident


def rescore_shard(resident: Resident, job: RescoreShard) -> ScoreAnswer:
    """Give pictures of a shard their scores by one more scorer.

    Rows of the same scorer that the shard's part has for other pictures are kept, if they are of the same version.

    Raises:
        ScorerError: A picture cannot be judged; the others are.
    """
    plan, shard = resident.shard(job.run_id, job.shard_id)
    kind, only = parse_scorer(job.scorer).kind, frozenset(job.only)
    key = layout.added_scores_key(plan.run.run_id, shard.shard_id, kind)
    started = time.monotonic()
    wanted = [sample for sample in shard.samples if sample.sample_id in only]
    judged = judge(resident, plan, wanted, lambda: [resident.further_scorer(job.scorer)])
    if judged.ids:
        versions = {row["scorer_version"] for row in judged.rows}
        old = find_table(resident.store, key, SCORES).to_pylist()
        kept = [row for row in old if row["scorer_version"] in versions and row["sample_id"] not in only]
        resident.store.replace(key, to_parquet_bytes(to_table([*kept, *judged.rows], SCORES)))
    resident.emit(Advance("score", f"{shard.shard_id}-{kind}", len(wanted), len(wanted)))
    if judged.faults:  # what was judged is kept, but all of a scorer's scores are published together, or none
        raise ScorerError(f"{len(judged.faults)} pictures could not be judged", str(judged.faults[0]))
    return ScoreAnswer(tuple(judged.ids), (), time.monotonic() - started, judged.busy_seconds)
