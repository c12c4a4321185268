"""Night after night: what was dropped into the inbox during the day is worked off, one run for each manifest.

1. Look at ``<root>/inbox/``: which manifests have no finished run, by what they say and not by what they are called.
   One that cannot be read at all is a fault; files of other kinds are ignored and listed.
2. Work them off in the order in which they were dropped. A bad manifest is a fault, and the rest goes on.
3. Keep a record after each; at the end leave a table for the morning, and fail visibly if a person is needed.

Inputs: `flows.params.NightOptions`. Outputs: the runs; ``nights/<night_id>/night.json``; a table and a markdown
artifact. Safe to run again at any time, and twice at once: what is done is not done again, what a killed night left is
taken up by the next, and leases keep two nights from training one adapter.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows.params import NightOptions, RunOptions, WorkOptions
from flows.scheduling.slots import slots
from flows.stylize import stylize
from manifests.errors import reason_of
from manifests.faults import told
from manifests.store.store import Store
from tasks import environment, progress
from tasks.devices import chosen_devices
from tasks.dispatch.artifacts import publish_night
from tasks.dispatch.flow_runs import cancel_shards
from tasks.errors import EndedWithFaults, RunRefused
from tasks.operations.inbox import Dropped, look, look_aside, write_receipt
from tasks.operations.night_record import FAULTS_SHOWN, EntryState, Night, NightEntry, write_night
from tasks.run.outcome import read_record, recorded_faults


def night_name() -> str:
    """What a person recognises in a list of nights."""
    return f"night of {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"


@flow(name="nightly", flow_run_name=night_name, persist_result=False, on_cancellation=[cancel_shards])
def nightly(options: NightOptions = NightOptions()) -> State[Any]:
    """Work off every manifest of the inbox that has no finished run.

    Args:
        options: Where and how; every field has a default.
    """
    store = Store.open(options.root or environment.store_root())
    night = Night.begin()
    log = get_run_logger()
    deadline = time.monotonic() + options.hours * 3600 if options.hours else float("inf")
    with slots(store, chosen_devices(options.devices)):
        others = look_aside(store)
        night = night.ignoring(others.ignored)
        for name, fault in others.unreadable.items():
            log.error("%s", fault)
            night = night.add(NightEntry(name, "refused", "", fault.what, (str(fault),)))
        there = look(store, [options.preset, options.overrides, *([options.base] if options.base else [])])
        for number, dropped in enumerate(there, 1):
            progress.publish({"kind": "manifest", "id": dropped.key, "done": number, "total": len(there)})
            entry = _work_off(store, dropped, options) if time.monotonic() < deadline else _left(dropped)
            log.info("%s: %s: %s", entry.manifest, entry.state, entry.sentence)
            night = night.add(entry)
            write_night(store, night)
    night = night.end()
    write_night(store, night)
    publish_night(store, night)
    if night.failed:
        return Failed(message=night.sentence, data=EndedWithFaults(night.night_id, night.sentence))
    return Completed(message=night.sentence, data={"night_id": night.night_id})


def _left(dropped: Dropped) -> NightEntry:
    if dropped.finished:
        return _known(dropped)
    return NightEntry(dropped.key, "left", sentence="the time of the night was over")


def _known(dropped: Dropped) -> NightEntry:
    assert dropped.receipt is not None  # nothing is finished without one
    return NightEntry(dropped.key, "already finished", dropped.receipt.run_id, dropped.receipt.sentence)


def _work_off(store: Store, dropped: Dropped, options: NightOptions) -> NightEntry:
    """Do one manifest, whatever is wrong with it; only the end of this process ends the night."""
    if dropped.finished:
        return _known(dropped)
    started, log = time.monotonic(), get_run_logger()
    run_ids: list[str] = []

    def listen(event: progress.Event) -> None:
        if event["kind"] == "run":
            run_ids.append(event["id"])
        elif event["kind"] == "note":
            log.warning("%s: %s", dropped.key, event["text"])

    # What failed for good last night fails again tonight, unless a person has changed something and said so.
    shared = {name: getattr(options, name) for name in WorkOptions.model_fields} | {"root": store.root}
    chosen = RunOptions(**shared, retry_permanent=dropped.dropped_again)
    with progress.watching(listen):
        state = stylize(dropped.address, chosen, return_state=True)
    seconds = round(time.monotonic() - started, 1)
    error = state.result(raise_on_failure=False)
    if isinstance(error, RunRefused):
        lines = tuple(told(error.faults)) or (str(error),)
        return NightEntry(dropped.key, "refused", "", str(error), _shorten(lines), seconds)
    if isinstance(error, Exception) and not isinstance(error, EndedWithFaults):
        run_id = run_ids[0] if run_ids else ""
        sentence = reason_of(error)
        return NightEntry(dropped.key, "faults" if run_id else "refused", run_id, sentence, (sentence,), seconds)
    ended = read_record(store, run_ids[0])
    verdict: EntryState = "finished" if ended.complete else "faults"
    write_receipt(store, dropped, ended.run_id, verdict, ended.sentence)
    lines = tuple(told(recorded_faults(store, ended.run_id)))
    sentence = f"{ended.sentence}; {dropped.note}" if dropped.note else ended.sentence
    return NightEntry(dropped.key, verdict, ended.run_id, sentence, _shorten(lines), seconds)


def _shorten(lines: tuple[str, ...]) -> tuple[str, ...]:
    """The first lines, each of a bearable length, and how many there are beyond."""
    beyond = len(lines) - FAULTS_SHOWN
    return (*(line[:500] for line in lines[:FAULTS_SHOWN]), *([f"and {beyond} more"] if beyond > 0 else []))
