"""Another picture in a rejected one's stead: the same pair and settings with another seed.

A sample's id is made of its seed, so the new picture is a new sample and the old one stays where it is. The plan of a
run is never changed; a review adds a part to it, ``runs/<run_id>/redo/*.parquet``, of the same schema. So the run stays
one thing under one id: `blora status` says that pictures are missing, `blora rerun` draws and scores just those, and
the page shows them as further candidates of their pair. A run of its own would scatter a pair's candidates over pages.

The seed comes from the rejected picture and the moment of the mark: reading the same decisions again asks for nothing
new, while marking a picture again, later, asks for yet another one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from manifests import ids
from manifests.errors import counted
from manifests.faults import Fault
from manifests.store.run_folder import RunFolder
from manifests.store.store import Store
from manifests.tables.run import REDO_FILES
from tasks.errors import RunRefused
from tasks.planning.group import plan_rows, shards_of
from tasks.review.decisions import Mark, record_marks, with_redo
from tasks.run.inventory import Holdings
from tasks.run.plan import Plan, PlannedSample

_SEEDS = 2**31  # short enough to be read in a file name


def record_review(store: Store, plan: Plan, marks: Sequence[Mark]) -> list[PlannedSample]:
    """Keep marks, and plan a picture for each one to be redone.

    The plan grows before the marks are kept: a mark never names a picture that nobody will draw.

    Returns:
        The pictures that were added to the plan; `blora rerun` draws them.

    Raises:
        RunRefused: a picture cannot be drawn again, because this version names it otherwise.
    """
    samples = {sample.sample_id: sample for sample in plan.samples}
    faults: list[Fault] = []
    kept: list[Mark] = []
    added: dict[str, PlannedSample] = {}
    for mark in marks:
        if mark.decision != "redo":
            kept.append(mark)
            continue
        sample = samples[mark.sample_id]
        if _named(plan, sample) != sample:
            faults.append(_renamed(sample))
            continue
        seed = ids.seed_for("redo", sample.sample_id, mark.decided_at.isoformat()) % _SEEDS
        other = _named(plan, replace(sample, seed=seed, candidate_of=sample.asked_id))
        kept.append(with_redo(mark, other.sample_id))
        if other.sample_id not in samples:
            added[other.sample_id] = other
    if faults:
        raise RunRefused(f"nothing was recorded: {counted(len(faults), 'picture')} cannot be drawn again", faults)
    if added:
        _extend(store, plan, list(added.values()))
    if kept:
        record_marks(store, plan.run.run_id, kept)
    return list(added.values())


def _extend(store: Store, plan: Plan, samples: Sequence[PlannedSample]) -> None:
    shards = shards_of(samples, Holdings(), plan.run.settings)
    shards = tuple(replace(shard, index=len(plan.shards) + shard.index) for shard in shards)
    rows = plan_rows(Plan(plan.run, (), shards))
    part = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{ids.digest('redo', [s.sample_id for s in samples])}"
    RunFolder(store, plan.run.run_id).write_once(REDO_FILES.file(part), rows)


def _named(plan: Plan, sample: PlannedSample) -> PlannedSample:
    return sample.named(plan.run.settings.sample.identity(), plan.run.base_revision)


def _renamed(sample: PlannedSample) -> Fault:
    return Fault(
        kind="review",
        what=f"{sample.content_name} x {sample.style_name}, seed {sample.seed} cannot be drawn again in this run",
        received="a plan of a version that names pictures otherwise",
        accepted="a plan of this version",
        hint="run the manifest again, with other seeds",
        item=sample.sample_id,
    )
