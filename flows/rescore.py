"""One more scorer for a run that has ended: its pictures are read from the store and judged, nothing is drawn again.

1. Find and check the scorers' weights; compare what they have judged with the run's pictures.
2. Judge what is missing, in the slots, in parts that no reader looks at.
3. Publish all rows at once; write tables, page and report again.

Inputs: a run, scorers as `blora.metrics.weights` reads them, and `flows.params.SlotOptions`. Outputs: rows of the
SCORES table in the run's tables and in the data set. Safe to run again at any time: no picture is judged twice by
one version.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.futures import wait
from prefect.states import Completed

from flows.params import SlotOptions
from flows.scheduling.slots import slots
from manifests import layout
from manifests.errors import counted
from manifests.store.store import Store
from tasks import environment, progress
from tasks.closing.added_scores import Rescoring, plan_rescoring, publish_added
from tasks.devices import chosen_devices
from tasks.dispatch import prefect_tasks
from tasks.dispatch.artifacts import publish_artifacts
from tasks.errors import TaskError
from tasks.run.heartbeat import at_work
from tasks.run.plan import load_plan
from tasks.run.which import find_run

SHARE_MOST = 16
"""Shards that one task is given, where there are so many that records of tasks would be the work."""


@flow(name="rescore", flow_run_name="rescore {run_id}", persist_result=False, validate_parameters=True)
def rescore(run_id: str, scorers: tuple[str, ...], options: SlotOptions = SlotOptions()) -> State[Any]:
    """Judge the pictures of a run by further scorers.

    Args:
        run_id: The run: its id, the beginning of one, its manifest's name, or latest.
        scorers: csd, dinov2-small, dinov2-base, dinov2-large, clip-l14 or clip-bigg14, each alone or with its weights,
            such as csd=./csd.safetensors.
        options: Where; every field has a default.
    """
    store = Store.open(options.root or environment.store_root())
    run_id = find_run(store, run_id)
    plan = load_plan(store, run_id)
    asked = plan_rescoring(store, plan, scorers)
    todo = sum(len(some) for rescoring in asked for some in rescoring.missing.values())
    progress.publish({"kind": "work", "id": run_id, "done": {"score": 0}, "total": {"score": todo}})
    with at_work(store, layout.run_lease_key(run_id), run_id):
        if todo:
            _judge(store, run_id, asked, chosen_devices(options.devices))
        outcome = publish_added(store, plan, asked)
    publish_artifacts(store, plan, outcome)
    sentence = f"{counted(todo, 'picture')} judged by {', '.join(one.kind for one in asked)}"
    get_run_logger().info("%s: %s", run_id, sentence)
    counts = {rescoring.kind: sum(len(some) for some in rescoring.missing.values()) for rescoring in asked}
    return Completed(
        message=sentence,
        data={"judged": counts, "versions": {rescoring.kind: rescoring.version for rescoring in asked}},
    )


def _judge(store: Store, run_id: str, asked: Sequence[Rescoring], devices: tuple[str, ...]) -> None:
    """Do what is missing in slots, one scorer after the other, so that a slot holds one at a time.

    Raises:
        TaskError: some of it failed; what was done is kept for the next time.
    """
    failed: list[str] = []
    with slots(store, devices):
        for rescoring in asked:
            shards = list(rescoring.missing)
            size = max(1, min(SHARE_MOST, len(shards) // 250))
            futures = [
                prefect_tasks.rescore_shards.submit(
                    run_id,
                    rescoring.asked,
                    {shard: list(rescoring.missing[shard]) for shard in shards[start : start + size]},
                    start,
                )
                for start in range(0, len(shards), size)
            ]
            wait(futures)
            for future in futures:
                said: Any = future.state.result(raise_on_failure=False)
                if not isinstance(said, prefect_tasks.TaskOutcome):
                    failed.append(f"{rescoring.kind}: {said}")
                elif said.failed:
                    failed.append(f"{rescoring.kind}: {next(iter(said.failed.values())).message}")
    if failed:
        raise TaskError(
            f"{run_id}: {counted(len(failed), 'task')} failed, and no score was published; the first: {failed[0]}. "
            "What was judged is kept: mend the cause, then blora rescore again"
        )
