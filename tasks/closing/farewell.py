"""What a command says of a run that it has worked off: its worst pictures, how it ended, and what to do next."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from manifests.errors import counted
from manifests.ids import name_in
from manifests.store.run_folder import RunFolder
from manifests.store.store import Store
from manifests.tables.run import ADAPTERS_FILE
from tasks.closing.yields import why_failed
from tasks.review.score_order import default_sort
from tasks.review.score_table import ScoreRow, render, score_table
from tasks.run.markers import read_markers
from tasks.run.outcome import RunRecord, read_record
from tasks.run.plan import RunInfo, load_run
from tasks.words import NOT_JUDGED, seconds_in_words

NAMED = 10
"""Adapters that failed their check and are named."""
WORST = 10
"""Pictures that are shown at the end of a run; a page and a command show all."""


@dataclass(frozen=True)
class Farewell:
    """The end of a run, for a terminal.

    Attributes:
        worst: the table of its worst pictures, under a title; empty where none has scores.
        failed: adapters that are used though they failed their check, and why, a line each.
        summary: how it ended, in a line.
        commands: what to type next, in order.
        is_complete: whether all that was asked for is there.
    """

    worst: str
    failed: tuple[str, ...]
    summary: str
    commands: tuple[str, ...]
    is_complete: bool


def farewell(store: Store, run_id: str, root: str, took_seconds: float | None = None) -> Farewell:
    """Look at a run that has just ended.

    Args:
        store: the store.
        run_id: the run.
        root: the store as the user gave it; empty where they need not give it.
        took_seconds: since the command was given, if known.
    """
    record, run = read_record(store, run_id), load_run(store, run_id)
    rows = score_table(store, run)
    summary = _summary(record, took_seconds, has_pictures=bool(rows))
    return Farewell(_worst(rows), tuple(_failed(store, run)), summary, _commands(record, root), record.complete)


def _failed(store: Store, run: RunInfo) -> Iterator[str]:
    """Adapters that failed their check and are no fault of the run, which says it itself."""
    if run.settings.check.attempts > 1:
        return
    bad = [row for row in RunFolder(store, run.run_id).rows(ADAPTERS_FILE) if row["passed"] is False]
    markers = read_markers(store, [row["adapter_id"] for row in bad[:NAMED]])
    for row in bad[:NAMED]:
        if isinstance(marker := markers.get(row["adapter_id"]), Mapping):
            yield f"{row['name']} failed its check: {why_failed(marker['check'])}; look at it, or raise check.attempts"
    if len(bad) > NAMED:
        yield f"and {counted(len(bad) - NAMED, 'more adapter')} failed, see the table of adapters on the page"


def _worst(rows: list[ScoreRow]) -> str:
    if not rows:
        return ""
    score = default_sort({name for row in rows for name in row.scores})
    title = (
        f"the {WORST} worst of {counted(len(rows), 'picture')}" if len(rows) > WORST else "all pictures, worst first"
    )
    return f"{title} (by {score}):\n{render(rows[:WORST], 'table')}"


def _summary(record: RunRecord, took_seconds: float | None, *, has_pictures: bool) -> str:
    state = "finished" if record.complete else "ended with faults"
    passed = f"; passed: {record.passed}" if record.passed else f"; {NOT_JUDGED}" if has_pictures else ""
    took = f"; {seconds_in_words(took_seconds)}" if took_seconds is not None else ""
    return f"{record.run_id} {state}: {record.sentence}{passed}{took}"


def _commands(record: RunRecord, root: str) -> tuple[str, ...]:
    run_id, where = record.run_id, f" --root {shlex.quote(root)}" if root else ""
    look, scores = f"blora report {run_id}{where} --open", f"blora scores {run_id}{where}"
    if not record.complete:
        return f"blora rerun {run_id}{where}", f"blora status {run_id}{where}", look
    return look, scores, f"blora export {run_id} ./{name_in(run_id)}{where}"
