"""Close a run: compare the plan with the store, gather the tables, write the report.

The store decides what is done. A task that reported success without leaving a picture, or crashed after leaving one,
changes nothing here.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from manifests import layout
from manifests.errors import StoreError
from manifests.faults import Fault
from manifests.store.store import Store
from manifests.tables.parquet import to_parquet_bytes, to_table
from manifests.tables.run import ADAPTERS, CLIPS, FAULTS, SAMPLES, SLOTS
from tasks.closing.rows import adapter_rows, item_faults, item_names, read_markers, sample_rows
from tasks.closing.yields import Markers, check_faults, take_yield
from tasks.errors import fault_row
from tasks.figures.clip_sheet import draw_clips
from tasks.figures.run_sheet import draw_sheet
from tasks.figures.strips import draw_strips
from tasks.planning.clips import measure_clips, read_clips
from tasks.report.run_page import write_report
from tasks.review.best import SCORE_COLUMNS, Choice, choose_of, write_best
from tasks.run.inventory import Stock
from tasks.run.outcome import Outcome, read_record
from tasks.run.plan import Plan
from tasks.run.scores import publish_scores

log = logging.getLogger(__name__)

TABLES = ("samples.parquet", "scores.parquet", "adapters.parquet", "faults.parquet")


def already_closed(store: Store, plan: Plan, stock: Stock) -> bool:
    """Whether a run is complete and was closed as such, so that closing it again would say the same.

    Args:
        store: the store.
        plan: the run's plan.
        stock: what the store has of it, where nothing has been done since the run was last closed.
    """
    if plan.run.faults or not Outcome.of(plan, stock, ()).complete:
        return False
    names = (*TABLES, "best.parquet", "report/index.html")
    written = all(store.exists(layout.run_key(plan.run.run_id, name)) for name in names)
    return written and read_record(store, plan.run.run_id).complete


def close_run(
    store: Store,
    plan: Plan,
    stock: Stock,
    failures: Sequence[Fault] = (),
    timings: Mapping[str, Any] | None = None,
) -> Outcome:
    """Write the run's tables and report, and say how it ended.

    Args:
        store: the store.
        plan: the run's plan.
        stock: what the store has of it now.
        failures: what tasks reported, this time or the last; the latest of an item counts, and only if it is missing.
        timings: slot seconds by kind of work, kept in run.json for later estimates; with ``slots``, also a table.
            Where nothing was done those of the last time stay.
    """
    run_id = plan.run.run_id
    markers = read_markers(store, plan, stock.adapters)
    faults = (*plan.run.faults, *item_faults(plan, stock, failures), *check_faults(plan, markers))
    _write_tables(store, plan, stock, markers, faults)
    if slots := (timings or {}).get("slots"):
        table = to_table([{**row, "run_id": run_id} for row in slots], SLOTS)
        store.replace(layout.run_key(run_id, "slots.parquet"), to_parquet_bytes(table))
    publish_scores(store, plan.run, stock.scores)
    choices = write_choice(store, plan, stock)
    _draw_figures(store, run_id)
    outcome = Outcome.of(plan, stock, faults)
    ended = {
        "state": "finished" if outcome.complete else "faults",
        "sentence": outcome.sentence,
        "yield": take_yield(plan, markers, stock.scores.rows(*SCORE_COLUMNS), choices).to_json(),
        "ended_at": datetime.now(UTC).isoformat(),
        "timings": dict(timings or read_record(store, run_id).timings),
    }
    store.replace(layout.run_key(run_id, "run.json"), plan.run.to_json(**ended))
    try:
        write_report(store, plan, stock, choices)
    except StoreError as error:  # a page is for looking, and no reason for a run to be taken as not ended
        log.warning("%s: its page could not be written (%s); blora report %s does it", run_id, error, run_id)
    return outcome


def _write_tables(
    store: Store,
    plan: Plan,
    stock: Stock,
    markers: Markers,
    faults: Sequence[Fault],
) -> None:
    run_id, names = plan.run.run_id, item_names(plan)
    rows = (
        to_table(sample_rows(plan, stock), SAMPLES),
        stock.scores.table,
        to_table(adapter_rows(plan, markers), ADAPTERS),
        to_table([fault_row(fault, run_id, names.get(fault.item, "")) for fault in faults], FAULTS),
    )
    tables = dict(zip(TABLES, rows, strict=True))
    if clips := read_clips(store, run_id):
        tables["clips.parquet"] = to_table(measure_clips(store, run_id, clips), CLIPS)
    for name, table in tables.items():
        store.replace(layout.run_key(run_id, name), to_parquet_bytes(table))


def _draw_figures(store: Store, run_id: str) -> None:
    """The strips of a run's sweeps and the moving sheet of its clips, where it has such."""
    if strips := draw_strips(store, run_id):
        store.replace(layout.run_key(run_id, "report/strips.png"), strips)
    if clips := read_clips(store, run_id):
        store.replace(layout.run_key(run_id, "report/clips.gif"), draw_clips(store, clips))


def write_choice(store: Store, plan: Plan, stock: Stock) -> list[Choice]:
    """Choose among candidates and write what shows it: the table of the best, and the contact sheet."""
    choices = choose_of(store, plan, stock)
    write_best(store, plan, choices)
    if stock.pictures:
        store.replace(layout.run_key(plan.run.run_id, "report/contact_sheet.png"), draw_sheet(store, plan, choices))
    return choices
