"""What the stub slots did, from the log that they append to (`BLORA_STUB_LOG`): what was in flight, what done twice."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Entry:
    """One line of the log.

    Attributes:
        at: seconds by the machine's monotonic clock, the same for all processes.
        process_id: of the slot's child.
        event: begin, end (it is in the store) or fail (an error was raised).
        job: train, draw or score.
        item: id of the adapter, of the batch's first picture or of the shard.
    """

    at: float
    process_id: int
    event: str
    job: str
    item: str


def read_ledger(path: Path) -> list[Entry]:
    """Every entry in the order of time; a line that a kill cut short would be a defect of O_APPEND, and raises."""
    if not path.exists():
        return []
    return sorted((Entry(**json.loads(line)) for line in path.read_text().splitlines()), key=lambda entry: entry.at)


def in_flight(entries: Sequence[Entry], process_ids: set[int]) -> list[str]:
    """The jobs that some slots have begun and not ended."""
    open_jobs: dict[tuple[int, str], str] = {}
    for entry in entries:
        if entry.process_id in process_ids:
            if entry.event == "begin":
                open_jobs[entry.process_id, entry.item] = entry.job
            else:
                open_jobs.pop((entry.process_id, entry.item), None)
    return sorted(open_jobs.values())


@dataclass(frozen=True)
class Trainings:
    """How often adapters were trained.

    Attributes:
        begun: trainings begun.
        finished: trainings that ended with the adapter in the store.
        failed: trainings that ended with an error, such as a store that did not answer.
        again: how often a training was begun again because an earlier one was cut off.
        twice: adapters that were trained although they were finished.
        at_once: adapters that two processes trained at one time.
    """

    begun: int
    finished: int
    failed: int
    again: int
    twice: tuple[str, ...]
    at_once: tuple[str, ...]


def count_trainings(entries: Sequence[Entry], killed_at: dict[int, float]) -> Trainings:
    """Count them.

    Args:
        entries: the ledger.
        killed_at: by process id of a slot, when it was killed or its parent was; same clock.
    """
    trainings = [entry for entry in entries if entry.job == "train"]
    finished: dict[str, float] = {}
    open_since: dict[str, Entry] = {}
    twice: set[str] = set()
    at_once: set[str] = set()
    for entry in trainings:
        if entry.event == "begin":
            if entry.item in finished:
                twice.add(entry.item)
            before = open_since.get(entry.item)
            if before is not None and killed_at.get(before.process_id, float("inf")) > entry.at:
                at_once.add(entry.item)
            open_since[entry.item] = entry
        else:
            if entry.event == "end":
                finished[entry.item] = entry.at
            if entry.item in open_since and open_since[entry.item].process_id == entry.process_id:
                del open_since[entry.item]
    events = Counter(entry.event for entry in trainings)
    again = events["begin"] - len({entry.item for entry in trainings})
    return Trainings(
        events["begin"], events["end"], events["fail"], again, tuple(sorted(twice)), tuple(sorted(at_once))
    )
