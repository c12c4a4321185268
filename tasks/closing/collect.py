"""Close a run: compare the plan with the store, gather the tables, write the report.

The store decides what is done. A task that reported success without leaving a picture, or crashed after leaving one,
changes nothing here.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from manifests.errors import StoreError
from manifests.faults import Fault
from manifests.store.run_folder import RunFolder
from manifests.store.store import Store
from manifests.tables.run import (
    ADAPTERS_FILE,
    BEST_FILE,
    CLIPS_FILE,
    FAULTS_FILE,
    SAMPLES_FILE,
    SCORES_FILE,
    SLOTS_FILE,
)
from tasks.closing.rows import adapter_rows, item_faults, named, sample_rows, sound_markers
from tasks.closing.yields import Markers, check_faults, take_yield
from tasks.errors import fault_row
from tasks.figures.clip_sheet import draw_clips
from tasks.figures.run_sheet import draw_sheet
from tasks.figures.strips import draw_strips
from tasks.planning.clips import measure_clips, read_clips
from tasks.report.run_page import write_report
from tasks.review.best import SCORE_COLUMNS, Choice, choose_of, write_best
from tasks.run.inventory import Inventory
from tasks.run.outcome import Outcome, read_record
from tasks.run.plan import Plan
from tasks.run.scores import publish_scores

log = logging.getLogger(__name__)

TABLES = (SAMPLES_FILE, SCORES_FILE, ADAPTERS_FILE, FAULTS_FILE, BEST_FILE)
"""Those that every run that was closed has."""


def already_closed(store: Store, plan: Plan, inventory: Inventory) -> bool:
    """Whether a run is complete and was closed as such, so that closing it again would say the same.

    Args:
        store: the store.
        plan: the run's plan.
        inventory: what the store has of it, where nothing has been done since the run was last closed.
    """
    if plan.run.faults or not Outcome.of(plan, inventory, ()).complete:
        return False
    run = RunFolder(store, plan.run.run_id)
    names = (*(table.name for table in TABLES), "report/index.html")
    written = all(store.exists(run.key(name)) for name in names)
    return written and read_record(store, plan.run.run_id).complete


def close_run(
    store: Store,
    plan: Plan,
    inventory: Inventory,
    failures: Sequence[Fault] = (),
    timings: Mapping[str, Any] | None = None,
    began: float | None = None,
) -> Outcome:
    """Write the run's tables and report, and say how it ended.

    Args:
        store: the store.
        plan: the run's plan.
        inventory: what the store has of it now.
        failures: what tasks reported, this time or the last; the latest of an item counts, and only if it is missing.
        timings: slot seconds by kind of work, kept in run.json for later estimates; with ``slots``, also a table.
            Where nothing was done those of the last time stay.
        began: when whoever asked for the work began, by the monotonic clock of this process, if that is known.
    """
    closing = time.monotonic()
    run_id = plan.run.run_id
    run = RunFolder(store, run_id)
    markers, damaged = sound_markers(store, plan, inventory.adapters)
    of_items = (*item_faults(plan, inventory, failures), *damaged, *check_faults(plan, markers))
    faults = (*plan.run.faults, *named(plan, of_items))
    _write_tables(run, plan, inventory, markers, faults)
    if slots := (timings or {}).get("slots"):
        run.write(SLOTS_FILE, [{**row, "run_id": run_id} for row in slots])
    publish_scores(store, plan.run, inventory.scores)
    choices = write_choice(store, plan, inventory)
    _draw_figures(run)
    outcome = Outcome.of(plan, inventory, faults)
    ended = {
        "state": "finished" if outcome.complete else "faults",
        "sentence": outcome.sentence,
        "yield": take_yield(plan, markers, inventory.scores.rows(*SCORE_COLUMNS), choices).to_json(),
        "ended_at": datetime.now(UTC).isoformat(),
        "timings": dict(timings or read_record(store, run_id).timings),
    }
    store.replace(run.key("run.json"), plan.run.to_json(**ended))
    try:
        write_report(store, plan, inventory, choices)
    except StoreError as error:  # a page is for looking, and no reason for a run to be taken as not ended
        log.warning("%s: its page could not be written (%s); blora report %s does it", run_id, error, run_id)
    if timings and timings.get("slots") and began is not None:  # known only now, and nobody waits for it
        ended["timings"] = {**timings, **_besides(timings, began, closing, len(plan.samples))}
        store.replace(run.key("run.json"), plan.run.to_json(**ended))
    return outcome


def _besides(timings: Mapping[str, Any], began: float, closing: float, pictures: int) -> dict[str, float]:
    """The seconds of a run that are no item's: until its slots were at work and between, and for closing it.

    Args:
        timings: what its slots did.
        began: when it was asked for.
        closing: when all items had ended.
        pictures: how many there are to close.
    """
    now, slots = time.monotonic(), max(1, sum(not str(row["slot"]).startswith("scoring") for row in timings["slots"]))
    at_items = sum(timings.get(f"{kind}_seconds", 0.0) for kind in ("train", "sample", "score")) / slots
    return {
        "start_seconds": max(0.0, closing - began - at_items),
        "close_seconds_per_picture": (now - closing) / max(1, pictures),
        "elapsed_seconds": now - began,
    }


def _write_tables(run: RunFolder, plan: Plan, inventory: Inventory, markers: Markers, faults: Sequence[Fault]) -> None:
    if clips := read_clips(run.store, run.run_id):  # first, as the others say that the run has ended
        run.write(CLIPS_FILE, measure_clips(run.store, run.run_id, clips))
    run.write(SAMPLES_FILE, sample_rows(plan, inventory))
    run.write_table(SCORES_FILE, inventory.scores.table)
    run.write(ADAPTERS_FILE, adapter_rows(plan, markers))
    run.write(FAULTS_FILE, [fault_row(fault, run.run_id) for fault in faults])


def _draw_figures(run: RunFolder) -> None:
    """The strips of a run's sweeps and the moving sheet of its clips, where it has such."""
    store, run_id = run.store, run.run_id
    if strips := draw_strips(store, run_id):
        store.replace(run.key("report/strips.png"), strips)
    if clips := read_clips(store, run_id):
        store.replace(run.key("report/clips.gif"), draw_clips(store, clips))


def write_choice(store: Store, plan: Plan, inventory: Inventory) -> list[Choice]:
    """Choose among candidates and write what shows it: the table of the best, and the contact sheet."""
    choices = choose_of(store, plan, inventory)
    write_best(store, plan, choices)
    if inventory.pictures:
        key = RunFolder(store, plan.run.run_id).key("report/contact_sheet.png")
        store.replace(key, draw_sheet(store, plan, choices))
    return choices
