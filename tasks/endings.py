"""That the server learns how the task runs of a flow have ended, also where it lost the news.

A task run's state comes to the server's tables by events: the client sends them, the API passes them on, a service
writes them. What one of these holds in memory when it is killed is gone, and the task run is shown as Running for ever.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, TaskRunFilter, TaskRunFilterState
from prefect.client.schemas.objects import State, StateType, TaskRun

from tasks.kin import GOING_ON, PAGE, paged

log = logging.getLogger(__name__)

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
            for one in lost:
                state: State[None] = State(type=ends.get(one.id, StateType.CRASHED), message=LOST)
                client.set_task_run_state(one.id, state, force=True)
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
