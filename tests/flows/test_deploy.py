"""`blora deploy` against a real server: what it makes, that it may be run again, and that both automations fire."""

from __future__ import annotations

import json
import os
import queue
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentUpdate
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterDeploymentId, FlowRunFilterState
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.schedules import CronSchedule
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Failed

from tests.processes import wait_for
from tests.servers import PrefectServer, Worker, webhook_receiver

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

TOKEN = "?token=not-to-be-seen"


def deploy(server: PrefectServer, root: str, webhook: str = "", *arguments: str) -> str:
    """Run the command; what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "deploy", "--root", root, "--timezone", "Europe/London", *arguments],
        env={**os.environ, **server.environment(), "BLORA_WEBHOOK_URL": webhook, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "not-to-be-seen" not in done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def deployed(
    prefect_server: PrefectServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[PrefectServer, queue.SimpleQueue[str], str, str]]:
    """A server to which was deployed, the webhook's messages, the root, and what the command printed."""
    root = str(tmp_path_factory.mktemp("deployed") / "store")
    with webhook_receiver() as (address, messages):
        printed = deploy(prefect_server, root, address + TOKEN, "--zombie-seconds", "60")
        again = deploy(prefect_server, root, address + TOKEN, "--zombie-seconds", "60")
        changed = {line for line in again.splitlines() if not line.endswith("as it was")}
        assert {line.split()[0] for line in changed} == {"deployments"}, again
        yield prefect_server, messages, root, printed


@pytest.fixture
def client(deployed: tuple[PrefectServer, Any, str, str]) -> Iterator[SyncPrefectClient]:
    with temporary_settings({PREFECT_API_URL: deployed[0].api_url}), get_client(sync_client=True) as one:
        yield one


def test_pools_queues_and_deployments_are_there(
    deployed: tuple[PrefectServer, Any, str, str], client: SyncPrefectClient
) -> None:
    for pool in ("blora-control", "blora-gpu"):
        assert client.read_work_pool(pool).type == "process"
        first = client.read_work_queue_by_name("on-demand", work_pool_name=pool)
        second = client.read_work_queue_by_name("nightly", work_pool_name=pool)
        assert first.priority is not None and second.priority is not None and first.priority < second.priority
    nightly = client.read_deployment_by_name("nightly/nightly")
    assert nightly.global_concurrency_limit is not None and nightly.global_concurrency_limit.limit == 1
    (schedule,) = nightly.schedules
    assert schedule.active
    assert (schedule.schedule.cron, schedule.schedule.timezone) == ("0 2 * * *", "Europe/London")  # type: ignore[union-attr]
    assert nightly.parameters == {"options": {"root": deployed[2], "shards": "pool", "queue": "nightly"}}
    for name in (
        "stylize/stylize",
        "rerun/rerun",
        "shard/shard",
        "rescore/rescore",
        "compare-methods/compare-methods",
        "analyze/probe",
    ):
        deployment = client.read_deployment_by_name(name)
        assert "blora" in deployment.tags
        assert ("blora-entry" in deployment.tags) == (name != "shard/shard")


def test_the_server_schedules_the_nights(client: SyncPrefectClient) -> None:
    """Prefect's scheduler is a service of its own, which fails without anybody being told."""
    nightly = client.read_deployment_by_name("nightly/nightly")

    def scheduled() -> list[Any]:
        ours = FlowRunFilter(
            deployment_id=FlowRunFilterDeploymentId(any_=[nightly.id]),
            state=FlowRunFilterState.model_validate({"type": {"any_": [StateType.SCHEDULED]}}),
        )
        return list(client.read_flow_runs(flow_run_filter=ours))

    first = min(wait_for(scheduled, 240, "night"), key=lambda one: one.expected_start_time)
    assert first.expected_start_time.astimezone(ZoneInfo("Europe/London")).strftime("%H:%M") == "02:00"


def test_the_form_takes_an_address_or_a_small_manifest_and_explains_itself(client: SyncPrefectClient) -> None:
    schema = client.read_deployment_by_name("stylize/stylize").parameter_openapi_schema
    kinds = schema["properties"]["manifest"]["anyOf"]
    assert {kind.get("type") or kind["$ref"].rsplit("/", 1)[1] for kind in kinds} == {"string", "InlineManifest"}
    assert "Address of a manifest" in schema["properties"]["manifest"]["description"]
    for name in ("InlineManifest", "ImageRow", "RunOptions"):
        fields = schema["definitions"][name]["properties"]
        assert all(field.get("description") for field in fields.values()), name
    assert schema["definitions"]["InlineManifest"]["properties"]["contents"]["maxItems"] == 20


def test_the_webhook_address_is_a_secret_of_its_block(client: SyncPrefectClient) -> None:
    block = client.read_block_document_by_name("blora-webhook", "custom-webhook", include_secrets=False)
    assert "not-to-be-seen" not in json.dumps(block.data, default=str)


def test_a_failed_run_is_told_to_the_webhook(
    deployed: tuple[PrefectServer, queue.SimpleQueue[str], str, str], client: SyncPrefectClient, tmp_path: Path
) -> None:
    server, messages, root, _ = deployed
    deployment = client.read_deployment_by_name("stylize/stylize")
    parameters = {"manifest": str(tmp_path / "gone.yaml"), "options": {"root": root, "devices": "cpu"}}
    run = client.create_flow_run_from_deployment(deployment.id, parameters=parameters)
    worker = Worker("blora-control", "control", tmp_path, server.environment())
    nudged = time.monotonic()

    def message() -> str | None:
        nonlocal nudged
        if time.monotonic() - nudged > 90:
            nudged = time.monotonic()
            _nudge(client, deployment.id)
        return next((text for text in iter(lambda: _next(messages), None) if "stylize gone" in text), None)

    try:
        body = json.loads(wait_for(message, 420, "message", lambda: _logs(server, worker)))
    finally:
        worker.kill()
    assert "stylize: stylize gone Failed" in body["text"]
    assert "nothing can be begun: 1 fault" in body["text"]
    assert str(run.id) in body["text"], "no link to the run"


def test_a_run_without_heartbeats_is_marked_crashed_and_told(
    deployed: tuple[PrefectServer, queue.SimpleQueue[str], str, str], client: SyncPrefectClient, tmp_path: Path
) -> None:
    """A run whose machine is gone stays Running for ever as far as its worker can tell; here it does not."""
    server, messages, root, _ = deployed
    deployment = client.read_deployment_by_name("analyze/probe")
    # A slot that never answers, and no limit to its silence: the run goes on until it is killed.
    environment = server.environment() | {"BLORA_SLOT_MODULE": "tests.mute_slot", "BLORA_STALL_TIMEOUT_SECONDS": "9999"}
    parameters = {"base": "embedded", "options": {"root": root, "pairs": 1, "devices": "cpu"}}
    flow_runs = [client.create_flow_run_from_deployment(deployment.id, parameters=parameters) for _ in range(2)]
    workers = [Worker("blora-gpu", f"gpu-{number}", tmp_path, environment) for number in range(2)]
    try:
        dead, alive = by_worker = wait_for(lambda: _runs_by_worker(workers, flow_runs), 420, "run on each worker")
        wait_for(lambda: all(_state(client, one) == StateType.RUNNING for one in by_worker), 420, "two running")
        workers[0].kill()
        wait_for(lambda: _state(client, dead) == StateType.CRASHED, 420, "crash noticed")
        assert _state(client, alive) == StateType.RUNNING
        assert "no heartbeat for 60 s" in (client.read_flow_run(dead).state.message or "")  # type: ignore[union-attr]
        # What other runs were told about may still come in between.
        wait_for(lambda: "Crashed" in (_next(messages) or ""), 240, "message of the crash", lambda: _logs(server))
    finally:
        for worker in workers:
            worker.kill()


def test_what_is_asked_for_otherwise_is_changed_and_nothing_else(
    deployed: tuple[PrefectServer, Any, str, str], client: SyncPrefectClient
) -> None:
    server, _, root, _ = deployed
    before = client.read_deployment_by_name("nightly/nightly")
    own = CronSchedule(cron="30 3 * * 1-5", timezone="Europe/London")
    client.update_deployment_schedule(before.id, before.schedules[0].id, active=False, schedule=own)
    options = {**before.parameters["options"], "hours": 5}
    client.update_deployment(before.id, DeploymentUpdate(parameters={"options": options}))
    changed = [
        line for line in deploy(server, root, "", "--zombie-seconds", "120").splitlines() if "as it was" not in line
    ]
    assert [line.split()[0] for line in changed] == ["automation", "deployments"]
    assert "heartbeats" in changed[0]
    again = deploy(server, root, "")
    variables = client.read_deployment_by_name("shard/shard").job_variables
    assert variables == {"env": {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "40"}}, "a run would be taken for crashed"
    assert [line.split()[0] for line in again.splitlines() if "as it was" not in line] == ["deployments"]
    after = client.read_deployment_by_name("nightly/nightly")
    (schedule,) = after.schedules
    assert schedule.schedule == own and not schedule.active, "what a person has set is gone"
    assert after.parameters == {"options": options}
    assert re.search(r"^schedule +nightly: 30 3 \* \* 1-5 Europe/London \(paused\) +as it was$", again, re.MULTILINE)


def _next(messages: queue.SimpleQueue[str]) -> str | None:
    try:
        return messages.get_nowait()
    except queue.Empty:
        return None


def _nudge(client: SyncPrefectClient, deployment_id: UUID) -> None:
    """Another failure to be told of.

    Prefect's broker in memory tries what it could not handle again, a locked database say, once the next message of
    that kind comes (`prefect.server.utilities.messaging.memory`, 3.8.8), and on a quiet server none does.
    """
    other = client.create_flow_run_from_deployment(deployment_id)
    client.set_flow_run_state(other.id, Failed(message="nudge"), force=True)


def _logs(server: PrefectServer, *workers: Worker) -> str:
    """What explains why nothing came: the ends of what the server and its workers said."""
    return "\n".join(path.read_text()[-6000:] for path in (server.log, *(worker.log for worker in workers)))


def _state(client: SyncPrefectClient, flow_run_id: UUID) -> StateType | None:
    state = client.read_flow_run(flow_run_id).state
    return state.type if state else None


def _runs_by_worker(workers: list[Worker], flow_runs: list[FlowRun]) -> list[UUID] | None:
    """The flow run that each worker has started, by their logs; None until each has one."""
    found = []
    for worker in workers:
        started = re.findall(r"Flow run '([^']+)' submitted to infrastructure", worker.log.read_text())
        found += [one.id for one in flow_runs if one.name in started]
    return found if len(found) == len(workers) else None
