"""Close a run: compare the plan with the store, gather the tables, write the report.

The store decides what is done. A task that reported success without leaving a picture, or crashed after leaving one,
changes nothing here.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from manifests import layout
from manifests.errors import counted
from manifests.faults import Fault
from manifests.parquet import to_parquet_bytes, to_table
from manifests.store import Store, StoreError
from manifests.tables import ADAPTERS, CLIPS, FAULTS, SAMPLES, SLOTS
from tasks.clips import measure_clips, read_clips
from tasks.compaction import publish_scores
from tasks.faults import fault_row
from tasks.figures.clip_sheet import draw_clips
from tasks.figures.run_sheet import draw_sheet
from tasks.figures.strips import draw_strips
from tasks.parallel import in_parallel
from tasks.quality import Markers, check_columns, check_faults, take_yield
from tasks.report.run_page import write_report
from tasks.review.best import SCORE_COLUMNS, Choice, choose_of, write_best
from tasks.runs import Plan
from tasks.stock import Stock, take_stock

log = logging.getLogger(__name__)

TABLES = ("samples.parquet", "scores.parquet", "adapters.parquet", "faults.parquet")


@dataclass(frozen=True)
class Outcome:
    """How a run stands, by what the store holds.

    Attributes:
        run_id: the run.
        adapters_done: adapters whose marker and halves are there.
        adapters: adapters planned.
        samples_done: pictures that are there.
        samples: pictures planned.
        scored: pictures with scores.
        faults: everything refused or failed, with its reason.
    """

    run_id: str
    adapters_done: int
    adapters: int
    samples_done: int
    samples: int
    scored: int
    faults: tuple[Fault, ...]

    @classmethod
    def of(cls, plan: Plan, stock: Stock, faults: Sequence[Fault]) -> Outcome:
        """Count what is there of what was planned."""
        return cls(
            plan.run.run_id,
            len(stock.adapters),
            len(plan.adapters),
            len(stock.pictures),
            len(plan.samples),
            len(stock.scored & stock.pictures.keys()),
            tuple(faults),
        )

    @property
    def complete(self) -> bool:
        """Whether all that was asked for is there, refused rows included."""
        return self.samples_done == self.samples and self.scored == self.samples and not self.faults

    @property
    def sentence(self) -> str:
        """The outcome in one line, for states, lists and alerts."""
        text = f"{self.samples_done} of {self.samples} pictures, {self.adapters_done} of {self.adapters} adapters"
        return text + (f", {counted(len(self.faults), 'fault')}" if self.faults else "")


def collect(
    store: Store,
    plan: Plan,
    failures: Sequence[Fault] = (),
    timings: dict[str, Any] | None = None,
    stock: Stock | None = None,
) -> Outcome:
    """Write the run's tables and report, and say how it ended; what says so already is left as it is.

    Args:
        store: the store.
        plan: the run's plan.
        failures: what tasks reported, this time or the last; the latest of an item counts, and only if it is missing.
        timings: slot seconds by kind of work, kept in run.json for later estimates; with ``slots``, also a table.
        stock: what the store has of the plan, where that is known and nothing was done.
    """
    run_id = plan.run.run_id
    if stock is not None and _is_told(store, plan, stock):
        return Outcome.of(plan, stock, ())
    stock = stock or take_stock(store, plan)
    markers = _read_markers(store, plan, stock.adapters)
    faults = (*plan.run.faults, *_item_faults(plan, stock, failures), *check_faults(plan, markers))
    names = _names(plan)
    rows = (
        to_table(_sample_rows(plan, stock), SAMPLES),
        stock.scores.table,
        to_table(_adapter_rows(plan, markers), ADAPTERS),
        to_table([fault_row(f, run_id, names.get(f.item, "")) for f in faults], FAULTS),
    )
    tables = dict(zip(TABLES, rows, strict=True))
    if slots := (timings or {}).get("slots"):
        tables["slots.parquet"] = to_table([row | {"run_id": run_id} for row in slots], SLOTS)
    if clips := read_clips(store, run_id):
        tables["clips.parquet"] = to_table(measure_clips(store, run_id, clips), CLIPS)
    for name, table in tables.items():
        store.replace(layout.run_key(run_id, name), to_parquet_bytes(table))
    publish_scores(store, plan.run, stock.scores)
    choices = write_choice(store, plan, stock)
    if strips := draw_strips(store, run_id):
        store.replace(layout.run_key(run_id, "report/strips.png"), strips)
    if clips:
        store.replace(layout.run_key(run_id, "report/clips.gif"), draw_clips(store, clips))
    outcome = Outcome.of(plan, stock, faults)
    ended = {
        "state": "finished" if outcome.complete else "faults",
        "sentence": outcome.sentence,
        "yield": take_yield(plan, markers, stock.scores.rows(*SCORE_COLUMNS), choices).to_json(),
        "ended_at": datetime.now(UTC).isoformat(),
        "timings": timings or _old_timings(store, run_id),
    }
    store.replace(layout.run_key(run_id, "run.json"), plan.run.to_json(**ended))
    try:
        write_report(store, plan, stock, choices)
    except StoreError as error:  # a page is for looking, and no reason for a run to be taken as not ended
        log.warning("%s: its page could not be written (%s); blora report %s does it", run_id, error, run_id)
    return outcome


def _is_told(store: Store, plan: Plan, stock: Stock) -> bool:
    """Whether the run is complete and was closed as such."""
    if plan.run.faults or not Outcome.of(plan, stock, ()).complete:
        return False
    told = all(
        store.exists(layout.run_key(plan.run.run_id, name)) for name in (*TABLES, "best.parquet", "report/index.html")
    )
    body = json.loads(store.read(layout.run_key(plan.run.run_id, "run.json")))
    return told and bool(body["state"] == "finished")


def write_choice(store: Store, plan: Plan, stock: Stock) -> list[Choice]:
    """Choose among candidates and write what shows it: the table of the best, and the contact sheet."""
    choices = choose_of(store, plan, stock)
    write_best(store, plan, choices)
    if stock.pictures:
        store.replace(layout.run_key(plan.run.run_id, "report/contact_sheet.png"), draw_sheet(store, plan, choices))
    return choices


def _item_faults(plan: Plan, stock: Stock, failures: Sequence[Fault]) -> list[Fault]:
    """One fault per adapter that is missing, and per sample that is missing though its adapters are there."""
    reasons = {fault.item: fault for fault in failures}
    faults: list[Fault] = []
    for adapter in plan.adapters:
        if adapter.adapter_id not in stock.adapters:
            faults.append(reasons.get(adapter.adapter_id) or _unexplained("train", adapter.adapter_id, adapter.name))
    for sample in plan.samples:
        name = f"{sample.content_name} x {sample.style_name}, seed {sample.seed}"
        if not sample.adapter_ids <= stock.adapters:
            continue  # its adapter's fault says it all
        if sample.sample_id not in stock.pictures:
            faults.append(reasons.get(sample.sample_id) or _unexplained("sample", sample.sample_id, name))
        elif sample.sample_id not in stock.scored:
            faults.append(reasons.get(sample.sample_id) or _unexplained("score", sample.sample_id, name))
    return faults


def _unexplained(kind: str, item: str, name: str) -> Fault:
    return Fault(
        kind=kind,
        item=item,
        what=f"{name} is missing in the store",
        received="nothing",
        accepted="its object",
        hint="blora rerun does just what is missing",
        transient=True,
    )


def _names(plan: Plan) -> dict[str, str]:
    named = {adapter.adapter_id: adapter.name for adapter in plan.adapters}
    return named | {s.sample_id: f"{s.content_name} x {s.style_name}" for s in plan.samples}


def _sample_rows(plan: Plan, stock: Stock) -> Iterator[dict[str, Any]]:
    width_px, height_px = plan.run.settings.sample.width_px, plan.run.settings.sample.height_px
    for sample in plan.samples:
        entry = stock.pictures.get(sample.sample_id)
        told = sample.columns() | {
            "run_id": plan.run.run_id,
            "key": sample.key,
            "status": "done" if entry else "missing",
            "width_px": width_px if entry else None,
            "height_px": height_px if entry else None,
            "bytes": entry.size if entry else None,
            "drawn_at": entry.modified if entry else None,
        }
        del told["text"]
        yield told


def _read_markers(store: Store, plan: Plan, whole: frozenset[str]) -> Markers:
    there = [adapter.adapter_id for adapter in plan.adapters if adapter.adapter_id in whole]
    read = in_parallel(store, store.read, [layout.adapter_marker_key(adapter_id) for adapter_id in there])
    return {adapter_id: json.loads(data) for adapter_id, data in zip(there, read, strict=True)}


def _adapter_rows(plan: Plan, markers: Markers) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for adapter in plan.adapters:
        if (marker := markers.get(adapter.adapter_id)) is None:
            continue
        known = {name: marker[name] for name in ADAPTERS.names if name in marker} | check_columns(marker)
        # Who trained it first is in the marker; this row says which run uses it, under its own name.
        trained_at = datetime.fromisoformat(marker["trained_at"])
        rows.append(known | {"run_id": plan.run.run_id, "name": adapter.name, "trained_at": trained_at})
    return rows


def _old_timings(store: Store, run_id: str) -> dict[str, Any]:
    return dict(json.loads(store.find(layout.run_key(run_id, "run.json")) or "{}").get("timings") or {})
