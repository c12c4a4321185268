"""The page of a run: ``runs/<run_id>/report/index.html``, or a copy of it with all that it shows in a folder.

It is written when a run ends, and again by `blora report`; what it says is what the store holds at that moment.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from blora.settings.score_meanings import direction, explained
from manifests import layout
from manifests.store.parallel import in_parallel
from manifests.store.run_folder import RunFolder
from manifests.store.store import Store
from manifests.tables.run import (
    ADAPTERS_FILE,
    BEST_FILE,
    CLIPS_FILE,
    FAULTS_FILE,
    NOTES_FILE,
    PLAN_FILE,
    SAMPLES_FILE,
    SCORES_FILE,
    SLOTS_FILE,
)
from tasks.errors import fault_row
from tasks.report.html import write_page
from tasks.report.run_data import run_columns
from tasks.report.thumbnails import in_pages, write_thumbnails
from tasks.review.best import Choice, choose_of
from tasks.review.decisions import load_marks
from tasks.run.inventory import Inventory, take_inventory
from tasks.run.outcome import read_record, recorded_notes
from tasks.run.plan import Plan, load_plan
from tasks.words import NOT_JUDGED

SCRIPTS = (
    *("common.js", "scores.js", "model.js", "marks.js", "thumbnails.js", "sheet.js"),
    *("toast.js", "filters.js", "views.js", "saving.js", "pair.js", "run.js"),
)
ROWS_SHOWN = 500
SHEETS = ("report/contact_sheet.png", "report/strips.png", "report/clips.gif")
TABLES = (
    PLAN_FILE,
    NOTES_FILE,
    SAMPLES_FILE,
    BEST_FILE,
    SCORES_FILE,
    ADAPTERS_FILE,
    FAULTS_FILE,
    SLOTS_FILE,
    CLIPS_FILE,
)
LINKED = (*SHEETS, *(table.name for table in TABLES), "run.json", "manifest.json")
"""Files of a run that its page links to, those that are there."""
_IN_STORE = "../../../"  # from the page's folder to the store's root
_COPIED = "store/"


@dataclass(frozen=True)
class _Place:
    """Where a page is written, and what it may link to.

    Attributes:
        target: the store, or a folder opened as one.
        prefix: the page's folder within it.
        root: from there to what the page shows.
        adapters: whether adapters lie there.
        pictures: whether pictures in full size lie there.
        store: the root that commands on the page name; empty on a copy, whose reader may have none.
    """

    target: Store
    prefix: str
    root: str
    adapters: bool
    pictures: bool
    store: str = ""

    @property
    def links(self) -> dict[str, Any]:
        """What templates and scripts are told."""
        return {"root": self.root, "adapters": self.adapters, "pictures": self.pictures}


def write_report(
    store: Store, plan: Plan, inventory: Inventory | None = None, choices: Sequence[Choice] | None = None
) -> str:
    """Write the page of a run into the store.

    Args:
        store: the store.
        plan: the run's plan.
        inventory: what the store has of it, where that is known already.
        choices: what was chosen of candidates by that inventory, where that is known already.

    Returns:
        The key of index.html.
    """
    prefix = layout.report_prefix(plan.run.run_id)
    inventory = inventory or take_inventory(store, plan)
    choices = choose_of(store, plan, inventory) if choices is None else choices
    _write(
        store,
        plan,
        inventory,
        choices,
        _Place(store, prefix, _IN_STORE, adapters=True, pictures=True, store=store.root),
    )
    return f"{prefix}index.html"


def copy_report(store: Store, run_id: str, folder: str, *, pictures: bool = True) -> str:
    """Write the page of a run and everything that it shows into a folder, to look at without the store.

    Adapters are left out: they are large, and nobody looks at them.

    Args:
        store: the store.
        run_id: the run.
        folder: where to, here or in a bucket; made if it is not there.
        pictures: also copy the pictures in full size; without them the page shows thumbnails alone.

    Returns:
        The address of index.html.

    Raises:
        RunNotFound: no such run.
    """
    plan = load_plan(store, run_id)
    inventory, target = take_inventory(store, plan), Store.open(folder)
    keys = {layout.image_key(image_id) for adapter in plan.adapters for image_id in adapter.image_ids}
    keys |= {layout.run_key(run_id, name) for name in LINKED}
    if pictures:
        keys |= {sample.key for sample in plan.samples if sample.sample_id in inventory.pictures}

    thumbnails = layout.thumbnails_prefix(run_id)
    places = {key: _COPIED + key for key in sorted(keys)}
    places |= {key: f"thumbnails/{key.removeprefix(thumbnails)}" for key in store.list(thumbnails)}

    def copy(key: str) -> None:
        if (data := store.find(key)) is not None:  # the page names only what is there
            target.replace(places[key], data)

    in_parallel(store, copy, list(places))
    choices = choose_of(store, plan, inventory)
    _write(store, plan, inventory, choices, _Place(target, "", _COPIED, adapters=False, pictures=pictures))
    return f"{target.root}/index.html"


def _write(store: Store, plan: Plan, inventory: Inventory, choices: Sequence[Choice], place: _Place) -> None:
    run_id = plan.run.run_id
    run = RunFolder(store, run_id)
    references = sorted({layout.image_key(image_id) for adapter in plan.adapters for image_id in adapter.image_ids})
    pages = in_pages(references)
    for shard in plan.shards:
        pages += in_pages([sample.key if sample.sample_id in inventory.pictures else None for sample in shard.samples])
    thumbnails = write_thumbnails(store, pages, place.target, f"{place.prefix}thumbnails/")
    faults = _faults(run, plan)
    data = run_columns(plan, inventory, choices, load_marks(store, run_id), references, thumbnails, faults)
    review = f"blora review {run_id} FILE" + (f" --root {shlex.quote(place.store)}" if place.store else "")
    record = read_record(store, run_id)
    written = in_parallel(store, store.exists, [run.key(name) for name in LINKED])
    adapters, notes = run.rows(ADAPTERS_FILE), recorded_notes(store, run_id)
    write_page(
        place.target,
        place.prefix,
        "run.html.j2",
        SCRIPTS,
        data | place.links | {"review": review},
        run=plan.run,
        review=review,
        meanings=[(name, explained(name), direction(name)) for name in (score["name"] for score in data["scores"])],
        written_at=datetime.now(UTC),
        counts={
            "samples": len(plan.samples),
            "done": len(inventory.pictures),
            "chosen": sum(data["samples"]["best"]),
            "adapters": len(plan.adapters),
            "whole": len(inventory.adapters),
            "contents": len(data["contents"]),
            "styles": len(data["styles"]),
        },
        faults=faults[:ROWS_SHOWN],
        faults_left=max(0, len(faults) - ROWS_SHOWN),
        notes=notes[:ROWS_SHOWN],
        notes_left=max(0, len(notes) - ROWS_SHOWN),
        adapters=adapters,
        cost=_cost(record.timings, inventory, adapters),
        passed=record.passed,
        not_judged=NOT_JUDGED,
        settings=_flat(plan.run.settings.model_dump(mode="json")),
        files=[name for name, is_there in zip(LINKED, written, strict=True) if is_there],
        links=place.links,
    )


def _faults(run: RunFolder, plan: Plan) -> list[dict[str, Any]]:
    """The faults as the run last ended; while it has not ended, those found in its manifest."""
    if (table := run.find(FAULTS_FILE)) is None:
        return [fault_row(fault, plan.run.run_id) for fault in plan.run.faults]
    return table.to_pylist()


def _cost(
    timings: Mapping[str, Any], inventory: Inventory, adapters: Sequence[Mapping[str, Any]]
) -> list[tuple[str, str, float, int]]:
    """What the run cost: (what, of how many, seconds on the device, bytes) for each kind of work."""
    bytes_of = {
        "trained": sum(adapter["content_bytes"] + adapter["style_bytes"] for adapter in adapters),
        "drawn": sum(entry.size for entry in inventory.pictures.values()),
        "scored": 0,
    }
    words = (("trained", "train", "adapters"), ("drawn", "sample", "pictures"), ("scored", "score", "pictures"))
    return [
        (done, f"{timings.get(done, 0):.0f} {unit}", float(timings.get(f"{kind}_seconds", 0.0)), bytes_of[done])
        for done, kind, unit in words
    ]


def _flat(nested: dict[str, Any], path: str = "") -> list[tuple[str, str]]:
    """Settings as (dotted name, value)."""
    rows: list[tuple[str, str]] = []
    for name, value in nested.items():
        if isinstance(value, dict):
            rows += _flat(value, f"{path}{name}.")
        else:
            rows.append((path + name, json.dumps(value, ensure_ascii=False)))
    return rows
