"""The work as Prefect tasks: one task run for a pack or shard, for several where a run is large, never for a picture.

Each hands its items to a free slot. Transient failures (a killed slot, a throttled bucket) are retried with growing
delays and jitter; permanent ones are not. What passes in and out is ids, never pictures or tensors, and nothing
relies on Prefect's cache: a repeated task finds its work done in the store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from prefect import runtime, task
from prefect.client.schemas.objects import State, TaskRun
from prefect.states import Failed
from prefect.tasks import Task, exponential_backoff

from tasks import progress
from tasks.dispatch.slots import SlotPool
from tasks.errors import is_transient, may_pass
from tasks.messages import (
    DrawMethod,
    GenerateShard,
    Job,
    JobAnswer,
    ProbePart,
    RescoreShard,
    ScoreShard,
    TrainMethod,
    TrainPack,
)

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


@dataclass(frozen=True)
class ItemError:
    """Why an item of a task failed.

    Attributes:
        message: what went wrong.
        may_pass: whether it deserves another try some other time.
    """

    message: str
    may_pass: bool


@dataclass(frozen=True)
class TaskOutcome:
    """What became of a task's items.

    Attributes:
        answers: by the name of a slot, its answers as one, those of an earlier try of the same task included.
        failed: items that failed, by their ids.
    """

    answers: Mapping[str, JobAnswer]
    failed: Mapping[str, ItemError] = field(default_factory=dict)


def _in_slot(jobs: Mapping[str, Job], *, beside: bool = False) -> TaskOutcome | State[TaskOutcome]:
    """Do jobs one after the other in one slot; one that fails for good does not keep the others from it.

    Args:
        jobs: by the item's id; all of one kind.
        beside: whether a slot beside the GPUs will do, where there is one.

    Returns:
        The outcome; in a failed state, if not all went well.
    """
    failed: dict[str, ItemError] = {}
    pool, task_run_id = POOL.get(), str(runtime.task_run.id)
    # A retry asks for all items again; what those that an earlier try finished have cost is known here alone.
    answers = pool.unclaimed.pop(task_run_id, {})
    with pool.borrow(beside=beside) as slot:
        for item, job in jobs.items():
            try:
                answers.setdefault(slot.name, []).append(slot.call(job, progress.publish))
            except Exception as error:
                if is_transient(error) and _has_tries_left():
                    pool.unclaimed[task_run_id] = answers
                    raise
                if len(jobs) == 1:
                    raise
                failed[item] = ItemError(str(error), may_pass(error))
    outcome = TaskOutcome({name: _merged(some) for name, some in answers.items() if some}, failed)
    if not failed:
        return outcome
    return Failed(message=f"{len(failed)} of {len(jobs)} items failed", data=outcome)


def _has_tries_left() -> bool:
    """Whether the task run that this is part of would be tried again."""
    return int(runtime.task_run.run_count or 0) <= RETRIES


def _merged(answers: Sequence[JobAnswer]) -> JobAnswer:
    """Answers of one kind as one: what they list one after the other, seconds added."""
    first, *others = answers
    for other in others:
        sums = {name: value + getattr(other, name) for name, value in vars(first).items()}
        first = replace(first, **sums)
    return first


@task(name="train", task_run_name="train-{number}: {names}", **_RETRY)
def train_packs(
    run_id: str, pack_ids: list[str], number: int, names: str, only: tuple[str, ...] | None = None
) -> TaskOutcome | State[TaskOutcome]:
    """Make the adapters of packs exist; see `tasks.worker.train.train_pack`. `number` and `names` are for people."""
    return _in_slot({pack_id: TrainPack(run_id, pack_id, only) for pack_id in pack_ids})


@task(name="generate", task_run_name="generate-{number}: {names}", **_RETRY)
def generate_shards(
    run_id: str, shard_ids: list[str], number: int, names: str, only: tuple[str, ...] | None = None
) -> TaskOutcome | State[TaskOutcome]:
    """Make the pictures of shards exist; see `tasks.worker.generate.generate_shard`."""
    return _in_slot({shard_id: GenerateShard(run_id, shard_id, only) for shard_id in shard_ids})


@task(name="score", task_run_name="score-{number}: {names}", **_RETRY)
def score_shards(run_id: str, shard_ids: list[str], number: int, names: str) -> TaskOutcome | State[TaskOutcome]:
    """Make every picture of shards have its scores; see `tasks.worker.score.score_shard`."""
    return _in_slot({shard_id: ScoreShard(run_id, shard_id) for shard_id in shard_ids}, beside=True)


@task(name="rescore", task_run_name="rescore-{number}: {scorer}", **_RETRY)
def rescore_shards(
    run_id: str, scorer: str, only: dict[str, list[str]], number: int
) -> TaskOutcome | State[TaskOutcome]:
    """Judge pictures of shards by one more scorer; see `tasks.worker.rescore`. `only` names them by shard."""
    return _in_slot({shard_id: RescoreShard(run_id, shard_id, scorer, tuple(only[shard_id])) for shard_id in only})


@task(name="method", task_run_name="{method}-{number}: {job}", **_RETRY)
def method_items(
    run_id: str, method: str, job: Literal["train_method", "draw_method"], items: list[str], number: int
) -> TaskOutcome | State[TaskOutcome]:
    """Train packs or draw shards of a run in the way of another method; see `tasks.worker.methods`."""
    message = TrainMethod if job == "train_method" else DrawMethod
    return _in_slot({item: message(run_id, method, item) for item in items})


@task(name="probe", task_run_name="probe-{part}", **_RETRY)
def probe_part(probe_id: str, part: int) -> TaskOutcome | State[TaskOutcome]:
    """Make the readings of a part of a block probe exist; see `tasks.worker.probe.probe_part`."""
    return _in_slot({str(part): ProbePart(probe_id, part)})
