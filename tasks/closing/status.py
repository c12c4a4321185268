"""How a run stands, by what the store holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

from manifests import layout
from manifests.errors import Damaged, counted, listed, printable_name
from manifests.faults import Fault
from manifests.store.leases import Held
from manifests.store.parallel import in_parallel
from manifests.store.store import Store
from tasks.environment import lease_seconds
from tasks.run.heartbeat import until
from tasks.run.inventory import Inventory, take_inventory
from tasks.run.outcome import Outcome, find_records, read_record, recorded_faults
from tasks.run.plan import Plan, load_plan

RENEWED_WITHIN = timedelta(hours=1)
"""Leases that were not written for so long are not looked at; they are renewed every minute or so."""

AT_WORK = "at work"
"""State of a run that somebody is at; what was recorded of it says how it was left before that."""


def list_runs(store: Store) -> list[tuple[str, str, str, str]]:
    """Every run: id, state (at work while somebody is), time of creation, outcome; newest first, then damaged ones."""
    live = _live_leases(store)
    rows = [
        (run_id, "damaged", "", str(record))
        if isinstance(record, Damaged)
        else (
            record.run_id,
            AT_WORK if layout.run_lease_key(record.run_id) in live else record.state,
            f"{record.created_at[:19].replace('T', ' ')} UTC",
            record.sentence,
        )
        for run_id, record in find_records(store).items()
    ]
    return sorted(rows, key=lambda row: row[2], reverse=True)


def _live_leases(store: Store) -> dict[str, Held]:
    """Who holds which lease now, by its key; leases that lapsed long ago are not read: thousands of them lie there."""
    earliest = datetime.now(UTC) - RENEWED_WITHIN
    keys = [key for key, entry in store.list(layout.LEASES_PREFIX).items() if entry.modified >= earliest]
    look = partial(store.look_at_lease, usual_seconds=lease_seconds())
    looked = zip(keys, in_parallel(store, look, keys), strict=True)
    return {key: held for key, held in looked if held is not None and held.is_live}


@dataclass(frozen=True)
class Status:
    """All that is asked at three in the morning.

    Attributes:
        state: in which the run was last left: planned, finished or faults; ``at work`` while somebody is.
        outcome: the plan compared with the store now; its faults are those recorded when the run last ended.
        at_work: who is at it now.
        left: what it still lacks.
        logs: where the training log of a failed adapter is, by its id.
        passed: of how many adapters and pictures how many passed when the run last ended; empty where none were judged.
    """

    state: str
    outcome: Outcome
    at_work: tuple[AtWork, ...]
    left: Left
    logs: Mapping[str, str]
    passed: str = ""


def full_status(store: Store, run_id: str) -> Status:
    """What runs, where, since when, what is left, what failed and why, where its log is.

    Raises:
        RunNotFound: no such run.
    """
    plan = load_plan(store, run_id)
    inventory, faults = take_inventory(store, plan), recorded_faults(store, run_id)
    record, who = read_record(store, run_id), tuple(at_work(store, plan))
    outcome, left = Outcome.of(plan, inventory, faults), what_is_left(plan, inventory)
    state = AT_WORK if who else record.state
    return Status(state, outcome, who, left, training_logs(store, plan, faults), record.passed)


@dataclass(frozen=True)
class AtWork:
    """Somebody at work on a run now.

    Attributes:
        what: the run as a whole, a shard on another machine, or the training of one adapter.
        who: machine, process and since when, as the holder of the lease wrote it.
        until: when its lease ends.
    """

    what: str
    who: str
    until: str


def at_work(store: Store, plan: Plan) -> list[AtWork]:
    """Who is working at a run, by the live leases in the store."""
    run_id = plan.run.run_id
    names = {layout.lease_key(adapter.adapter_id): f"training {adapter.name}" for adapter in plan.adapters}
    names[layout.run_lease_key(run_id)] = "the run"
    people: list[AtWork] = []
    for key, held in _live_leases(store).items():
        run, _, who = printable_name(held.holder).partition(": ")
        if key in names:
            people.append(AtWork(names[key] + ("" if run == run_id else f" (for run {run})"), who, until(held)))
        elif run == run_id:
            people.append(AtWork("a shard", who, until(held)))
    return people


@dataclass(frozen=True)
class Left:
    """What a run still lacks.

    Attributes:
        adapters: names of adapters to train.
        pictures: how many are to be drawn.
        scores: how many pictures that are there have no scores.
    """

    adapters: tuple[str, ...]
    pictures: int
    scores: int

    def __str__(self) -> str:
        """Say it in a line."""
        if not (self.adapters or self.pictures or self.scores):
            return "nothing"
        names = listed(self.adapters, 8)
        trainings = f"{counted(len(self.adapters), 'adapter')} to train ({names}), " if self.adapters else ""
        return f"{trainings}{counted(self.pictures, 'picture')} to draw, {self.scores} to score"


def what_is_left(plan: Plan, inventory: Inventory) -> Left:
    """Compare a plan with what the store holds of it."""
    return Left(
        tuple(adapter.name for adapter in plan.adapters if adapter.adapter_id not in inventory.adapters),
        len(plan.samples) - len(inventory.pictures),
        len(inventory.pictures.keys() - inventory.scored),
    )


def training_logs(store: Store, plan: Plan, faults: Sequence[Fault]) -> dict[str, str]:
    """Addresses of the training logs of failed adapters, by the adapter's id, as far as there are any."""
    failed = {fault.item for fault in faults if fault.kind == "train"}
    keys = {
        adapter.adapter_id: layout.training_log_key(plan.run.run_id, pack.pack_id)
        for pack in plan.packs
        for adapter in pack.adapters
        if adapter.adapter_id in failed
    }
    there = in_parallel(store, store.exists, list(keys.values()))
    return {
        adapter_id: f"{store.root}/{key}"
        for (adapter_id, key), is_there in zip(keys.items(), there, strict=True)
        if is_there
    }
