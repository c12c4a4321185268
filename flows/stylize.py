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

from prefect import flow, get_run_logger, runtime
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows.params import RunOptions
from flows.scheduling import work_off
from manifests.schema import Loaded, load_manifest, parse_manifest
from manifests.store import Store
from tasks import environment, progress
from tasks.artifacts import publish_artifacts
from tasks.collect import Outcome, collect
from tasks.plan import make_plan, publish
from tasks.runs import Plan, load_plan


def run_name() -> str:
    """What a person recognises in a list of runs: the manifest's file name, or the run that is taken up again."""
    given = runtime.flow_run.parameters
    if given.get("run_id"):
        return f"rerun {given['run_id']}"
    manifest = given.get("manifest")
    name = manifest.get("name", "inline") if isinstance(manifest, dict) else PurePosixPath(str(manifest)).stem
    return f"stylize {name}"


@flow(name="stylize", flow_run_name=run_name, persist_result=False, validate_parameters=True)
def stylize(manifest: str | dict[str, Any], options: RunOptions | None = None) -> State[Any]:
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
    draft = make_plan(store, loaded, preset=options.preset, overrides=options.overrides, on_fault=options.on_fault)
    assert loaded.manifest is not None  # make_plan refused it otherwise
    return _work_off(store, publish(store, draft, loaded.manifest), options)


@flow(name="rerun", flow_run_name=run_name, persist_result=False, validate_parameters=True)
def rerun(run_id: str, options: RunOptions | None = None) -> State[Any]:
    """Do what a run still lacks, from its kept plan; the manifest and its pictures are not needed any more.

    Args:
        run_id: The run, as `blora status` lists it.
        options: Where; settings and manifest stay as they were planned.
    """
    options = options or RunOptions()
    store = Store.open(options.root or environment.store_root())
    return _work_off(store, load_plan(store, run_id), options)


def read_manifest(manifest: str | dict[str, Any], options: RunOptions) -> Loaded:
    """Read a manifest from its address, or take an inline one."""
    if isinstance(manifest, str):
        return load_manifest(manifest, allowed_roots=options.allowed_roots)
    return parse_manifest(manifest, "json", "inline", options.allowed_roots)


def _work_off(store: Store, plan: Plan, options: RunOptions) -> State[Any]:
    log = get_run_logger()
    devices = environment.devices(options.devices)
    log.info(
        "%s: %d adapters, %d pictures, slots %s",
        plan.run.run_id,
        len(plan.adapters),
        len(plan.samples),
        ", ".join(devices),
    )
    progress.publish({"kind": "run", "id": plan.run.run_id, "done": 0, "total": len(plan.samples)})
    failures, timings = work_off(store, plan, devices)
    outcome = collect(store, plan, failures, timings)
    publish_artifacts(store, plan, outcome)
    log.info("%s: %s", plan.run.run_id, outcome.sentence)
    return _final_state(outcome)


def _final_state(outcome: Outcome) -> State[Any]:
    """A run with faults ends visibly as such, whatever its tasks said."""
    data = {"run_id": outcome.run_id, "sentence": outcome.sentence}
    if outcome.complete:
        return Completed(message=outcome.sentence, data=data)
    return Failed(message=outcome.sentence, data=data)
