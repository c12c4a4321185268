"""Judge pictures of one shard by one more scorer, in a slot, and keep the rows for the end of the rescoring."""

from __future__ import annotations

import time

from blora.errors import ScorerError
from blora.settings.scorer_spec import parse_scorer
from manifests.errors import counted
from manifests.store.run_folder import RunFolder
from manifests.tables.run import ADDED_SCORES_FILES
from tasks.messages import Advance, RescoreShard, ScoreAnswer
from tasks.worker.score import judge
from tasks.worker.session import Session


def rescore_shard(session: Session, job: RescoreShard) -> ScoreAnswer:
    """Give pictures of a shard their scores by one more scorer.

    Rows of the same scorer that the shard's part has for other pictures are kept, if they are of the same version.

    Raises:
        ScorerError: A picture cannot be judged; the others are.
    """
    plan, shard = session.shard(job.run_id, job.shard_id)
    kind, only = parse_scorer(job.scorer).kind, frozenset(job.only)
    run, part = RunFolder(session.store, job.run_id), ADDED_SCORES_FILES.file(f"{shard.shard_id}-{kind}")
    started = time.monotonic()
    wanted = [sample for sample in shard.samples if sample.sample_id in only]
    judged = judge(session, plan, wanted, lambda: [session.further_scorer(job.scorer)])
    if judged.ids:
        versions = {row["scorer_version"] for row in judged.rows}
        kept = [row for row in run.rows(part) if row["scorer_version"] in versions and row["sample_id"] not in only]
        run.write(part, [*kept, *judged.rows])
    session.emit(Advance("score", f"{shard.shard_id}-{kind}", len(wanted), len(wanted)))
    if judged.faults:  # what was judged is kept, but all of a scorer's scores are published together, or none
        raise ScorerError(f"{counted(len(judged.faults), 'picture')} could not be judged", str(judged.faults[0]))
    return ScoreAnswer(tuple(judged.ids), (), time.monotonic() - started, judged.busy_seconds)
