"""What a further `blora deploy` leaves alone, what it changes, and what it refuses before anything is written."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from prefect.client.schemas.objects import DeploymentSchedule
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule, RRuleSchedule

from tasks.errors import TaskError
from tasks.operations.deployments import Asked, SettingChange, laid_over, read_file

FILE = Path("flows/prefect.yaml")
ROOT = "s3://bucket/art"
TOLD = {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "40"}


def scheduled(*schedules: Any, **changes: Any) -> dict[str, DeploymentResponse]:
    """The night as a server holds it."""
    held = [
        DeploymentSchedule(schedule=one, active=not number, slug="night" if number == 0 else None)
        for number, one in enumerate(schedules)
    ]
    options = {"root": ROOT, "shards": "pool", "queue": "nightly"}
    given = {"parameters": {"options": options}} | changes
    return {"nightly": DeploymentResponse(id=uuid4(), flow_id=uuid4(), name="nightly", schedules=held, **given)}


def night(known: dict[str, DeploymentResponse], asked: Asked = Asked()) -> tuple[dict[str, Any], list[SettingChange]]:  # noqa: B008
    body, differences = laid_over(read_file(FILE), known, asked, "/elsewhere", TOLD)
    (entry,) = (one for one in body["deployments"] if one["name"] == "nightly")
    return entry, [one for one in differences if one.name.startswith("nightly")]


def test_a_new_server_gets_what_is_asked_for_or_the_usual() -> None:
    entry, differences = night({})
    (schedule,) = entry["schedules"]
    assert (schedule["cron"], schedule["timezone"], schedule["active"]) == ("0 2 * * *", "UTC", True)
    assert entry["parameters"]["options"]["root"] == "/elsewhere"
    assert differences == [SettingChange("schedule", "nightly", "", "0 2 * * * UTC")]
    entry, _ = night({}, Asked(ROOT, "30 1 * * *", "Europe/London"))
    (schedule,) = entry["schedules"]
    assert (schedule["cron"], schedule["timezone"]) == ("30 1 * * *", "Europe/London")
    assert entry["parameters"]["options"]["root"] == ROOT


def test_what_a_person_has_set_stays() -> None:
    own = CronSchedule(cron="15 4 * * 1-5", timezone="Asia/Tokyo")
    every = IntervalSchedule(interval=datetime.timedelta(hours=6), timezone="UTC")
    rule = RRuleSchedule(rrule="FREQ=DAILY;COUNT=3", timezone="UTC")
    options = {"root": ROOT, "shards": "here", "queue": "nightly", "hours": 5}
    known = scheduled(own, every, rule, parameters={"options": options}, paused=True, job_variables={"env": {"A": "b"}})
    entry, differences = night(known)
    first, second, third = entry["schedules"]
    assert (first["cron"], first["timezone"], first["active"], first["slug"]) == (own.cron, own.timezone, True, "night")
    assert (second["interval"], second["active"]) == (6 * 3600, False)
    assert third["rrule"] == rule.rrule
    assert entry["parameters"] == {"options": options} and entry["paused"]
    assert entry["work_pool"]["job_variables"] == {"env": {"A": "b"} | TOLD}
    assert all(one.old == one.new for one in differences)
    assert {one.name for one in differences if one.what == "parameter"} == {"nightly shards=here", "nightly hours=5"}


def test_job_variables_of_one_deployment_stay_its_own() -> None:
    """In the file several deployments have their pool in common, by an anchor."""
    known = scheduled(job_variables={"image": "own", "env": {"A": "b"} | {name: "180" for name in TOLD}})
    known["rerun"] = known.pop("nightly").model_copy(update={"name": "rerun"})
    body, _ = laid_over(read_file(FILE), known, Asked(), "/elsewhere", TOLD)
    found = {entry["name"]: entry["work_pool"]["job_variables"] for entry in body["deployments"]}
    assert found.pop("rerun") == {"image": "own", "env": {"A": "b"} | TOLD}
    assert len(found) > 4 and all(variables == {"env": TOLD} for variables in found.values())


def test_no_schedule_and_a_paused_one_stay_so() -> None:
    entry, _ = night(scheduled())
    assert entry["schedules"] == []
    known = scheduled(CronSchedule(cron="0 2 * * *", timezone="UTC"))
    known["nightly"].schedules[0].active = False
    entry, (difference,) = night(known)
    assert entry["schedules"][0]["active"] is False
    assert difference.new == "0 2 * * * UTC (paused)"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (Asked(cron="0 1 * * *"), "15 4 * * * Asia/Tokyo -> 0 1 * * * Asia/Tokyo"),
        (Asked(timezone="Europe/London"), "15 4 * * * Asia/Tokyo -> 15 4 * * * Europe/London"),
        (Asked(root="/new"), "s3://bucket/art -> /new"),
    ],
)
def test_what_is_asked_for_changes_and_old_and_new_are_told(asked: Asked, said: str) -> None:
    _, differences = night(scheduled(CronSchedule(cron="15 4 * * *", timezone="Asia/Tokyo")), asked)
    assert [f"{one.old} -> {one.new}" for one in differences if one.old != one.new] == [said]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (Asked(cron="0 25 * * *"), "--cron: received '0 25 * * *'; accepted: minute hour"),
        (Asked(cron="0 2 * *"), "--cron: received '0 2 * *'"),
        (Asked(cron="at\nnight"), r"--cron: received 'at\\\\nnight'"),
        (Asked(timezone="Mars/Olympus"), "--timezone: received 'Mars/Olympus'; accepted: an IANA name"),
    ],
)
@pytest.mark.parametrize("known", [{}, scheduled(CronSchedule(cron="0 2 * * *", timezone="UTC"))])
def test_a_time_that_is_none_is_refused(asked: Asked, said: str, known: dict[str, DeploymentResponse]) -> None:
    with pytest.raises(TaskError, match=said.replace("*", r"\*")):
        night(known, asked)


@pytest.mark.parametrize(
    "text", ["", "[]", "deployments: yes", "deployments: [1]", "deployments: [{a: b}]", "a: [", "\0"]
)
def test_a_file_of_something_else_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "prefect.yaml").write_text(text)
    with pytest.raises(TaskError, match=r"has no list|cannot be read"):
        read_file(tmp_path / "prefect.yaml")
    with pytest.raises(TaskError, match="cannot be read"):
        read_file(tmp_path / "none.yaml")
