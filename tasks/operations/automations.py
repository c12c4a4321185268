"""What the server does by itself: tells a webhook that a run failed, and takes a run without heartbeats for crashed."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState, SendNotification
from prefect.events.schemas.automations import Automation, AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification

TAG, ENTRY_TAG = "blora", "blora-entry"
"""The first is on every deployment, the second on those that a person or a schedule starts: a shard's failure is its
parent's business."""

ALERT, ZOMBIES = "blora: tell that a run failed or crashed", "blora: a run without heartbeats has crashed"
_ENDED = {f"prefect.flow-run.{name}" for name in ("Completed", "Failed", "Crashed", "Cancelled", "Paused", "Suspended")}
_HEARTBEAT = "prefect.flow-run.heartbeat"
_SHORTEST_SECONDS = 30  # between heartbeats, says Prefect's setting
DEFAULT_ZOMBIE_SECONDS = 540
"""Without heartbeats a run has crashed after so long, where nobody asked for another time."""


def alert(block_id: UUID) -> AutomationCore:
    """A run that a person or a schedule started has failed or crashed: the block says so, with outcome and address."""
    return AutomationCore(
        name=ALERT,
        description="Deployed by `blora deploy`.",
        trigger=EventTrigger(
            **_runs_with(ENTRY_TAG),
            expect={"prefect.flow-run.Failed", "prefect.flow-run.Crashed"},
            posture=Posture.Reactive,
            threshold=1,
            within=timedelta(0),
        ),
        actions=[
            SendNotification(
                block_document_id=block_id,
                subject="{{ flow.name }}: {{ flow_run.name }} {{ flow_run.state.name }}",
                body="{{ flow_run.state.message }}\n{{ flow_run|ui_url }}",
            )
        ],
    )


def zombies(after_seconds: int) -> AutomationCore:
    """A run that began and gives no heartbeats (any more) has crashed, whatever its last state says."""
    return AutomationCore(
        name=ZOMBIES,
        description="Deployed by `blora deploy`.",
        trigger=EventTrigger(
            **_runs_with(TAG),
            # Running, too: a machine may be lost before the first heartbeat has left it.
            after={_HEARTBEAT, "prefect.flow-run.Running"},
            expect={_HEARTBEAT, *_ENDED},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=after_seconds),
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED,
                message=f"no heartbeat for {after_seconds} s: its machine or process is gone. What it had "
                "done is in the store; its parent, the next night or `blora rerun` goes on from there.",
            )
        ],
    )


def heartbeats(after_seconds: int) -> dict[str, str]:
    """What a flow run's process must be told to give a heartbeat three times in that time; at most every 30 s.

    Prefect's own frequency, 180 s, is a process's and not a server's: left alone, a server that waits for less takes
    every longer run for crashed.
    """
    return {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(max(after_seconds // 3, _SHORTEST_SECONDS))}


def zombie_seconds(known: list[Automation]) -> int:
    """How long the server waits for a heartbeat, by the automations that it holds by that name."""
    triggers = [one.trigger for one in known]
    return next(
        (int(one.within.total_seconds()) for one in triggers if isinstance(one, EventTrigger)), DEFAULT_ZOMBIE_SECONDS
    )


def _runs_with(tag: str) -> dict[str, Any]:
    """What a trigger listens to: each flow run that carries a tag, by itself."""
    return {
        "match": ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
        "match_related": ResourceSpecification(
            {"prefect.resource.id": f"prefect.tag.{tag}", "prefect.resource.role": "tag"}
        ),
        "for_each": {"prefect.resource.id"},
    }
