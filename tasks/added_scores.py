"""Scores by a scorer that came after a run had ended: what is missing, and how the rows reach readers, all at once.

1. Slots write parts of their own, ``runs/<run_id>/added_scores/<shard_id>-<scorer>.parquet``, which no reader looks at:
   not the data set's glob, not the product's own readers. A killed rescoring goes on from them.
2. Once every part is there, their rows are laid over the run's in its published object, in one put: a reader sees none
   of a scorer's rows or all of them. The tables, the page and the report are written again from what is then published.
3. Housekeeping drops the parts, as it does those of shards, when the published object has their rows.

Only pictures that have the run's own scores are judged; one that lacks them is for `blora rerun` first. So "has a
score" goes on to mean "has the run's own scores", which all other readers take it to mean. A rerun reads the published
rows and puts them back, these included. A scorer in a new version takes the place of its rows in the old one.

A rescoring does not begin while somebody is at work on the run. Should a rerun begin and end in the instant between the
reading and the put, the put is checked and done again; and asking for the scorer once more scores nothing, but puts the
rows of its parts where they belong.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from blora.weights import Weights, locate_weights, parse_scorer
from manifests import layout
from manifests.parquet import from_parquet_bytes, to_table
from manifests.store import Store
from manifests.tables import SCORES
from tasks.collect import close_run
from tasks.compaction import RunScores, publish_scores, read_published, read_scores
from tasks.faults import RunRefused, TaskError
from tasks.outcome import Outcome, recorded_faults
from tasks.parallel import in_parallel
from tasks.runs import Plan
from tasks.stock import Stock, take_stock
from tasks.weights import local_scorer

log = logging.getLogger(__name__)

Rows = list[dict[str, Any]]

_BY = ("sample_id", "scorer", "scorer_version")

TRIES = 3
"""Puts of the published object before giving up on others who put theirs."""


@dataclass(frozen=True)
class Rescoring:
    """What one scorer has to do in a run.

    Attributes:
        asked: the scorer's line.
        kind: its name.
        version: of its code and weights.
        missing: ids of the pictures that it has not judged, by shard.
        judged: how many pictures it has judged.
    """

    asked: str
    kind: str
    version: str
    missing: Mapping[str, tuple[str, ...]]
    judged: int


def plan_rescoring(store: Store, plan: Plan, asked: Sequence[str]) -> list[Rescoring]:
    """Find and check the weights of scorers, and compare what they have judged with what there is.

    Raises:
        ScorerError: an unknown scorer, or weights that are missing or not the ones meant.
        BaseUnreachableError: the hub did not answer.
        RunRefused: the run has not ended or is being worked on, or scores with one of them already.
    """
    specs = [parse_scorer(one) for one in asked]
    own = {parse_scorer(one).kind for one in plan.run.settings.score.scorers}
    _refuse_twice([spec.kind for spec in specs], own)
    _refuse_unless_at_rest(store, plan)
    found: dict[str, Weights] = {one: locate_weights(parse_scorer(local_scorer(one))) for one in asked}
    stock = take_stock(store, plan)
    rescorings = []
    for one, spec in zip(asked, specs, strict=True):
        version = found[one].version
        told = [*stock.scores.columns(*_BY), *_read_parts(store, plan, (spec.kind,)).columns(*_BY)]
        judged = {sample_id for sample_id, *by in told if by == [spec.kind, version]}
        rescorings.append(Rescoring(one, spec.kind, version, _missing(plan, stock, judged), len(judged)))
    return rescorings


def publish_added(store: Store, plan: Plan, rescorings: Sequence[Rescoring]) -> Outcome:
    """Lay the rows of scorers over the run's, in one put, and write tables and page again.

    Raises:
        TaskError: pictures are still without their scores, or others kept putting the object without these rows.
    """
    kinds = {one.kind: one.version for one in rescorings}
    parts = _read_parts(store, plan, tuple(kinds))
    added = [row for row in parts.table.to_pylist() if row["scorer_version"] == kinds[row["scorer"]]]
    for _ in range(TRIES):
        before = read_scores(store, plan.run)
        rows = to_table(laid_over(before.table.to_pylist(), added, kinds), SCORES)
        publish_scores(store, plan.run, RunScores(rows, {**before.parts, **parts.parts}))
        if parts.parts.items() <= read_published(store, plan.run).parts.items():
            break
        log.warning("%s: its scores were put by somebody else at the same time; putting them again", plan.run.run_id)
    else:
        raise TaskError(f"{plan.run.run_id}: others keep closing the run: blora rescore again when they have ended")
    return close_run(store, plan, take_stock(store, plan), recorded_faults(store, plan.run.run_id))


def laid_over(rows: Iterable[Mapping[str, Any]], added: Rows, kinds: Mapping[str, str]) -> Rows:
    """A run's rows with those of scorers added, in place of what these scorers said in other versions.

    Args:
        rows: the run's rows.
        added: rows of the scorers.
        kinds: the version of each scorer, by its name.
    """
    new = _names(added)
    kept = [
        dict(row)
        for row in rows
        if kinds.get(row["scorer"], row["scorer_version"]) == row["scorer_version"] and _name(row) not in new
    ]
    return [*kept, *added]


def _missing(plan: Plan, stock: Stock, judged: set[str]) -> dict[str, tuple[str, ...]]:
    wanted = (stock.pictures.keys() & stock.scored) - judged
    by_shard = {
        shard.shard_id: tuple(sample.sample_id for sample in shard.samples if sample.sample_id in wanted)
        for shard in plan.shards
    }
    return {shard_id: some for shard_id, some in by_shard.items() if some}


def _refuse_twice(kinds: Sequence[str], own: set[str]) -> None:
    for kind in kinds:
        if kinds.count(kind) > 1:
            raise RunRefused(f"--scorer: received {kind} twice; accepted: each scorer once")
        if kind in own:
            raise RunRefused(f"--scorer {kind}: the run's own settings score with it; blora rerun does what is missing")
    if not kinds:
        raise RunRefused("--scorer: received none; accepted: one or several, such as csd")


def _refuse_unless_at_rest(store: Store, plan: Plan) -> None:
    run_id = plan.run.run_id
    held = store.look_at_lease(layout.run_lease_key(run_id))
    if held is not None and held.is_live:
        raise RunRefused(f"{run_id} is being worked on by {held.holder}: rescore it when that has ended")
    if not store.exists(layout.run_key(run_id, "scores.parquet")):
        raise RunRefused(f"{run_id} has not ended: blora rerun {run_id} does what is missing, then rescore it")


def _read_parts(store: Store, plan: Plan, kinds: Sequence[str]) -> RunScores:
    """The rows of the parts of scorers that are there."""
    there = store.list(layout.added_scores_prefix(plan.run.run_id))
    keys = [layout.added_scores_key(plan.run.run_id, shard.shard_id, kind) for shard in plan.shards for kind in kinds]
    found = [key for key in keys if key in there]
    tables = in_parallel(store, lambda key: from_parquet_bytes(store.read(key), SCORES), found)
    return RunScores(pa.concat_tables([SCORES.empty_table(), *tables]), {key: there[key].version for key in found})


def _name(row: Mapping[str, Any]) -> tuple[str, str]:
    return row["sample_id"], row["score"]


def _names(rows: Iterable[Mapping[str, Any]]) -> frozenset[tuple[str, str]]:
    return frozenset(_name(row) for row in rows)
