"""What a Prefect server must hold for the nights: pools, queues, webhook, automations, deployments. Idempotent.

    pools        blora-control  flows that plan and gather: stylize, nightly; one worker on any machine
                 blora-gpu      flows that compute: shard, rescore, compare-methods, probe; ``--limit 1`` a GPU
    queues       in both: on-demand (priority 1) before nightly (2): a person who waits is served first
    block        blora-webhook  where messages go; the address is a secret of the block, since it may hold a token
    automations  a run with the tag blora-entry that failed or crashed -> webhook
                 a run without a heartbeat for too long -> Crashed (a machine that is gone can say nothing itself)
    deployments  those of prefect.yaml, by Prefect's own command

No limit by name is asked for anywhere in the flows, so none can be missing: how many shards run at once is how many
workers there are, and that two nights never overlap is the nightly deployment's own concurrency limit.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.schedules import CronSchedule
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import ObjectNotFound
from prefect.types import SecretDict
from pydantic import ValidationError

from tasks import environment
from tasks.errors import TaskError
from tasks.operations.automations import alert, zombies

PoolType = Literal["process", "kubernetes"]

CONTROL_POOL, GPU_POOL = "blora-control", "blora-gpu"
QUEUES = {"on-demand": 1, "nightly": 2}
WEBHOOK_BLOCK = "blora-webhook"


@dataclass(frozen=True)
class DeployStep:
    """One thing that the server now holds.

    Attributes:
        what: pool, queue, block, automation or deployments.
        name: its name.
        outcome: created, changed, or as it was.
    """

    what: str
    name: str
    outcome: Literal["created", "changed", "as it was"]


@dataclass(frozen=True)
class DeployRequest:
    """What a server shall hold.

    Attributes:
        prefect_file: the deployments.
        root: the store that they work in.
        cron: when the night begins, five fields.
        timezone: of `cron`, an IANA name.
        gpu_pool: ``process`` for workers on bare machines, ``kubernetes`` for jobs.
        job_template: base job template of a Kubernetes pool.
        zombie_seconds: a run whose last heartbeat is older has crashed; three times PREFECT_FLOWS_HEARTBEAT_FREQUENCY.
    """

    prefect_file: Path
    root: str
    cron: str
    timezone: str
    gpu_pool: PoolType = "process"
    job_template: Path | None = None
    zombie_seconds: int = 540


def deploy(request: DeployRequest) -> Iterator[DeployStep]:
    """Make the server hold everything, step by step; again and again if need be.

    Raises:
        TaskError: the request cannot be fulfilled, in which case nothing is made; or Prefect's command refused it.
    """
    _check_night(request.cron, request.timezone)
    _check_deployments(request.prefect_file)
    template: dict[str, Any] | None = None
    if request.gpu_pool == "kubernetes":
        job_template = request.job_template
        if job_template is None or not job_template.is_file():
            raise TaskError(f"deploy: a Kubernetes pool needs a job template; received {job_template}; give --template")
        try:
            template = json.loads(job_template.read_bytes())
        except ValueError as error:
            raise TaskError(f"deploy: {job_template} is no JSON: {error}") from error
    with get_client(sync_client=True) as client:
        yield _pool(client, CONTROL_POOL, "process", None)
        yield _pool(client, GPU_POOL, request.gpu_pool, template)
        for pool in (CONTROL_POOL, GPU_POOL):
            for queue, priority in QUEUES.items():
                yield _queue(client, pool, queue, priority)
        webhook = environment.webhook_url()
        if webhook:
            yield _block(webhook)
            block_id = client.read_block_document_by_name(WEBHOOK_BLOCK, "custom-webhook").id
            yield _automation(client, alert(block_id))
        yield _automation(client, zombies(request.zombie_seconds))
    night = {"BLORA_NIGHT_CRON": request.cron, "BLORA_NIGHT_TIMEZONE": request.timezone}
    yield _deployments(request.prefect_file, {"BLORA_ROOT": request.root, **night})


def _check_night(cron: str, timezone: str) -> None:
    """Refuse a time that is none, before anything is made."""
    try:
        CronSchedule(cron=cron, timezone=timezone)
    except ValidationError as error:
        is_zone = error.errors()[0]["loc"][:1] == ("timezone",)
        received = timezone if is_zone else cron
        name = "--timezone or BLORA_NIGHT_TIMEZONE" if is_zone else "--cron or BLORA_NIGHT_CRON"
        accepted = "an IANA name such as Europe/London" if is_zone else "minute hour day month weekday, as 0 2 * * *"
        raise TaskError(f"deploy: {name}: received {received!r}; accepted: {accepted}") from error


def _check_deployments(file: Path) -> None:
    """Refuse a file without deployments."""
    if not file.is_file():
        raise TaskError(f"deploy: no file {file}; name the deployments with --file")
    try:
        body = yaml.safe_load(file.read_bytes())
    except yaml.YAMLError as error:
        raise TaskError(f"deploy: {file} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(body, dict) or not body.get("deployments"):
        raise TaskError(f"deploy: {file} names no deployments; accepted: a file such as prefect.yaml")


def _pool(client: SyncPrefectClient, name: str, kind: PoolType, template: dict[str, Any] | None) -> DeployStep:
    try:
        known = client.read_work_pool(name)
    except ObjectNotFound:
        client.create_work_pool(WorkPoolCreate(name=name, type=kind, base_job_template=template or {}))
        return DeployStep("pool", name, "created")
    if known.type != kind:
        raise TaskError(
            f"pool {name} is of type {known.type}, not {kind}; a pool cannot change its type: delete it first"
        )
    if template is None or known.base_job_template == template:
        return DeployStep("pool", name, "as it was")
    client.update_work_pool(name, WorkPoolUpdate(base_job_template=template))
    return DeployStep("pool", name, "changed")


def _queue(client: SyncPrefectClient, pool: str, name: str, priority: int) -> DeployStep:
    shown = f"{pool}/{name}"
    try:
        known = client.read_work_queue_by_name(name, work_pool_name=pool)
    except ObjectNotFound:
        client.create_work_queue(name, work_pool_name=pool, priority=priority)
        return DeployStep("queue", shown, "created")
    if known.priority == priority:
        return DeployStep("queue", shown, "as it was")
    client.update_work_queue(known.id, priority=priority)
    return DeployStep("queue", shown, "changed")


def _block(url: str) -> DeployStep:
    """Keep the webhook's address as a secret: it is in no list, no log and no message."""
    block = CustomWebhookNotificationBlock(
        name=WEBHOOK_BLOCK,
        url="{{address}}",
        method="POST",
        json_data={"text": "{{subject}}\n{{body}}"},
        secrets=SecretDict({"address": url}),
    )
    known: Any  # Prefect's types allow for a coroutine here, which there is none outside an event loop
    try:
        known = CustomWebhookNotificationBlock.load(WEBHOOK_BLOCK)
    except ValueError:  # what Prefect says where there is no such block
        known = None
    same = ("url", "method", "json_data")
    if known is not None and known.secrets.get_secret_value() == block.secrets.get_secret_value():
        if all(getattr(known, name) == getattr(block, name) for name in same):
            return DeployStep("block", WEBHOOK_BLOCK, "as it was")
    block.save(WEBHOOK_BLOCK, overwrite=True)
    return DeployStep("block", WEBHOOK_BLOCK, "created" if known is None else "changed")


def _automation(client: SyncPrefectClient, wanted: AutomationCore) -> DeployStep:
    known = client.read_automations_by_name(wanted.name)
    if not known:
        client.create_automation(wanted)
        return DeployStep("automation", wanted.name, "created")
    if _core(known[0]) == _core(wanted):
        return DeployStep("automation", wanted.name, "as it was")
    client.update_automation(known[0].id, wanted)
    return DeployStep("automation", wanted.name, "changed")


def _core(automation: AutomationCore) -> dict[str, Any]:
    """What was asked for, without what the server adds; events as sets, since their order is not kept."""
    return automation.model_dump(include={"description", "enabled", "trigger", "actions"})


def _deployments(prefect_file: Path, variables: dict[str, str]) -> DeployStep:
    """Run Prefect's own command on the file; it replaces what is there."""
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(prefect_file)]
    done = subprocess.run(
        command,
        env=environment.with_variables(variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        said = " ".join((done.stdout + done.stderr).split())
        raise TaskError(f"prefect deploy of {prefect_file} failed: {said[-500:]}")
    return DeployStep("deployments", prefect_file.name, "changed")
