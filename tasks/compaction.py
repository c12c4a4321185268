"""One object of scores for each run: how many small parts become one without a reader ever seeing both or neither.

A bucket changes one object at a time. A reader that globs a folder asks for a list and then for the objects in it, so
where several objects stand for the same rows, no order of writing and deleting is safe: the new one first, and a reader
counts rows twice; the old ones first, and it misses them. A pointer to the valid ones (as table formats have) helps
only readers that follow it, which a plain ``'scores/**/*.parquet'`` does not.

So what stands for rows in the data set is one object, always the same:

1. Shards write their parts where no glob of the data set looks: ``runs/<run_id>/scores/<shard_id>.parquet``.
2. Closing a run puts all its rows at ``scores/date=.../run=<run_id>/part-0.parquet``: one put, so a reader of the data
   set sees a run's rows as they were when it was last closed, or none if it never was. A rerun replaces the object.
3. Housekeeping deletes the parts later, once nothing has been written in the run for a day, nobody is at work on it,
   and the object is found to hold every row of theirs.

The product's own reader (`tasks.stock.read_scores`) asks for the parts first and for the object afterwards, and takes
from it what no part had. As the object is there before the first part goes, it finds every row, once.

Scores by a scorer that came later take the same way, with parts of their own that only the object is made of
(`tasks.added_scores`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from manifests import layout
from manifests.store import Entry, Missing, Store
from manifests.tables import SCORES, from_parquet_bytes, to_parquet_bytes, to_table
from tasks.faults import RunNotFound
from tasks.runs import RunInfo, load_run, published_scores_key
from tasks.stock import in_parallel

Rows = list[dict[str, Any]]


def publish_scores(store: Store, run: RunInfo, rows: Sequence[Mapping[str, Any]]) -> None:
    """Put a run's rows into the data set, in place of those of its last closing. A run without any stays out of it."""
    if rows:
        store.replace(published_scores_key(run), to_parquet_bytes(to_table(rows, SCORES)))


def superseded_parts(store: Store, run_id: str, entries: Mapping[str, Entry]) -> dict[str, int]:
    """The parts of a run whose every row is in its published object, with their sizes in bytes.

    Args:
        store: the store.
        run_id: a run that nobody is at work on.
        entries: its objects, as a listing gives them.

    Returns:
        All its parts; none if it was never closed, or has scores that came after its last closing.
    """
    prefix = layout.shard_scores_prefix(run_id)
    parts = {key: entry.size for key, entry in entries.items() if key.startswith(prefix)}
    if not parts:
        return {}
    try:
        published = _read(store, published_scores_key(load_run(store, run_id)))
    except (Missing, RunNotFound):
        return {}
    known = _identities(published)
    held = in_parallel(lambda key: _identities(_read(store, key)) <= known, list(parts))
    return parts if all(held) else {}


def _read(store: Store, key: str) -> Rows:
    return from_parquet_bytes(store.read(key), SCORES).to_pylist()


def _identities(rows: Iterable[Mapping[str, Any]]) -> frozenset[tuple[Any, ...]]:
    """Rows as a set; NaN, which is unlike itself, by its name."""
    return frozenset(tuple(repr(row[name]) for name in SCORES.names) for row in rows)
