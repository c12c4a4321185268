"""Which flow runs belong to a run: its parents and its shards carry a tag of it, by which the server finds them.

A parent that is cancelled takes its shards with it (`cancel_shards`, a hook of the flows that hand shards over). One
that dies leaves them going on, since whoever takes up the run adopts them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterTags,
    TaskRunFilter,
    TaskRunFilterState,
)
from prefect.client.schemas.objects import FlowRun, State, StateType, TaskRun
from prefect.flows import Flow
from prefect.states import Cancelling

from manifests import ids

Item = TypeVar("Item")

log = logging.getLogger(__name__)

PAGE = 200  # flow runs, or task runs, that the server gives at once
SHARD_TAG = "blora-shard"
"""Of the deployment of shards, and so of its flow runs."""

GOING_ON = (StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING, StateType.PAUSED)
_TAG = "run:"


def run_tag(store_root: str, run_id: str) -> str:
    """The tag of a run's flow runs; the same run in another store, on the same server, has another one."""
    return f"{_TAG}{run_id}@{ids.digest(store_root)[:8]}"


def shards_of(client: SyncPrefectClient, tag: str, *, going_on: bool = False) -> list[FlowRun]:
    """The flow runs on the work pool for a run, newest first; all, or those that have not ended and are to go on."""
    state = FlowRunFilterState.model_validate({"type": {"any_": GOING_ON}}) if going_on else None
    wanted = FlowRunFilter(tags=FlowRunFilterTags(all_=[tag, SHARD_TAG]), state=state)
    flow_runs = paged(lambda offset: list(client.read_flow_runs(flow_run_filter=wanted, limit=PAGE, offset=offset)))
    return sorted(flow_runs, key=lambda flow_run: str(flow_run.created), reverse=True)


def paged(read: Callable[[int], list[Item]]) -> list[Item]:
    """All that the server has, read `PAGE` at a time from an offset on."""
    items: list[Item] = []
    while page := read(len(items)):
        items += page
        if len(page) < PAGE:
            break
    return items


def mark_parent(client: SyncPrefectClient, flow_run_id: UUID, tag: str) -> None:
    """Give a flow run the tag of a run whose shards it hands over."""
    known = client.read_flow_run(flow_run_id).tags
    if tag not in known:
        client.update_flow_run(flow_run_id, tags=[*known, tag])


def cancel_shards(flow: Flow[Any, Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Prefect's hook for a cancelled flow: end the shards that it has handed over, of every run that it worked at."""
    with get_client(sync_client=True) as client:
        # Read anew: what a hook is given is as old as the flow run's start.
        (parent,) = client.read_flow_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[flow_run.id])))
        for tag in parent.tags:
            if tag.startswith(_TAG):
                for shard in shards_of(client, tag, going_on=True):
                    log.warning("%s was cancelled: its shard %s is cancelled, too", parent.name, shard.name)
                    client.set_flow_run_state(shard.id, Cancelling(message=f"{parent.name} was cancelled"))


PATIENCE_SECONDS = 10.0
"""How long no news may come in until it is taken to be lost; a service writes what it gets every second or so."""

LOST = "told by its flow when that ended: the server had lost the news"


def tell_endings(flow_run_id: UUID, ends: Mapping[UUID, StateType], patience_seconds: float = PATIENCE_SECONDS) -> int:
    """Wait until the server shows no task run of a flow as going on, and end those of which no news comes.

    A server that does not answer is told nothing, and is no reason for the flow to fail.

    Args:
        flow_run_id: a flow run none of whose task runs goes on.
        ends: how those of this process ended; others were cut off with a process that came before.
        patience_seconds: how long no news may come in.

    Returns:
        How many were ended here.
    """
    try:
        with get_client(sync_client=True) as client:
            lost = _without_news(client, flow_run_id, patience_seconds)
            for task_run in lost:
                state: State[None] = State(type=ends.get(task_run.id, StateType.CRASHED), message=LOST)
                client.set_task_run_state(task_run.id, state, force=True)
    except Exception as error:  # whatever a client makes of a server that is down
        log.warning("how the task runs of flow run %s ended could not be told: %s", flow_run_id, error)
        return 0
    return len(lost)


def _without_news(client: SyncPrefectClient, flow_run_id: UUID, patience_seconds: float) -> list[TaskRun]:
    """Those that the server shows as going on once their number has not fallen for so long."""
    fewest, since = None, time.monotonic()
    while True:
        going_on = _going_on(client, flow_run_id)
        if fewest is None or len(going_on) < fewest:
            fewest, since = len(going_on), time.monotonic()
        if not going_on or time.monotonic() - since >= patience_seconds:
            return going_on
        time.sleep(0.5)


def _going_on(client: SyncPrefectClient, flow_run_id: UUID) -> list[TaskRun]:
    of_flow = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id]))
    state = TaskRunFilter(state=TaskRunFilterState.model_validate({"type": {"any_": GOING_ON}}))
    return paged(
        lambda offset: client.read_task_runs(flow_run_filter=of_flow, task_run_filter=state, limit=PAGE, offset=offset)
    )
