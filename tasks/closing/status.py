"""How a run stands, by what the store holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

from manifests import layout
from manifests.errors import Damaged, counted, listed, printable, printable_name
from manifests.faults import Fault
from manifests.store.leases import Held
from manifests.store.parallel import in_parallel
from manifests.store.store import Store
from tasks.environment import lease_seconds
from tasks.errors import RunNotFound
from tasks.run.heartbeat import is_gone, until
from tasks.run.inventory import Inventory, take_inventory
from tasks.run.outcome import Outcome, RunRecord, find_records, read_record, recorded_faults
from tasks.run.plan import Plan, load_plan

RENEWED_WITHIN = timedelta(hours=1)
"""Leases of trainings and shards that were not written for so long are not looked at; they are renewed every minute."""

AT_WORK, INTERRUPTED, INCOMPLETE, FINISHED = "at work", "interrupted", "incomplete", "finished"
"""States of a run: somebody is at it; whoever was last is gone without having ended it; it ended, and lacks something
or has faults; all that was asked for is there."""

_LONGEST_DOING = 200
_RUN_LEASES = layout.run_lease_key("x").removesuffix("x.json")


def list_runs(store: Store) -> list[tuple[str, str, str, str]]:
    """Every run: id, state, time of creation, outcome; newest first, then damaged ones.

    The outcome is what was recorded; of runs that have not ended since, it is counted now.
    """
    leases = _leases(store)
    rows = []
    for run_id, record in find_records(store).items():
        if isinstance(record, Damaged):
            rows.append((run_id, "damaged", "", str(record)))
            continue
        held = leases.get(layout.run_lease_key(run_id))
        state = _state(record, held, is_complete=record.complete)
        is_open = state in (AT_WORK, INTERRUPTED)
        outcome = _counted(store, run_id) if is_open else record.sentence
        told = _doing(held) if state == AT_WORK else ""
        rows.append((run_id, state, record.planned_at, f"{outcome}; {told}" if told else outcome))
    return sorted(rows, key=lambda row: row[2], reverse=True)


def _state(record: RunRecord, held: Held | None, *, is_complete: bool) -> str:
    """How a run stands, by its record and by the lease of whoever was at it last."""
    if held is not None and held.is_live:
        return INTERRUPTED if is_gone(held) else AT_WORK
    # A lease that was neither released nor renewed is a killed process's.
    if record.state == "planned" or (held is not None and held.expires_at > 0):
        return INTERRUPTED
    return FINISHED if is_complete else INCOMPLETE


def _doing(held: Held | None) -> str:
    """What whoever is at a run said last of how far they are."""
    return printable(held.doing)[:_LONGEST_DOING] if held is not None else ""


def _counted(store: Store, run_id: str) -> str:
    """What is there of a run now; that its planning did not end where there is no plan."""
    try:
        plan = load_plan(store, run_id)
        return Outcome.of(plan, take_inventory(store, plan), ()).sentence
    except (RunNotFound, Damaged) as error:
        return str(error)


def _leases(store: Store) -> dict[str, Held]:
    """Who holds or held which lease, by its key: those of runs, and of others those that are or may be live.

    Thousands of others lie there, which lapsed long ago.
    """
    earliest = datetime.now(UTC) - RENEWED_WITHIN
    listing = store.list(layout.LEASES_PREFIX).items()
    keys = [key for key, entry in listing if key.startswith(_RUN_LEASES) or entry.modified >= earliest]
    look = partial(store.look_at_lease, usual_seconds=lease_seconds())
    looked = zip(keys, in_parallel(store, look, keys), strict=True)
    return {key: held for key, held in looked if held is not None}


@dataclass(frozen=True)
class Status:
    """All that is asked at three in the morning.

    Attributes:
        state: at work, interrupted, incomplete or finished, by the store now.
        outcome: the plan compared with the store now; its faults are those recorded when the run last ended.
        at_work: who is at it now.
        doing: how far whoever is at it was when they last said so; empty where nobody is, or has yet.
        left: what it still lacks.
        logs: where the training log of a failed adapter is, by its id.
        passed: of how many adapters and pictures how many passed when the run last ended; empty where none were judged.
    """

    state: str
    outcome: Outcome
    at_work: tuple[AtWork, ...]
    doing: str
    left: Left
    logs: Mapping[str, str]
    passed: str = ""


def full_status(store: Store, run_id: str) -> Status:
    """What runs, where, since when, what is left, what failed and why, where its log is.

    Raises:
        RunNotFound: no such run.
    """
    plan, leases = load_plan(store, run_id), _leases(store)
    inventory, faults = take_inventory(store, plan), recorded_faults(store, run_id)
    record, who = read_record(store, run_id), tuple(_at_work(leases, plan))
    outcome, left = Outcome.of(plan, inventory, faults), what_is_left(plan, inventory)
    held = leases.get(layout.run_lease_key(run_id))
    is_busy = any(one.run_id == run_id for one in who)
    state = AT_WORK if is_busy else _state(record, held, is_complete=outcome.complete)
    return Status(
        state, outcome, who, _doing(held) if is_busy else "", left, training_logs(store, plan, faults), record.passed
    )


@dataclass(frozen=True)
class AtWork:
    """Somebody at work on a run now.

    Attributes:
        what: the run as a whole, a shard on another machine, or the training of one adapter.
        who: machine, process and since when, as the holder of the lease wrote it.
        until: when its lease ends.
        run_id: the run that they do it for.
    """

    what: str
    who: str
    until: str
    run_id: str


def _at_work(leases: Mapping[str, Held], plan: Plan) -> list[AtWork]:
    """Who is working at a run, by live leases whose holders are not known to be dead: in the plan's order, then shards.

    A lease's key has an id of letters and digits, by which nobody would look for a name.
    """
    run_id = plan.run.run_id
    names = {layout.run_lease_key(run_id): "the run"}
    names |= {layout.lease_key(adapter.adapter_id): f"training {adapter.name}" for adapter in plan.adapters}
    people: list[AtWork] = []
    for key in dict.fromkeys((*names, *leases)):
        if (held := leases.get(key)) is None or not held.is_live or is_gone(held):
            continue
        run, _, who = printable_name(held.holder).partition(": ")
        if key in names:
            people.append(AtWork(names[key] + ("" if run == run_id else f" (for run {run})"), who, until(held), run))
        elif run == run_id:
            people.append(AtWork("a shard", who, until(held), run))
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
