"""The server's picture of task runs whose news it lost, on a real server."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID, uuid4

import pytest
from prefect import flow, task
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import StateType, TaskRun
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Completed, Failed, Pending, Running

from tasks.dispatch.flow_runs import LOST, tell_endings

pytestmark = pytest.mark.usefixtures("prefect_api")


@flow(name="cut-off")
def cut_off() -> None:
    """Something that task runs can belong to."""


@task(name="some-item")
def some_item() -> None:
    """Something whose task runs are made by hand."""


@pytest.fixture
def client(prefect_api: str) -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as one:
        yield one


def started(client: SyncPrefectClient, flow_run_id: UUID, state: object) -> UUID:
    made: TaskRun = client.create_task_run(some_item, flow_run_id, dynamic_key=str(uuid4()), state=state)  # type: ignore[arg-type]
    return made.id


def test_task_runs_whose_news_were_lost_end_as_they_ended(client: SyncPrefectClient) -> None:
    flow_run_id, other_id = (client.create_flow_run(cut_off).id for _ in range(2))
    done, failed = (started(client, flow_run_id, Running()) for _ in range(2))
    of_a_killed_process = started(client, flow_run_id, Pending())
    known = [started(client, flow_run_id, state) for state in (Completed(message="mine"), Failed(message="mine"))]
    of_another_flow = started(client, other_id, Running())
    ends = {done: StateType.COMPLETED, failed: StateType.FAILED, known[0]: StateType.COMPLETED}
    assert tell_endings(flow_run_id, ends, patience_seconds=0.6) == 3
    found = {one.id: one.state for one in client.read_task_runs()}
    said = {task_run_id: (state.type, state.message) for task_run_id, state in found.items() if state}
    assert said[done] == (StateType.COMPLETED, LOST)
    assert said[failed] == (StateType.FAILED, LOST)
    assert said[of_a_killed_process] == (StateType.CRASHED, LOST)
    assert [said[one] for one in known] == [(StateType.COMPLETED, "mine"), (StateType.FAILED, "mine")]
    assert said[of_another_flow][0] == StateType.RUNNING
    assert tell_endings(flow_run_id, ends, patience_seconds=0.6) == 0


def test_news_that_come_late_are_waited_for(client: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as the number falls nothing is taken to be lost."""
    flow_run_id = client.create_flow_run(cut_off).id
    late = [started(client, flow_run_id, Running()) for _ in range(3)]

    def news(seconds: float) -> None:
        client.set_task_run_state(late.pop(), Completed(message="news"), force=True)

    monkeypatch.setattr("tasks.dispatch.flow_runs.time.sleep", news)
    assert tell_endings(flow_run_id, {}, patience_seconds=5) == 0
    assert late == []


def test_a_server_that_is_down_fails_nothing() -> None:
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        assert tell_endings(uuid4(), {}, patience_seconds=0) == 0
