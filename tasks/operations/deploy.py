"""What a Prefect server must hold for the nights: pools, queues, webhook, automations, deployments. Idempotent.

Everything that is asked for is checked before anything is written. What a person has set on the server stays
(`deployments.py`); where this changes something, old and new are said.

    pools        blora-control  flows that plan and gather: stylize, nightly; one worker on any machine
                 blora-gpu      flows that compute: shard, rescore, compare-methods, probe; ``--limit 1`` a GPU
    queues       in both: on-demand (priority 1) before nightly (2): a person who waits is served first
    block        blora-webhook  where messages go; the address is a secret of the block, since it may hold a token
    automations  a run with the tag blora-entry that failed or crashed -> webhook
                 a run without a heartbeat for too long -> Crashed (a machine that is gone can say nothing itself)
    deployments  those of prefect.yaml, which travels with the package, by Prefect's own command; their runs are told to
                 give heartbeats as often as that takes

No limit by name is asked for anywhere in the flows, so none can be missing: how many shards run at once is how many
workers there are, and that two nights never overlap is the nightly deployment's own concurrency limit.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, Literal

from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.objects import WorkPool
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import ObjectNotFound
from prefect.types import SecretDict

from manifests import layout
from manifests.errors import printable_name
from manifests.store.store import Store
from tasks import environment
from tasks.errors import TaskError
from tasks.operations.automations import ZOMBIES, alert, heartbeats, zombie_seconds, zombies
from tasks.operations.deployments import Asked, SettingChange, apply, known_deployments, laid_over, read_file, roots

PoolType = Literal["process", "kubernetes"]

CONTROL_POOL, GPU_POOL = "blora-control", "blora-gpu"
QUEUES = {"on-demand": 1, "nightly": 2}
WEBHOOK_BLOCK = "blora-webhook"


@dataclass(frozen=True)
class DeployStep:
    """One thing that the server now holds.

    Attributes:
        what: pool, queue, block, automation or deployments.
        name: its name, and old and new where something that a person may set is changed.
        outcome: created, changed, or as it was.
    """

    what: str
    name: str
    outcome: Literal["created", "changed", "as it was"]


@dataclass(frozen=True)
class DeployRequest:
    """What a server shall hold.

    Attributes:
        asked: what a person asks for this time.
        default_root: the store of deployments that are new, unless it is asked for.
        prefect_file: the deployments; None for those that travel with the package.
        gpu_pool: ``process`` for workers on bare machines, ``kubernetes`` for jobs.
        job_template: base job template of a Kubernetes pool.
        zombie_seconds: a run whose last heartbeat is older has crashed; None leaves it as it is, for a new server at
            `automations.DEFAULT_ZOMBIE_SECONDS`. The deployments' runs give a heartbeat three times in it.
    """

    asked: Asked
    default_root: str
    prefect_file: Path | None = None
    gpu_pool: PoolType = "process"
    job_template: Path | None = None
    zombie_seconds: int | None = None


def deploy(request: DeployRequest) -> Iterator[DeployStep]:
    """Make the server hold everything, step by step; again and again if need be.

    To be called where a server is at hand that stays (`tasks.dispatch.server`).

    Raises:
        TaskError: something that is asked for is none; then nothing was written. Or Prefect's command refused the
            deployments.
        StoreError: the store cannot be asked.
    """
    with ExitStack() as stack:
        packaged = stack.enter_context(as_file(files("flows") / "prefect.yaml"))
        body = read_file(request.prefect_file or packaged)
        template = _template(request)
        client = stack.enter_context(get_client(sync_client=True))
        known = known_deployments(client, body)
        silent = client.read_automations_by_name(ZOMBIES)
        silence_seconds = request.zombie_seconds or zombie_seconds(silent)
        told = heartbeats(silence_seconds)
        body, differences = laid_over(body, known, request.asked, request.default_root, told)
        for root in roots(body):
            Store.open(root).list(layout.NIGHTS_PREFIX)
        for name, kind in ((CONTROL_POOL, "process"), (GPU_POOL, request.gpu_pool)):
            _known_pool(client, name, kind)
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
        if silent and request.zombie_seconds is None:
            yield DeployStep("automation", ZOMBIES, "as it was")
        else:
            yield _automation(client, zombies(silence_seconds))
    yield from map(_step, differences)
    apply(body)
    yield DeployStep("deployments", "prefect.yaml", "changed")


def _template(request: DeployRequest) -> dict[str, Any] | None:
    """The base job template of a Kubernetes pool."""
    if request.gpu_pool != "kubernetes":
        return None
    path = request.job_template
    if path is None or not path.is_file():
        raise TaskError(f"deploy: a Kubernetes pool needs a job template; received {path}; give --template")
    try:
        template = json.loads(path.read_text())
    except ValueError as error:
        raise TaskError(f"--template {printable_name(str(path))}: received no JSON ({error})") from error
    if not isinstance(template, dict):
        raise TaskError(f"--template {printable_name(str(path))}: received no JSON object; accepted: a job template")
    return template


def _step(difference: SettingChange) -> DeployStep:
    name, old, new = difference.name, difference.old, difference.new
    if old == new:
        return DeployStep(difference.what, name if old == "kept" else f"{name}: {old}", "as it was")
    return DeployStep(difference.what, f"{name}: {f'{old} -> ' if old else ''}{new}", "changed" if old else "created")


def _known_pool(client: SyncPrefectClient, name: str, kind: str) -> WorkPool | None:
    """A pool, if there is one.

    Raises:
        TaskError: it is of another type.
    """
    try:
        known = client.read_work_pool(name)
    except ObjectNotFound:
        return None
    if known.type != kind:
        raise TaskError(
            f"pool {name} is of type {known.type}, not {kind}; a pool cannot change its type: delete it first; "
            "nothing was deployed"
        )
    return known


def _pool(client: SyncPrefectClient, name: str, kind: PoolType, template: dict[str, Any] | None) -> DeployStep:
    known = _known_pool(client, name, kind)
    if known is None:
        client.create_work_pool(WorkPoolCreate(name=name, type=kind, base_job_template=template or {}))
        return DeployStep("pool", name, "created")
    if template is None or known.base_job_template == template:
        return DeployStep("pool", name, "as it was")
    client.update_work_pool(name, WorkPoolUpdate(base_job_template=template))
    return DeployStep("pool", f"{name}: another job template", "changed")


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
    return DeployStep("queue", f"{shown}: priority {known.priority} -> {priority}", "changed")


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
    wanted.enabled = known[0].enabled  # switched off by a person
    if _core(known[0]) == _core(wanted):
        return DeployStep("automation", wanted.name, "as it was")
    client.update_automation(known[0].id, wanted)
    return DeployStep("automation", wanted.name, "changed")


def _core(automation: AutomationCore) -> dict[str, Any]:
    """What was asked for, without what the server adds; events as sets, since their order is not kept."""
    return automation.model_dump(include={"description", "enabled", "trigger", "actions"})
