"""How far a run is and how long the rest will take: reckoned first, then by the pace at which it really goes."""

from __future__ import annotations

from typing import Any

import pytest

from tasks import progress
from tasks.progress import Tally
from tasks.words import roughly

PACE = {"train": 1.0, "sample": 10.0, "score": 2.0, "other": 30.0, "slots": 2.0}


def work(**pace: float) -> dict[str, Any]:
    done, total = {"train": 0, "sample": 2, "score": 2}, {"train": 100, "sample": 7, "score": 7}
    return {"kind": "work", "id": "r", "done": done, "total": total} | ({"pace": PACE | pace} if pace else {})


def test_the_time_left_follows_the_pace_at_which_the_work_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    tally = Tally()
    assert (tally.seconds_left(), tally.sentence()) == (None, "")
    tally(work(train=1.0))
    assert tally.seconds_left() == 30 + (100 + 5 * 10 + 5 * 2) / 2
    now[0] += 20
    assert tally.seconds_left() == 10 + 80, "the start has gone on"
    tally({"kind": "train", "id": "p", "done": 10, "total": 50})
    assert tally.seconds_left("train") == 45 and tally.seconds_left() == 75
    now[0] += 40
    tally({"kind": "train", "id": "p", "done": 50, "total": 50})
    left = tally.seconds_left()
    assert left is not None and 1.7 * 55 < left < 2 * 55, "80 slot seconds for what was reckoned as 40"
    assert tally.sentence() == f"50 of 100 steps, 2 of 7 pictures, 2 of 7 scores; about {roughly(left)} left"
    tally({"kind": "train", "id": "q", "done": 50, "total": 50})
    for kind in ("sample", "score"):
        tally({"kind": kind, "id": "s", "done": 5, "total": 5})
    assert tally.seconds_left() == 0


def test_without_a_pace_only_counts_are_told_and_another_run_begins_anew() -> None:
    tally = Tally()
    tally(work())
    tally({"kind": "sample", "id": "s", "done": 3, "total": 5})
    assert (tally.seconds_left(), tally.sentence()) == (None, "0 of 100 steps, 5 of 7 pictures, 2 of 7 scores")
    tally(work(train=1.0))
    assert tally.done("sample") == 2


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "5 s"),
        (31, "35 s"),
        (85.5, "90 s"),
        (91, "2 min"),
        (3541, "1 h 00 min"),
        (7900, "2 h 10 min"),
        (10**6, "12 days"),
    ],
)
def test_reckoned_durations_are_said_roughly(seconds: float, said: str) -> None:
    assert roughly(seconds) == said
