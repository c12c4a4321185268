"""What a slot's parent and child say to each other: a dataclass a message, a line of JSON each on the wire.

    parent -> child     a job: `TrainPack`, `GenerateShard`, `ScoreShard`, `RescoreShard`, `TrainMethod`, `DrawMethod`,
                        `ProbePart`
    child -> parent     on the way `Advance` and `Heartbeat`; at the end the job's answer, or `JobError`

Each line carries the number of the request that it belongs to: a parent may give up a job whose child goes on with it,
and what that one still says is no answer to the next.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, get_args

from pydantic import TypeAdapter

from manifests.faults import Fault
from tasks.progress import Event


@dataclass(frozen=True)
class TrainPack:
    """Make the adapters of a pack exist; `only` names those that are wanted, None means all."""

    run_id: str
    pack_id: str
    only: tuple[str, ...] | None = None


@dataclass(frozen=True)
class GenerateShard:
    """Make the pictures of a shard exist whose adapters do; `only` names those that are wanted, None means all."""

    run_id: str
    shard_id: str
    only: tuple[str, ...] | None = None


@dataclass(frozen=True)
class ScoreShard:
    """Make every picture of a shard that exists have its scores."""

    run_id: str
    shard_id: str


@dataclass(frozen=True)
class RescoreShard:
    """Give some pictures of a shard their scores by one more scorer, given by its line (`blora.metrics.weights`)."""

    run_id: str
    shard_id: str
    scorer: str
    only: tuple[str, ...]


@dataclass(frozen=True)
class TrainMethod:
    """Make the adapters of a pack exist in the way of another method that trains."""

    run_id: str
    method: str
    pack_id: str


@dataclass(frozen=True)
class DrawMethod:
    """Make the pictures of a shard exist in the way of another method, and their scores by the run's scorers."""

    run_id: str
    method: str
    shard_id: str


@dataclass(frozen=True)
class ProbePart:
    """Make the readings of a part of a block probe exist."""

    probe_id: str
    part: int


@dataclass(frozen=True)
class TrainAnswer:
    """What became of a `TrainPack`.

    Attributes:
        trained: ids of the adapters that this job wrote.
        faults: trainings that failed for good.
        train_seconds: what the job took; 0 where it wrote nothing.
        busy_seconds: of those, in which the device trained.
    """

    trained: tuple[str, ...] = ()
    faults: tuple[Fault, ...] = ()
    train_seconds: float = 0.0
    busy_seconds: float = 0.0


@dataclass(frozen=True)
class GenerateAnswer:
    """What became of a `GenerateShard`.

    Attributes:
        drawn: ids of the pictures that this job wrote.
        without_adapter: ids of those that cannot be drawn.
        faults: pictures that failed alone.
        sample_seconds: what the job took; 0 where it wrote nothing.
        busy_seconds: of those, in which the device drew.
    """

    drawn: tuple[str, ...] = ()
    without_adapter: tuple[str, ...] = ()
    faults: tuple[Fault, ...] = ()
    sample_seconds: float = 0.0
    busy_seconds: float = 0.0


@dataclass(frozen=True)
class ScoreAnswer:
    """What became of a `ScoreShard` or a `RescoreShard`.

    Attributes:
        scored: ids of the pictures that this job scored.
        faults: pictures that are there and could not be judged.
        score_seconds: what the job took.
        busy_seconds: of those, spent on scores.
    """

    scored: tuple[str, ...] = ()
    faults: tuple[Fault, ...] = ()
    score_seconds: float = 0.0
    busy_seconds: float = 0.0


@dataclass(frozen=True)
class MethodAnswer:
    """What became of a `TrainMethod` or a `DrawMethod`.

    Attributes:
        trained: ids of the run's adapters whose counterparts this job wrote.
        drawn: ids of the run's pictures whose counterparts it wrote.
        scored: ids of those whose counterparts it scored.
        faults: trainings that diverged.
    """

    trained: tuple[str, ...] = ()
    drawn: tuple[str, ...] = ()
    scored: tuple[str, ...] = ()
    faults: tuple[Fault, ...] = ()


@dataclass(frozen=True)
class ProbeAnswer:
    """What became of a `ProbePart`: how many readings it made, and in what time."""

    readings: int = 0
    probe_seconds: float = 0.0


@dataclass(frozen=True)
class Advance:
    """So many steps of a job are done.

    Attributes:
        kind: ``train``, ``sample``, ``score``, ``method`` or ``probe``.
        id: of the pack, shard or part; for people where it is a method's.
        done: steps, pictures or readings that are done.
        total: how many there will have been.
        loss: the mean loss of a training's step.
    """

    kind: str
    id: str
    done: int
    total: int
    loss: float | None = None

    def as_event(self) -> Event:
        """The same for whoever watches the process that asked."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class Heartbeat:
    """The child lives, and does something that has no steps to tell of.

    Attributes:
        doing: what.
        until: until when it waits for somebody else, at most; empty where it works.
    """

    doing: str
    until: str = ""


@dataclass(frozen=True)
class JobError:
    """A job raised: the class and message of the error, and the verdict of `tasks.errors.is_transient`."""

    error_class: str
    message: str
    transient: bool


Job: TypeAlias = TrainPack | GenerateShard | ScoreShard | RescoreShard | TrainMethod | DrawMethod | ProbePart
JobAnswer: TypeAlias = TrainAnswer | GenerateAnswer | ScoreAnswer | MethodAnswer | ProbeAnswer
Message: TypeAlias = Job | JobAnswer | Advance | Heartbeat | JobError

_TYPES: Final[dict[str, TypeAdapter[Any]]] = {
    message_type.__name__: TypeAdapter(message_type) for message_type in get_args(Message)
}


def to_line(request: int, message: Message) -> bytes:
    """A message as a line, with the number of the request that it is or belongs to."""
    body = {"request": request, "type": type(message).__name__, "message": dataclasses.asdict(message)}
    return json.dumps(body).encode() + b"\n"


def from_line(line: bytes) -> tuple[int, Any]:
    """The number of the request, and the message.

    Raises:
        pydantic.ValidationError: it is not a message of its type.
    """
    body = json.loads(line)
    return body["request"], _TYPES[body["type"]].validate_python(body["message"])
