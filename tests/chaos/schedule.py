"""What goes wrong and when, from a seed: the same seed and number give the same episode, whatever ran before.

An episode is one small run with some faults. A fault waits for a moment of the run, then strikes. Which object is being
written at that moment depends on the machine, too; the ledger says what was in flight.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal, TypeAlias

Target: TypeAlias = Literal["slot", "parent", "worker", "api", "services", "postgres", "redis"]
Place: TypeAlias = Literal["folder", "s3", "faulty s3"]

SERVER_PARTS: tuple[Target, ...] = ("api", "services", "postgres", "redis")
FAULTS_AN_EPISODE = 8
POOL_EVERY, SERVER_EVERY = 8, 4
"""Every so many episodes one is handed to workers of a pool, and one has parts of the server killed."""


@dataclass(frozen=True)
class Fault:
    """A SIGKILL.

    Attributes:
        target: what is killed.
        after: whether `seconds` count from the (re)start of the command, or from the next sign of work in a slot.
        seconds: the wait.
        down_seconds: how long a part of the server stays away.
        pick: which of several slots, commands or workers, as a fraction of their number.
    """

    target: Target
    after: Literal["start", "work"]
    seconds: float
    down_seconds: float
    pick: float


@dataclass(frozen=True)
class Episode:
    """One small run and what befalls it.

    Attributes:
        number: its number in the session, from 0.
        place: where its store is.
        commands: how many commands work the same manifest off at once.
        on_pool: whether packs and shards go to workers as flow runs.
        faults: one after the other.
    """

    number: int
    place: Place
    commands: int
    on_pool: bool
    faults: tuple[Fault, ...]


def plan_episode(seed: int, number: int, with_pool: bool, with_server: bool) -> Episode:
    """Draw an episode.

    Args:
        seed: the session's.
        number: the episode's.
        with_pool: whether there are workers to hand over to.
        with_server: whether the server is one whose parts can be killed.
    """
    draw = random.Random(f"{seed}/{number}")
    on_pool = with_pool and number % POOL_EVERY == POOL_EVERY - 1
    hits_server = with_server and not on_pool and number % SERVER_EVERY == 1
    # Workers read and write at the same root from other processes: a bucket, as in production.
    place: Place = "s3" if on_pool else draw.choice(("folder", "s3", "s3", "faulty s3"))
    commands = 2 if not on_pool and draw.random() < 0.25 else 1
    faults = tuple(_draw_fault(draw, on_pool, hits_server) for _ in range(FAULTS_AN_EPISODE))
    return Episode(number, place, commands, on_pool, faults)


def _draw_fault(draw: random.Random, on_pool: bool, hits_server: bool) -> Fault:
    targets: dict[Target, float] = {"slot": 0.65, "parent": 0.35}
    if on_pool:
        targets = {"worker": 0.7, "parent": 0.3}
    elif hits_server:
        targets = {"slot": 0.1, "parent": 0.1, **dict.fromkeys(SERVER_PARTS, 0.2)}
    (target,) = draw.choices(list(targets), list(targets.values()))
    after: Literal["start", "work"] = "start" if target != "slot" and draw.random() < 0.3 else "work"
    seconds = draw.uniform(0, 8 if after == "start" else 0.6)
    return Fault(target, after, round(seconds, 3), round(draw.uniform(0.2, 4), 3), round(draw.random(), 3))
