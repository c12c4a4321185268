"""A review taken in: its marks are kept, and what follows from them is written anew."""

from __future__ import annotations

from collections.abc import Sequence

from manifests.store.store import Store
from tasks.closing.collect import write_choice
from tasks.report.run_page import write_report
from tasks.review.decisions import Mark
from tasks.review.redo import record_review
from tasks.run.inventory import take_inventory
from tasks.run.plan import Plan, PlannedSample, load_plan


def take_review(store: Store, plan: Plan, marks: Sequence[Mark]) -> list[PlannedSample]:
    """Keep marks, choose among candidates again, and write the run's page anew.

    Returns:
        The pictures that were added to the plan; `blora rerun` draws them.

    Raises:
        RunRefused: a picture cannot be drawn again; nothing was kept.
    """
    added = record_review(store, plan, marks)
    plan = load_plan(store, plan.run.run_id)
    inventory = take_inventory(store, plan)
    write_report(store, plan, inventory, write_choice(store, plan, inventory))
    return added
