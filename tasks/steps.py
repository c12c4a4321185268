"""The work as Prefect tasks: one task run per pack or shard, never per picture.

Each hands its item to a free slot. Transient failures (a killed slot, a throttled bucket) are retried with growing
delays and jitter; permanent ones are not. What passes in and out is ids, never pictures or tensors, and nothing
relies on Prefect's cache: a repeated task finds its work done in the store.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from prefect import task
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task, exponential_backoff

from tasks import progress
from tasks.faults import is_transient
from tasks.slots import SlotPool

POOL: ContextVar[SlotPool] = ContextVar("POOL")
"""The slots of the running flow; set by the flow, inherited by its task threads."""

RETRIES = 3


def worth_another_try(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> bool:
    """Prefect's retry condition: only transient failures."""
    error = state.data if isinstance(state.data, BaseException) else None
    return error is not None and is_transient(error)


_RETRY: dict[str, Any] = {
    "retries": RETRIES,
    "retry_delay_seconds": exponential_backoff(backoff_factor=1),
    "retry_jitter_factor": 1.0,
    "retry_condition_fn": worth_another_try,
    "persist_result": False,
    "cache_result_in_memory": True,
}


def _in_slot(job: str, payload: dict[str, Any]) -> dict[str, Any]:
    with POOL.get().borrow() as slot:
        return slot.call(job, payload, progress.publish)


@task(name="train", task_run_name="train-{number}: {names}", **_RETRY)
def train_pack(run_id: str, pack_id: str, number: int, names: str, only: list[str] | None = None) -> dict[str, Any]:
    """Make the adapters of a pack exist; see `tasks.train.train_pack`. `number` and `names` are for people."""
    return _in_slot("train_pack", {"run_id": run_id, "pack_id": pack_id, "only": only})


@task(name="generate", task_run_name="generate-{number}: {names}", **_RETRY)
def generate_shard(
    run_id: str, shard_id: str, number: int, names: str, only: list[str] | None = None
) -> dict[str, Any]:
    """Make the pictures of a shard exist; see `tasks.generate.generate_shard`."""
    return _in_slot("generate_shard", {"run_id": run_id, "shard_id": shard_id, "only": only})


@task(name="score", task_run_name="score-{number}: {names}", **_RETRY)
def score_shard(run_id: str, shard_id: str, number: int, names: str) -> dict[str, Any]:
    """Make every picture of a shard have its scores; see `tasks.score.score_shard`."""
    return _in_slot("score_shard", {"run_id": run_id, "shard_id": shard_id})


@task(name="probe", task_run_name="probe-{part}", **_RETRY)
def probe_part(probe_id: str, part: int) -> dict[str, Any]:
    """Make the readings of a part of a block probe exist; see `tasks.probe.probe_part`."""
    return _in_slot("probe_part", {"probe_id": probe_id, "part": part})
