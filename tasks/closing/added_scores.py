"""Scores by a scorer that came after a run had ended: what is missing, and how the rows reach readers, all at once.

1. Slots write parts of their own, ``runs/<run_id>/added_scores/<shard_id>-<scorer>.parquet``, which no reader looks at:
   not the data set's glob, not the product's own readers. A killed rescoring goes on from them.
2. Once every part is there, the run's published object is put with their rows and names the scorer and its version:
   from then on its parts count as all others do (`tasks.run.scores`). A reader sees none of a scorer's rows or all of
   them. The tables, the page and the report are written again from what is then published.

Only pictures that have the run's own scores are judged; one that lacks them is for `blora rerun` first. So "has a
score" goes on to mean "has the run's own scores", which all other readers take it to mean. A scorer in a new version
takes the place of its rows in the old one.

A rescoring does not begin while somebody is at work on the run. Should a rerun begin and end in the instant between the
reading and the put, the put is checked and done again; and asking for the scorer once more scores nothing, but puts the
rows of its parts where they belong.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from blora.metrics.weights import Weights, locate_weights
from blora.settings.scorer_spec import parse_scorer
from manifests import layout
from manifests.store.run_folder import RunFolder
from manifests.store.store import Store
from manifests.tables.run import SCORES_FILE
from tasks.closing.collect import close_run
from tasks.downloads import local_scorer
from tasks.environment import lease_seconds
from tasks.errors import RunRefused, TaskError
from tasks.run.inventory import Inventory, take_inventory
from tasks.run.outcome import Outcome, recorded_faults
from tasks.run.plan import Plan
from tasks.run.scores import publish_scores, read_published, read_scores

log = logging.getLogger(__name__)

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
    specs = [parse_scorer(line) for line in asked]
    own = {parse_scorer(line).kind for line in plan.run.settings.score.scorers}
    _refuse_twice([spec.kind for spec in specs], own)
    _refuse_unless_at_rest(store, plan)
    weights: dict[str, Weights] = {line: locate_weights(parse_scorer(local_scorer(line))) for line in asked}
    versions = {spec.kind: weights[line].version for line, spec in zip(asked, specs, strict=True)}
    inventory, scores = take_inventory(store, plan), read_scores(store, plan.run, added=versions)
    judged: dict[str, set[str]] = {kind: set() for kind in versions}
    for sample_id, kind in scores.columns("sample_id", "scorer"):
        if kind in judged:
            judged[kind].add(sample_id)
    return [
        Rescoring(
            line, spec.kind, versions[spec.kind], _missing(plan, inventory, judged[spec.kind]), len(judged[spec.kind])
        )
        for line, spec in zip(asked, specs, strict=True)
    ]


def publish_added(store: Store, plan: Plan, rescorings: Sequence[Rescoring]) -> Outcome:
    """Have the rows of scorers count from now on, all at once, and close the run again.

    Raises:
        TaskError: others kept putting the run's object of the data set without these rows.
    """
    run_id, versions = plan.run.run_id, {rescoring.kind: rescoring.version for rescoring in rescorings}
    for _ in range(TRIES):
        scores = read_scores(store, plan.run, added=versions)
        publish_scores(store, plan.run, scores)
        if scores.parts.items() <= read_published(store, plan.run).parts.items():
            return close_run(store, plan, take_inventory(store, plan), recorded_faults(store, run_id))
        log.warning("%s: its scores were put by somebody else at the same time; putting them again", run_id)
    raise TaskError(f"{run_id}: others keep closing the run: blora rescore again when they have ended")


def _missing(plan: Plan, inventory: Inventory, judged: set[str]) -> dict[str, tuple[str, ...]]:
    wanted = (inventory.pictures.keys() & inventory.scores.sample_ids) - judged
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
    held = store.look_at_lease(layout.run_lease_key(run_id), lease_seconds())
    if held is not None and held.is_live:
        raise RunRefused(f"{run_id} is being worked on by {held.holder}: rescore it when that has ended")
    if not store.exists(RunFolder(store, run_id).key(SCORES_FILE.name)):
        raise RunRefused(f"{run_id} has not ended: blora rerun {run_id} does what is missing, then rescore it")
