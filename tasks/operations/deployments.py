"""The deployments that a server shall hold: those of prefect.yaml, with what people have set on the server laid over.

Prefect's own command replaces a deployment as a whole. So what a person has changed in the UI since the last time goes
into the file that the command is given: schedules (times, zones, paused or not, further ones), parameters, a pause,
job variables, limits. What is asked for on the command line wins over both.
"""

from __future__ import annotations

import copy
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName
from prefect.client.schemas.objects import DeploymentSchedule
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule, RRuleSchedule
from pydantic import ValidationError

from manifests.errors import printable_name
from tasks.errors import TaskError
from tasks.operations.automations import TAG

DEFAULT_CRON, DEFAULT_TIMEZONE = "0 2 * * *", "UTC"
NO_SCHEDULE = "none"

Entry = dict[str, Any]
"""A deployment, or one of its schedules, as prefect.yaml has it."""


@dataclass(frozen=True)
class Asked:
    """What a person asks for this time; empty for what shall stay as it is.

    Attributes:
        root: the store that the deployments work in.
        cron: when the night begins, five fields.
        timezone: of `cron`, an IANA name.
    """

    root: str = ""
    cron: str = ""
    timezone: str = ""


@dataclass(frozen=True)
class SettingChange:
    """What becomes of something that a person may set.

    Attributes:
        what: schedule, root or parameter.
        name: of the deployment, and of the parameter.
        old: as the server has it; empty where it has none yet.
        new: as it will be.
    """

    what: str
    name: str
    old: str
    new: str


def read_file(path: Path) -> dict[str, Any]:
    """Read a file of deployments.

    Raises:
        TaskError: it is none.
    """
    shown = printable_name(str(path))
    try:
        body = yaml.safe_load(path.read_text())
    except (OSError, UnicodeError, yaml.YAMLError) as error:
        raise TaskError(
            f"deploy: {shown} cannot be read ({type(error).__name__}); name the file with --file"
        ) from error
    entries = body.get("deployments") if isinstance(body, dict) else None
    if not isinstance(entries, list) or not all(isinstance(one, dict) and one.get("name") for one in entries):
        raise TaskError(f"deploy: {shown} has no list of deployments with names; accepted: a file such as prefect.yaml")
    return dict(body)


def known_deployments(client: SyncPrefectClient, body: dict[str, Any]) -> dict[str, DeploymentResponse]:
    """Those of the deployments that the server holds already, by name; of another product's, none."""
    names = [entry["name"] for entry in body["deployments"]]
    found = client.read_deployments(deployment_filter=DeploymentFilter(name=DeploymentFilterName(any_=names)))
    return {one.name: one for one in found if TAG in one.tags}


def laid_over(
    body: Mapping[str, Any],
    known: Mapping[str, DeploymentResponse],
    asked: Asked,
    default_root: str,
    told: Mapping[str, str],
) -> tuple[dict[str, Any], list[SettingChange]]:
    """Lay over a file's deployments what the server holds, and over that what is asked for.

    Args:
        body: the file.
        known: what the server holds, by name.
        asked: what is asked for.
        default_root: the store of deployments that are new, unless it is asked for.
        told: environment variables of every run's process, also where the server holds others.

    Returns:
        The file to give to Prefect, and what is old and new of schedules and parameters.

    Raises:
        TaskError: a schedule is none.
    """
    entries, differences = [], []
    for entry in copy.deepcopy(body["deployments"]):
        held = known.get(entry["name"])
        differences += _parameters(entry, held, asked.root or default_root, bool(asked.root))
        difference = _schedules(entry, held, asked)
        differences += [difference] if difference else []
        if held is not None:
            _keep_the_rest(entry, held)
        _tell(entry, held, told)
        entries.append(entry)
    return {**body, "deployments": entries}, differences


def _parameters(entry: Entry, held: DeploymentResponse | None, root: str, is_asked: bool) -> list[SettingChange]:
    """Set the parameters of an entry; say what differs from the file."""
    own = entry.setdefault("parameters", {})
    if "options" in own:
        own["options"] = {**own["options"], "root": root}
    if held is None or "options" not in own:
        return []
    file_options, held_options = own["options"], held.parameters.get("options") or {}
    options = {**file_options, **held_options}
    old_root = str(held_options.get("root", ""))
    options["root"] = root if is_asked or not old_root else old_root
    entry["parameters"] = {**own, **held.parameters, "options": options}
    kept = [
        SettingChange("parameter", f"{entry['name']} {name}={printable_name(str(value))}", "kept", "kept")
        for name, value in held_options.items()
        if name != "root" and value != file_options.get(name)
    ]
    if options["root"] == old_root:
        return kept
    return [SettingChange("root", entry["name"], old_root, options["root"]), *kept]


def _schedules(entry: Entry, held: DeploymentResponse | None, asked: Asked) -> SettingChange | None:
    """Set the schedules of an entry; say old and new of one that has, or had, any."""
    of_file: list[Entry] = entry.get("schedules") or []
    before = [_as_entry(schedule) for schedule in held.schedules] if held is not None else None
    after = copy.deepcopy(of_file if before is None else before)
    if of_file and (before is None or asked.cron or asked.timezone):
        night = next((one for one in after if one.get("slug") == of_file[0].get("slug")), None)
        night = night or next((one for one in after if "cron" in one), None)
        if night is None:
            after.append(night := copy.deepcopy(of_file[0]))
        is_new = before is None or night not in before
        night["cron"] = asked.cron or (DEFAULT_CRON if is_new else night["cron"])
        night["timezone"] = asked.timezone or (DEFAULT_TIMEZONE if is_new else night["timezone"])
        _check(night)
    entry["schedules"] = after
    if not after and not before:
        return None
    return SettingChange("schedule", entry["name"], "" if before is None else in_words(before), in_words(after))


def _check(night: Entry) -> None:
    """Refuse a time that is none.

    Raises:
        TaskError: it is none.
    """
    cron, timezone = str(night["cron"]), str(night["timezone"])
    for name, value, accepted in (
        ("cron", {"cron": cron}, "minute hour day month weekday, such as 0 2 * * *"),
        ("timezone", {"cron": DEFAULT_CRON, "timezone": timezone}, "an IANA name such as Europe/London"),
    ):
        received = printable_name(cron if name == "cron" else timezone)
        try:
            CronSchedule.model_validate(value)
        except ValidationError as error:
            raise TaskError(f"--{name}: received {received!r}; accepted: {accepted}; nothing was deployed") from error


def _keep_the_rest(entry: Entry, held: DeploymentResponse) -> None:
    """Keep a pause and a limit that are set on the server."""
    if held.paused:
        entry["paused"] = True
    if held.global_concurrency_limit is not None:
        limit: Entry = {"limit": held.global_concurrency_limit.limit}
        if held.concurrency_options is not None:
            limit["collision_strategy"] = held.concurrency_options.collision_strategy.value
        entry["concurrency_limit"] = limit


def _tell(entry: Entry, held: DeploymentResponse | None, told: Mapping[str, str]) -> None:
    """Keep job variables that are set on the server, and add the given ones to the environment.

    A pool's entry is written anew: by YAML's anchors several deployments have the same one in common.
    """
    pool = entry.get("work_pool") or {}
    variables = {**pool.get("job_variables", {}), **((held.job_variables if held else None) or {})}
    variables["env"] = {**(variables.get("env") or {}), **told}
    entry["work_pool"] = {**pool, "job_variables": variables}


def _as_entry(known: DeploymentSchedule) -> Entry:
    """A schedule of the server as prefect.yaml has it."""
    schedule, entry = known.schedule, Entry()
    if isinstance(schedule, CronSchedule):
        entry |= {"cron": schedule.cron, "day_or": schedule.day_or}
    elif isinstance(schedule, IntervalSchedule):
        entry |= {"interval": schedule.interval.total_seconds(), "anchor_date": schedule.anchor_date.isoformat()}
    elif isinstance(schedule, RRuleSchedule):
        entry["rrule"] = schedule.rrule
    else:
        raise TaskError(f"deploy: a schedule of an unknown kind, {type(schedule).__name__}; nothing was deployed")
    entry |= {"timezone": schedule.timezone or DEFAULT_TIMEZONE, "active": known.active}
    return entry | ({"slug": known.slug} if known.slug else {}) | ({"parameters": p} if (p := known.parameters) else {})


def apply(body: Mapping[str, Any]) -> None:
    """Have Prefect's own command make the deployments; it replaces what is there.

    Raises:
        TaskError: it refused them.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "prefect.yaml"
        path.write_text(yaml.safe_dump(body, sort_keys=False, allow_unicode=True))
        command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(path)]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise TaskError(f"prefect deploy failed: {(done.stdout + done.stderr)[-1500:]}")


def roots(body: Mapping[str, Any]) -> set[str]:
    """The stores that a file's deployments work in."""
    options = [(entry.get("parameters") or {}).get("options") or {} for entry in body["deployments"]]
    return {str(some["root"]) for some in options if some.get("root")}


def in_words(schedules: list[Entry]) -> str:
    """Say schedules in a line."""
    said = []
    for one in schedules:
        when = one.get("cron") or one.get("rrule") or f"every {one['interval']:g} s"
        said.append(f"{when} {one['timezone']}" + ("" if one.get("active", True) else " (paused)"))
    return printable_name("; ".join(said)) or NO_SCHEDULE
