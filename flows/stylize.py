"""The product: from a manifest to pictures and a score table.

1. Read the manifest; name every adapter and picture by its content; keep the plan.
2. Train what adapters are missing, pack by pack.
3. Draw each shard as soon as its adapters exist; score each shard as soon as it is drawn.
4. Compare the plan with the store, gather tables and report, and end accordingly.

Inputs: the address of a manifest (or a small one inline) and `flows.params.RunOptions`. Outputs: pictures, Parquet
and a report under ``<root>/runs/<run_id>/``; a table and a markdown artifact. Requires: a store that can be written;
a base model. Cost: what ``blora plan`` says. Safe to run again at any time: what the store has is not made twice.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any
from uuid import UUID

from prefect import flow, get_run_logger, runtime
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows.params import Address, InlineManifest, RunOptions
from flows.prepare import HANDED_OVER, Prepared, opening, prepare, prepare_again
from flows.scheduling.board import Board
from flows.scheduling.pool import Pool
from flows.scheduling.slots import Slots, slots
from manifests import layout
from manifests.errors import Damaged
from manifests.faults import Fault, told
from manifests.notes import told as told_notes
from manifests.store.store import Store
from tasks import environment, progress
from tasks.bases import fetch_fault, lies_here
from tasks.closing.collect import already_closed, close_run
from tasks.devices import chosen_devices
from tasks.dispatch.artifacts import publish_artifacts
from tasks.dispatch.flow_runs import cancel_shards, tell_endings
from tasks.dispatch.work_pool import WorkPool
from tasks.errors import EndedWithFaults
from tasks.planning.make import publish
from tasks.run.heartbeat import at_work, take_over
from tasks.run.inventory import Inventory, take_inventory
from tasks.run.outcome import Outcome, recorded_faults
from tasks.run.plan import Plan
from tasks.run.repair import discard_unreadable
from tasks.run.selection import Selection, given_up, select

FAULTS_LOGGED = 10
"""Lines about faults in the log of a flow run; the report and faults.parquet have all."""


def run_name() -> str:
    """What a person recognises in a list of runs: the manifest's file name, or the run that is taken up again."""
    given = runtime.flow_run.parameters
    if given.get("run_id"):
        return f"rerun {given['run_id']}"
    manifest = given.get("manifest")
    if isinstance(manifest, str):
        return f"stylize {PurePosixPath(manifest).stem}"
    return f"stylize {(manifest.name if isinstance(manifest, InlineManifest) else manifest.get('name')) or 'inline'}"


@flow(name="stylize", flow_run_name=run_name, persist_result=False, on_cancellation=[cancel_shards])
def stylize(manifest: Address | InlineManifest, options: RunOptions = RunOptions()) -> State[Any]:
    """Train, draw and score what a manifest asks for.

    Args:
        manifest: Address of a manifest (a path or s3://...), or a small manifest, written here.
        options: Where and how; every field has a default.
    """
    store = Store.open(options.root or environment.store_root())
    ready = HANDED_OVER.get() or prepare(store, manifest, options)
    assert ready.draft is not None  # of a run that is begun
    for line in told(ready.plan.run.faults):
        get_run_logger().error("%s", line)
    for line in told_notes(ready.draft.notes):
        get_run_logger().info("note: %s", line)
    return _work_off(store, replace(ready, plan=publish(store, ready.draft)), options)


@flow(name="rerun", flow_run_name=run_name, persist_result=False, on_cancellation=[cancel_shards])
def rerun(run_id: str, options: RunOptions = RunOptions()) -> State[Any]:
    """Do what a run still lacks, from its kept plan; the manifest and its pictures are not needed any more.

    Args:
        run_id: The run: its id, the beginning of one, its manifest's name, or latest.
        options: Where; settings and manifest stay as they were planned.
    """
    store = Store.open(options.root or environment.store_root())
    return _work_off(store, HANDED_OVER.get() or prepare_again(store, run_id, options), options)


def _work_off(store: Store, ready: Prepared, options: RunOptions) -> State[Any]:
    log, plan = get_run_logger(), ready.plan
    run_id = plan.run.run_id
    log.info("%s", line := opening(store, ready))
    progress.publish({"kind": "run", "id": run_id, "text": line})
    for line in take_over(store, plan) if options.take_over else ():
        tell(run_id, line)
    try:
        recorded = recorded_faults(store, run_id)
    except Damaged as error:  # closing writes them anew
        log.warning("%s", error)
        recorded = ()
    selection = select(plan, options.only, recorded)
    recorded = tuple(fault for fault in recorded if fault.item != run_id)  # of the whole run: seen anew each time
    if not options.retry_permanent:
        selection = selection.without(given_up(recorded))
    tally = progress.Tally()
    with progress.watching(tally), at_work(store, layout.run_lease_key(run_id), run_id, tally.sentence):
        known = take_inventory(store, plan, ready.held)
        if discarded := discard_unreadable(store, plan, known):
            known = take_inventory(store, plan)
        for line in discarded:
            tell(run_id, line)
        is_open = selection.adapters - known.adapters or selection.samples - known.pictures.keys()
        is_base_needed = options.shards == "here" or lies_here(plan.run.base)
        whole = _base_fault(plan) if is_open and is_base_needed else None
        board = None if whole else _work(store, plan, selection, options, known, ready.pace)
        inventory = known if board is None else board.inventory if board.idle else take_inventory(store, plan)
        if board and board.idle and already_closed(store, plan, inventory):
            outcome = Outcome.of(plan, inventory, ())
        else:  # what was not tried this time keeps the reason it had
            failures = [*recorded, *(board.failures if board else [whole] if whole else [])]
            timings = board.timings if board else None
            outcome = close_run(store, plan, inventory, failures, timings, ready.began)
    publish_artifacts(store, plan, outcome)
    if board and isinstance(board.place, Slots):
        tell_endings(UUID(str(runtime.flow_run.id)), board.place.ends)
    is_told = ready.draft is not None  # what was refused of a manifest, when its run began
    for line in told(f for f in outcome.faults if not (is_told and f in plan.run.faults))[:FAULTS_LOGGED]:
        log.error("%s", line)
    log.log(logging.INFO if outcome.complete else logging.ERROR, "%s: %s", run_id, outcome.sentence)
    return _final_state(outcome)


def tell(run_id: str, line: str) -> None:
    """Tell at once, in the log and on the terminal, what a person should know."""
    get_run_logger().warning("%s", line)
    progress.publish({"kind": "note", "id": run_id, "text": line})


def _base_fault(plan: Plan) -> Fault | None:
    """Have the base brought to this machine, before slots open that would all fail for one reason."""
    run = plan.run
    return fetch_fault(run.base, run.precisions, run.run_id, lambda line: tell(run.run_id, line))


def _work(
    store: Store, plan: Plan, selection: Selection, options: RunOptions, known: Inventory, pace: Mapping[str, float]
) -> Board:
    """Do what is wanted in this machine's slots, or have it done."""
    if options.shards != "here":  # workers that an earlier parent started may have gone on since `known` was taken
        return _work_on_pool(store, plan, selection, options, pace)
    devices = chosen_devices(options.devices)
    with slots(store, devices) as pool:
        board = Board(store, plan, selection, Slots(plan.run.run_id, pool), known, pace)
        board.run()
    return board


def _work_on_pool(
    store: Store, plan: Plan, selection: Selection, options: RunOptions, pace: Mapping[str, float]
) -> Board:
    """Have what is wanted done by the workers of the GPUs."""
    log = get_run_logger()

    def listen(event: progress.Event) -> None:
        if event["kind"] == "note":
            log.warning("%s", event["text"])

    with progress.watching(listen), WorkPool(store, plan.run.run_id, options.queue) as work_pool:
        board = Board(store, plan, selection, Pool(work_pool, options.at_once), pace=pace)
        board.run()
    return board


def _final_state(outcome: Outcome) -> State[Any]:
    """A run with faults ends visibly as such, whatever its tasks said."""
    if outcome.complete:
        return Completed(message=outcome.sentence)
    return Failed(message=outcome.sentence, data=EndedWithFaults(outcome.run_id, outcome.sentence))
