"""Lay a run's pictures out under names that a person reads."""

from __future__ import annotations

from pathlib import Path

from manifests import ids, layout
from manifests.store import Missing, Store
from tasks.choice import choose_of
from tasks.faults import TaskError
from tasks.review.decisions import load_marks
from tasks.runs import Plan, PlannedSample, load_plan
from tasks.stock import take_stock

TABLES = (
    "best.parquet",
    "samples.parquet",
    "scores.parquet",
    "adapters.parquet",
    "faults.parquet",
    "run.json",
    "report/contact_sheet.png",
    "report/strips.png",
)


def export_run(store: Store, run_id: str, folder: str, *, kept: bool = False, best: bool = False) -> tuple[int, int]:
    """Copy pictures, tables and the contact sheet into a folder.

    Args:
        store: the store.
        run_id: the run.
        folder: where to; made if it is not there. Files of the same names are replaced, others are left alone.
        kept: only the pictures that a review says to keep.
        best: only the best candidate of each picture asked for, by what the store holds now (`tasks.choice`).

    Returns:
        How many pictures were copied, and how many are missing: not in the store, or with `best` not to be chosen yet.

    Raises:
        RunNotFound: no such run.
        TaskError: only kept pictures are asked for, and there are none.
    """
    plan = load_plan(store, run_id)
    named = human_names(plan)
    if kept:
        keep = {sample_id for sample_id, mark in load_marks(store, run_id).items() if mark.decision == "keep"}
        named = [(sample, name) for sample, name in named if sample.sample_id in keep]
        if not named:
            raise TaskError(f"no picture of {run_id} is marked keep: mark them on its page (blora report {run_id})")
    unchosen = 0
    if best:
        choices = choose_of(store, plan, take_stock(store, plan))
        wanted = {choice.chosen.sample_id for choice in choices if choice.chosen}
        unchosen = sum(choice.chosen_by == "none" for choice in choices)
        named = [(sample, name) for sample, name in named if sample.sample_id in wanted]
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    copied = 0
    for sample, name in named:
        try:
            (target / name).write_bytes(store.read(sample.key))
            copied += 1
        except Missing:
            continue
    for name in TABLES:
        try:
            (target / Path(name).name).write_bytes(store.read(layout.run_key(run_id, name)))
        except Missing:
            continue  # a run that has not ended yet has no tables
    return copied, len(named) - copied + (0 if kept else unchosen)


def human_names(plan: Plan) -> list[tuple[PlannedSample, str]]:
    """``content__style__seed.png`` for every sample; a second one of that name gets a tail of its id."""
    taken: set[str] = set()
    named: list[tuple[PlannedSample, str]] = []
    for sample in plan.samples:
        stem = f"{ids.slug(sample.content_name)}__{ids.slug(sample.style_name)}__{sample.seed}"
        if stem in taken:
            stem += f"__{sample.sample_id[:8]}"
        taken.add(stem)
        named.append((sample, f"{stem}.png"))
    return named
