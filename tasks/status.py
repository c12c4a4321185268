"""How a run stands, by what the store holds."""

from __future__ import annotations

import json
from typing import Any

from manifests import layout
from manifests.faults import Fault
from manifests.store import Missing, Store
from manifests.tables import FAULTS, from_parquet_bytes
from tasks.collect import Outcome
from tasks.runs import load_plan
from tasks.stock import take_stock


def list_runs(store: Store) -> list[tuple[str, str, str, str]]:
    """Every run: id, state, time of creation, outcome; newest first."""
    rows: list[tuple[str, str, str, str]] = []
    for key in store.list(layout.RUNS_PREFIX):
        if key.endswith("/run.json"):
            body = json.loads(store.read(key))
            rows.append((body["run_id"], body["state"], body["created_at"][:19], body.get("sentence", "")))
    return sorted(rows, key=lambda row: row[2], reverse=True)


def run_status(store: Store, run_id: str) -> tuple[str, Outcome]:
    """The state in which a run was last left, and its plan compared with the store now.

    The faults are those recorded when it last ended.

    Raises:
        RunNotFound: no such run.
    """
    plan = load_plan(store, run_id)
    state = json.loads(store.read(layout.run_key(run_id, "run.json")))["state"]
    return state, Outcome.of(plan, take_stock(store, plan), recorded_faults(store, run_id))


def recorded_faults(store: Store, run_id: str) -> tuple[Fault, ...]:
    """The faults of a run as it last ended; none if it has not ended yet."""
    try:
        table = from_parquet_bytes(store.read(layout.run_key(run_id, "faults.parquet")), FAULTS)
    except Missing:
        return ()
    columns = Fault.__dataclass_fields__
    rows: list[dict[str, Any]] = table.to_pylist()
    return tuple(Fault(**{name: row[name] for name in columns}) for row in rows)
