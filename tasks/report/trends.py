"""Nights over time: what was asked for, what came out, what it cost, and whether scores drift.

A night is a day (UTC) on which runs were planned; work done on one of them later counts for its night. Where a store
has records of nights, the runs that are in none of them were begun by day: they are told apart, and judge no night.

**The drift alarm.** A night's value of a score is the median over its pictures. It is held against the nights before:
their median, plus and minus `WIDTH` times their spread, which is 1.4826 times the median absolute deviation (a standard
deviation where values are normal; one bad night among them does not move either), but at least `LEAST_SPREAD` of the
median, so that nights that repeat each other do not make an alarm of a rounding. A night is judged when `LEAST_NIGHTS`
nights are before it, by the last `BAND_NIGHTS` of them; nights of fewer than `LEAST_PICTURES` pictures are neither
judged nor judged by; nights are held against nights of the same scorer version only. Of steady normal nights, 1.0 %
fall out of the band of 10 others, 0.4 % out of that of 14, and 0.04 % out of that of 30 (200,000 simulated).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Final, Literal, TypeAlias

from blora.settings.score_meanings import lower_is_better
from manifests import layout
from manifests.errors import Damaged, Missing
from manifests.store.parallel import in_parallel
from manifests.store.run_folder import RunFolder, damage_told
from manifests.store.store import Store
from manifests.tables.parquet import from_parquet_bytes
from manifests.tables.run import FAULTS_FILE, SAMPLES_FILE, SCORES
from tasks.operations.night_record import runs_of_nights
from tasks.review.decisions import load_marks
from tasks.run.outcome import RunRecord, read_records

log = logging.getLogger(__name__)

WIDTH: Final = 5.0
LEAST_SPREAD: Final = 0.01
LEAST_NIGHTS: Final = 10
BAND_NIGHTS: Final = 30
LEAST_PICTURES: Final = 8

Alarm: TypeAlias = Literal["", "worse", "better"]
ScoreName: TypeAlias = "tuple[str, str]"  # name, scorer version


@dataclass
class NightSummary:
    """What came of the runs that were planned on one day.

    Attributes:
        date: the day, YYYY-MM-DD, UTC.
        runs: their ids and states.
        planned: pictures that were asked for.
        done: pictures that are there.
        faults: recorded faults.
        device_seconds: seconds of training, drawing and scoring, as of the last time each run was worked on.
        bytes: bytes of the pictures.
        kept: pictures that a person says to keep.
        decided: pictures that a person has decided about.
        scores: values by (score, scorer version).
    """

    date: str
    runs: list[tuple[str, str]] = field(default_factory=list)
    planned: int = 0
    done: int = 0
    faults: int = 0
    device_seconds: float = 0.0
    bytes: int = 0
    kept: int = 0
    decided: int = 0
    scores: dict[ScoreName, list[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class TrendPoint:
    """A night's value of a score against the nights before.

    Attributes:
        date: the night.
        value: median over its pictures; None where it has too few.
        low: lower end of the band; None where too few nights are before it.
        high: its upper end.
        pictures: pictures with this score.
        alarm: the side on which the value is out of the band.
    """

    date: str
    value: float | None
    low: float | None
    high: float | None
    pictures: int
    alarm: Alarm


Runs: TypeAlias = tuple[list[RunRecord], list[RunRecord]]
"""Runs that nights worked off, and runs by day."""


def runs_apart(store: Store) -> Runs:
    """Read the records of a store's runs; where no nights are recorded, all are taken for those of nights."""
    records, at_night = read_records(store), runs_of_nights(store)
    return (
        [one for one in records if not at_night or one.run_id in at_night],
        [one for one in records if at_night and one.run_id not in at_night],
    )


def load_nights(store: Store, last: int, runs: Runs | None = None) -> list[NightSummary]:
    """Read the last nights of a store, oldest first.

    Args:
        store: the store.
        last: how many nights on which something was planned.
        runs: what `runs_apart` has read, where that is at hand.
    """
    return _summaries(store, (runs or runs_apart(store))[0], last)


def load_days(store: Store, last: int, runs: Runs | None = None) -> list[NightSummary]:
    """The same of the days on which runs were planned by day; none where no nights are recorded."""
    return _summaries(store, (runs or runs_apart(store))[1], last)


def _summaries(store: Store, records: Sequence[RunRecord], last: int) -> list[NightSummary]:
    runs: dict[str, list[RunRecord]] = {}
    for record in records:
        runs.setdefault(record.created_at[:10], []).append(record)
    nights = []
    for date in sorted(runs)[-last:]:
        night = NightSummary(date)
        for record in sorted(runs[date], key=lambda record: record.created_at):
            _add_run(store, night, record)
        _add_scores(store, night)
        nights.append(night)
    return nights


def _add_run(store: Store, night: NightSummary, record: RunRecord) -> None:
    run_id = record.run_id
    run = RunFolder(store, run_id)
    night.runs.append((run_id, record.state))
    night.device_seconds += sum(record.timings.get(f"{kind}_seconds") or 0.0 for kind in ("train", "sample", "score"))
    try:
        samples, faults = run.read(SAMPLES_FILE), run.read(FAULTS_FILE)
    except Missing:
        return  # it has not ended yet
    except Damaged as error:
        log.warning("%s", error)
        return
    night.planned += samples.num_rows
    night.done += samples["status"].to_pylist().count("done")
    night.bytes += sum(size or 0 for size in samples["bytes"].to_pylist())
    night.faults += faults.num_rows
    decisions = [mark.decision for mark in load_marks(store, run_id).values()]
    night.kept += decisions.count("keep")
    night.decided += len(decisions)


def _add_scores(store: Store, night: NightSummary) -> None:
    of_runs = {f"run={run_id}" for run_id, _ in night.runs}
    parts = store.list(f"{layout.SCORES_PREFIX}date={night.date}/")
    keys = [key for key in parts if of_runs.intersection(key.split("/"))]
    for key, data in zip(keys, in_parallel(store, store.find, keys), strict=True):
        if data is None:  # deleted at this moment, with its run
            continue
        try:
            with damage_told(store, key, "blora rerun writes it again"):
                table = from_parquet_bytes(data, SCORES)
        except Damaged as error:
            log.warning("%s", error)
            continue
        columns = (table[name].to_pylist() for name in ("score", "scorer_version", "value"))
        for name, version, value in zip(*columns, strict=True):
            night.scores.setdefault((name, version), []).append(value)


def trend(nights: Sequence[NightSummary], score: ScoreName) -> list[TrendPoint]:
    """Hold every night's value of a score against the nights before it."""
    before: list[float] = []
    points: list[TrendPoint] = []
    for night in nights:
        values = night.scores.get(score, [])
        if len(values) < LEAST_PICTURES:
            points.append(TrendPoint(night.date, None, None, None, len(values), ""))
            continue
        value, band = median(values), band_of(before[-BAND_NIGHTS:])
        alarm: Alarm = ""
        if band is not None and not band[0] <= value <= band[1]:
            alarm = "worse" if (value > band[1]) is lower_is_better(score[0]) else "better"
        low, high = band or (None, None)
        points.append(TrendPoint(night.date, value, low, high, len(values), alarm))
        before.append(value)
    return points


def band_of(values: Sequence[float]) -> tuple[float, float] | None:
    """The band in which the next night's value is expected, or None while there are too few nights."""
    if len(values) < LEAST_NIGHTS:
        return None
    middle = median(values)
    spread = max(1.4826 * median(abs(value - middle) for value in values), LEAST_SPREAD * abs(middle))
    return middle - WIDTH * spread, middle + WIDTH * spread


def nights_judged(points: Sequence[TrendPoint]) -> int:
    """How many nights have a value that others can be held against."""
    return sum(point.value is not None for point in points)


def all_trends(nights: Sequence[NightSummary]) -> dict[ScoreName, list[TrendPoint]]:
    """The trend of every score, by name and scorer version."""
    names = sorted({name for night in nights for name in night.scores})
    return {name: trend(nights, name) for name in names}
