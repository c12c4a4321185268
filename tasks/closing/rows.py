"""Rows of the tables that a run leaves: what its plan asks for against what the store holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from manifests.errors import Damaged
from manifests.faults import Fault
from manifests.store.store import Store
from manifests.tables.run import ADAPTERS
from tasks.closing.yields import Markers, check_columns
from tasks.run.inventory import Inventory
from tasks.run.markers import read_markers
from tasks.run.plan import Plan


def item_faults(plan: Plan, inventory: Inventory, failures: Sequence[Fault]) -> list[Fault]:
    """One fault per adapter that is missing, and per sample that is missing though its adapters are there.

    Where the whole run could not go on, its fault stands for all items that have none of their own.
    """
    reasons = {fault.item: fault for fault in failures}
    faults = _reasons_of_items(plan, inventory, reasons)
    if (whole := reasons.get(plan.run.run_id)) is None:
        return faults
    return [*([whole] if faults else ()), *(fault for fault in faults if fault.item in reasons)]


def _reasons_of_items(plan: Plan, inventory: Inventory, reasons: Mapping[str, Fault]) -> list[Fault]:
    faults: list[Fault] = []
    for adapter in plan.adapters:
        if adapter.adapter_id not in inventory.adapters:
            faults.append(reasons.get(adapter.adapter_id) or _unexplained("train", adapter.adapter_id, adapter.name))
    for sample in plan.samples:
        name = f"{sample.content_name} x {sample.style_name}, seed {sample.seed}"
        if not sample.adapter_ids <= inventory.adapters:
            continue  # its adapter's fault says it all
        if sample.sample_id not in inventory.pictures:
            faults.append(reasons.get(sample.sample_id) or _unexplained("sample", sample.sample_id, name))
        elif sample.sample_id not in inventory.scored:
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


def named(plan: Plan, faults: Iterable[Fault]) -> tuple[Fault, ...]:
    """Faults with what people call the adapters and pictures of a plan."""
    names = {adapter.adapter_id: adapter.name for adapter in plan.adapters}
    names |= {s.sample_id: f"{s.content_name} x {s.style_name}" for s in plan.samples}
    return tuple(replace(fault, name=names.get(fault.item, "")) for fault in faults)


def sample_rows(plan: Plan, inventory: Inventory) -> Iterator[dict[str, Any]]:
    """Rows of the table SAMPLES."""
    width_px, height_px = plan.run.settings.sample.width_px, plan.run.settings.sample.height_px
    for sample in plan.samples:
        entry = inventory.pictures.get(sample.sample_id)
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


def sound_markers(store: Store, plan: Plan, whole: frozenset[str]) -> tuple[Markers, list[Fault]]:
    """The markers of a plan's adapters by adapter_id, and a fault for each that cannot be read.

    Args:
        store: the store.
        plan: the run's plan.
        whole: ids of the adapters that are there.
    """
    there = {adapter.adapter_id: adapter for adapter in plan.adapters if adapter.adapter_id in whole}
    read = read_markers(store, list(there))
    faults = [
        Fault(
            "train", error.what, error.received, "what its training wrote", error.hint, item=adapter_id, transient=True
        )
        for adapter_id, error in read.items()
        if isinstance(error, Damaged)
    ]
    return {name: marker for name, marker in read.items() if not isinstance(marker, Damaged)}, faults


def adapter_rows(plan: Plan, markers: Markers) -> list[dict[str, Any]]:
    """Rows of the table ADAPTERS."""
    rows: list[dict[str, Any]] = []
    for adapter in plan.adapters:
        if (marker := markers.get(adapter.adapter_id)) is None:
            continue
        known = {name: marker[name] for name in ADAPTERS.names if name in marker} | check_columns(marker)
        # Who trained it first is in the marker; this row says which run uses it, under its own name.
        trained_at = datetime.fromisoformat(marker["trained_at"])
        own = {"name": adapter.name, "source_file": adapter.source_file or None}
        rows.append(known | own | {"run_id": plan.run.run_id, "trained_at": trained_at})
    return rows
