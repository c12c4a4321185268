"""A session of episodes: servers up, episodes until there were enough kills, a summary, and Prefect's own picture."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from manifests.store.store import Store
from tests.chaos import checks
from tests.chaos.episode import Player, Result
from tests.chaos.schedule import plan_episode
from tests.chaos.stage import POOL_LEASE_SECONDS, Stage, set_up
from tests.production import serve_production
from tests.servers import serve_prefect, serve_s3

RECORD_SECONDS = 60
"""How long the server may take to record what its clients have told it."""


@dataclass
class Summary:
    """What a session came to.

    Attributes:
        seed: its seed.
        results: its episodes.
        faults: rules that were broken, by episode or by the session.
        picture: how the server shows the last flow run of each episode, and the others.
        seconds: all of it, without the start of the servers.
    """

    seed: int
    results: list[Result] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    picture: dict[str, int] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)
    parts_returned: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON, with the sums."""
        sums = {"kills": sum(self.kills.values()), "by_target": dict(self.kills), "in_flight": dict(self.hit)}
        results = [
            vars(result) | {"kills": dict(result.kills), "hit": dict(result.hit), "trainings": vars(result.trainings)}
            for result in self.results
        ]
        return sums | vars(self) | {"results": results}

    @property
    def kills(self) -> Counter[str]:
        """Kills by target."""
        return sum((result.kills for result in self.results), Counter[str]())

    @property
    def hit(self) -> Counter[str]:
        """What was in flight when slots, commands and workers were killed."""
        return sum((result.hit for result in self.results), Counter[str]())


@contextmanager
def open_stage(folder: Path, server: str, seed: int, stub: bool = True) -> Iterator[Stage]:
    """Start all servers.

    Args:
        folder: an empty folder.
        server: ``production`` (Postgres, Redis, API and services apart) or ``sqlite``.
        seed: of the bad network.
        stub: whether a stub stands in for the model.
    """
    for name in ("s3", "prefect"):
        (folder / name).mkdir()
    with ExitStack() as stack:
        s3 = stack.enter_context(serve_s3(folder / "s3"))
        os.environ.update(s3.environment())  # this process looks at the store without the bad network
        if server == "production":
            real = stack.enter_context(serve_production(folder / "prefect"))
            yield stack.enter_context(set_up(folder, s3, real.environment(), real.parts, seed, stub))
        else:
            small = stack.enter_context(serve_prefect(folder / "prefect"))
            yield stack.enter_context(set_up(folder, s3, small.environment(), {}, seed, stub))


def play(
    stage: Stage,
    seed: int,
    kills: int,
    with_pool: bool,
    only: int | None = None,
    part: tuple[int, int] = (1, 1),
    tell: Callable[[str], None] = print,
    most_seconds: float = float("inf"),
) -> Summary:
    """Play episodes until there were so many kills, or one alone.

    Args:
        stage: where.
        seed: what fixes every episode's schedule.
        kills: how many at least.
        with_pool: whether some episodes hand over to workers.
        only: the number of the one episode to play.
        part: (which, of how many): several processes share the episodes of a seed, each takes every n-th.
        tell: takes a line after each episode.
        most_seconds: begin no further episode after this time.
    """
    summary, began = Summary(seed), time.monotonic()
    roots: list[str] = []
    if with_pool:
        _deploy(stage)
    number = part[0] - 1 if only is None else only
    while not summary.results or (
        only is None and sum(summary.kills.values()) < kills and time.monotonic() - began < most_seconds
    ):
        episode = plan_episode(seed, number, with_pool, bool(stage.parts))
        stage.network.reseed(f"{seed}/{number}")
        player = Player(stage, episode)
        result = player.play()
        roots.append(player.root)
        summary.results.append(result)
        summary.faults += [f"episode {number}: {fault}" for fault in result.faults]
        where = f"{episode.place}, {episode.commands} command{'s' * (episode.commands > 1)}" + (
            ", pool" if episode.on_pool else ""
        )
        tell(
            f"episode {number} ({where}): killed {_counted(result.kills)}; at work on {_counted(result.hit)}; trained "
            f"{result.trainings.finished} of {result.trainings.begun} begun; {result.failed_commands} commands failed; "
            f"{result.seconds:.0f} s" + "".join(f"\n  BROKEN: {fault}" for fault in result.faults)
        )
        number += part[1]
    for root in roots:
        summary.faults += checks.wait_until_lapsed(Store.open(root), POOL_LEASE_SECONDS + 5)
    faults, summary.picture = server_picture(stage, [result.number for result in summary.results])
    summary.faults += faults
    summary.calls, summary.parts_returned = dict(stage.network.met), stage.returned
    summary.seconds = time.monotonic() - began
    return summary


def _deploy(stage: Stage) -> None:
    log = stage.folder / "deploy.log"
    environment = stage.environment(str(stage.folder / "none"), "folder", stage.folder / "none.jsonl")
    if stage.command(environment, log, "deploy", "--root", str(stage.folder / "none")).wait(timeout=300):
        raise RuntimeError(f"deploying failed; the log ends with:\n{log.read_text()[-3000:]}")


def server_picture(stage: Stage, numbers: Sequence[int]) -> tuple[list[str], dict[str, int]]:
    """What the server says of the runs, once it has recorded all: the last flow run of each episode is to be Completed.

    Earlier ones of the same episode were killed, and say what they could: a killed command is Running until the
    automation that `blora deploy` makes notices that its heartbeats have stopped.
    """
    deadline = time.monotonic() + RECORD_SECONDS
    while True:
        faults, states = _ask(stage, numbers)
        if not faults or time.monotonic() > deadline:
            return faults, states
        time.sleep(2)
        stage.tend()


def _ask(stage: Stage, numbers: Sequence[int]) -> tuple[list[str], dict[str, int]]:
    variables = stage.client_environment
    user, _, password = variables.get("PREFECT_API_AUTH_STRING", "").partition(":")
    auth = httpx.BasicAuth(user, password) if user else None
    faults: list[str] = []
    states: Counter[str] = Counter()
    try:
        with httpx.Client(base_url=variables["PREFECT_API_URL"], auth=auth, timeout=30) as client:
            for number in numbers:
                runs = _filtered(client, "flow_runs", {"flow_runs": {"name": {"any_": [f"stylize chaos-{number}"]}}})
                runs.sort(key=lambda run: str(run["created"]))
                ended = [run for run in runs if run["state_type"] == "COMPLETED"]
                states["flow runs completed"] += len(ended)
                states["flow runs of killed commands"] += len(runs) - len(ended)
                if not ended:
                    faults.append(f"episode {number}: no flow run of {len(runs)} is Completed for the server")
                    continue
                tasks = _filtered(client, "task_runs", {"flow_runs": {"id": {"any_": [ended[-1]["id"]]}}})
                states.update(f"task runs {task['state_type'].lower()}" for task in tasks)
                open_tasks = [task for task in tasks if task["state_type"] not in ("COMPLETED", "FAILED", "CRASHED")]
                faults += [f"episode {number}: task run {one['name']} is {one['state_name']}" for one in open_tasks]
    except httpx.HTTPError as error:
        return [f"the server does not answer: {error!r}"], {}
    return faults, dict(states)


def _filtered(client: httpx.Client, kind: str, wanted: dict[str, Any]) -> list[dict[str, Any]]:
    answer = client.post(f"/{kind}/filter", json=wanted | {"limit": 200})
    answer.raise_for_status()
    found: list[dict[str, Any]] = answer.json()
    return found


def _counted(counter: Counter[str]) -> str:
    return ", ".join(f"{number} {name}" for name, number in sorted(counter.items())) or "nothing"
