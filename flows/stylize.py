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

from pathlib import PurePosixPath
from typing import Any
from uuid import UUID

from prefect import flow, get_run_logger, runtime
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows.params import InlineManifest, RunOptions
from flows.scheduling.board import Board
from flows.scheduling.pool import Pool
from flows.scheduling.slots import Slots, slots
from manifests import layout
from manifests.errors import Damaged
from manifests.loading.load import Loaded, load_manifest, parse_manifest
from manifests.notes import told
from manifests.store.store import Store
from tasks import environment, progress
from tasks.bases import with_base
from tasks.closing.collect import already_closed, close_run
from tasks.devices import chosen_devices
from tasks.dispatch.artifacts import publish_artifacts
from tasks.dispatch.flow_runs import cancel_shards, tell_endings
from tasks.dispatch.work_pool import WorkPool
from tasks.errors import EndedWithFaults
from tasks.planning.make import make_plan, publish, settings_of
from tasks.run.heartbeat import at_work, take_over
from tasks.run.inventory import Holdings, Inventory, take_inventory
from tasks.run.outcome import Outcome, recorded_faults
from tasks.run.plan import Plan, load_plan
from tasks.run.repair import discard_unreadable
from tasks.run.selection import Selection, given_up, select
from tasks.run.which import find_run


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
def stylize(manifest: str | InlineManifest, options: RunOptions | None = None) -> State[Any]:
    """Train, draw and score what a manifest asks for.

    Args:
        manifest: Address of a manifest (a path or s3://...), or a small manifest inline.
        options: Where and how; every field has a default.
    """
    options = options or RunOptions()
    store = Store.open(options.root or environment.store_root())
    loaded = read_manifest(manifest, options)
    for fault in loaded.faults:
        get_run_logger().error("%s", fault)
    draft = make_plan(
        store,
        loaded,
        settings_of(loaded, options.preset, options.overrides),
        on_fault=options.on_fault,
        devices=options.devices if options.shards == "here" else "",
    )
    for line in told(draft.notes):
        get_run_logger().info("note: %s", line)
    return _work_off(store, publish(store, draft), options, draft.held)


@flow(name="rerun", flow_run_name=run_name, persist_result=False, on_cancellation=[cancel_shards])
def rerun(run_id: str, options: RunOptions | None = None) -> State[Any]:
    """Do what a run still lacks, from its kept plan; the manifest and its pictures are not needed any more.

    Args:
        run_id: The run: its id, the beginning of one, its manifest's name, or latest.
        options: Where; settings and manifest stay as they were planned.
    """
    options = options or RunOptions()
    store = Store.open(options.root or environment.store_root())
    return _work_off(store, load_plan(store, find_run(store, run_id)), options)


def read_manifest(manifest: str | InlineManifest, options: RunOptions) -> Loaded:
    """Read a manifest from its address, or take an inline one."""
    if isinstance(manifest, str):
        loaded = load_manifest(manifest, allowed_roots=options.allowed_roots)
        return with_base(loaded, options.base, options.preset)
    said = manifest.model_dump(mode="json", exclude_unset=True, exclude_none=True)
    loaded = parse_manifest(said, "json", "inline", options.allowed_roots)
    return with_base(loaded, options.base, options.preset)


def _work_off(store: Store, plan: Plan, options: RunOptions, held: Holdings | None = None) -> State[Any]:
    log = get_run_logger()
    log.info("%s: %d adapters, %d pictures", plan.run.run_id, len(plan.adapters), len(plan.samples))
    progress.publish({"kind": "run", "id": plan.run.run_id})
    for line in take_over(store, plan) if options.take_over else ():
        _tell(plan.run.run_id, line)
    try:
        recorded = recorded_faults(store, plan.run.run_id)
    except Damaged as error:  # closing writes them anew
        log.warning("%s", error)
        recorded = ()
    selection = select(plan, options.only, recorded)
    if not options.retry_permanent:
        selection = selection.without(given_up(recorded))
    work = _work_here if options.shards == "here" else _work_on_pool
    with at_work(store, layout.run_lease_key(plan.run.run_id), plan.run.run_id):
        known = take_inventory(store, plan, held)
        if discarded := discard_unreadable(store, plan, known):
            known = take_inventory(store, plan)
        for line in discarded:
            _tell(plan.run.run_id, line)
        board = work(store, plan, selection, options, known)
        inventory = board.inventory if board.idle else take_inventory(store, plan)
        if board.idle and already_closed(store, plan, inventory):
            outcome = Outcome.of(plan, inventory, ())
        else:  # what was not tried this time keeps the reason it had
            outcome = close_run(store, plan, inventory, [*recorded, *board.failures], board.timings)
    publish_artifacts(store, plan, outcome)
    if isinstance(board.place, Slots):
        tell_endings(UUID(str(runtime.flow_run.id)), board.place.ends)
    log.info("%s: %s", plan.run.run_id, outcome.sentence)
    return _final_state(outcome)


def _tell(run_id: str, line: str) -> None:
    """Tell at once, in the log and on the terminal, what a person should know."""
    get_run_logger().warning("%s", line)
    progress.publish({"kind": "note", "id": run_id, "text": line})


def _work_here(store: Store, plan: Plan, selection: Selection, options: RunOptions, known: Inventory) -> Board:
    """Do what is wanted in this machine's slots."""
    devices = chosen_devices(options.devices)
    with slots(store, devices) as pool:
        board = Board(store, plan, selection, Slots(plan.run.run_id, pool), known)
        board.run()
    return board


def _work_on_pool(store: Store, plan: Plan, selection: Selection, options: RunOptions, known: Inventory) -> Board:
    """Have what is wanted done by the workers of the GPUs."""
    with WorkPool(store, plan.run.run_id, options.queue) as work_pool:
        board = Board(store, plan, selection, Pool(work_pool, options.at_once), known)
        board.run()
    return board


def _final_state(outcome: Outcome) -> State[Any]:
    """A run with faults ends visibly as such, whatever its tasks said."""
    if outcome.complete:
        return Completed(message=outcome.sentence)
    return Failed(message=outcome.sentence, data=EndedWithFaults(outcome.run_id, outcome.sentence))
