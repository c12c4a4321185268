"""The scores of a run: many small parts while it goes on, one object in the data set once it was closed.

A bucket changes one object at a time. A reader that globs a folder asks for a list and then for the objects in it, so
where several objects stand for the same rows, no order of writing and deleting is safe: the new one first, and a reader
counts rows twice; the old ones first, and it misses them. A pointer to the valid ones (as table formats have) helps
only readers that follow it, which a plain ``'scores/**/*.parquet'`` does not.

So what stands for rows in the data set is one object, always the same:

1. Shards write their parts where no glob of the data set looks: ``runs/<run_id>/scores/<shard_id>.parquet``.
2. Closing a run puts all its rows at ``scores/date=.../run=<run_id>/part-0.parquet``: one put, so a reader of the data
   set sees a run's rows as they were when it was last closed, or none if it never was. A rerun replaces the object.
   Its metadata says which parts it stands for, each by the version that a listing gave before it was read.
3. Housekeeping deletes the parts later, once nothing has been written in the run for a day, nobody is at work on it,
   and the object stands for each of them as it is now.

The product's own reader lists the parts first and reads the object afterwards. Of the parts it reads those that the
object does not stand for, and their rows count before the object's; so a finished run costs one read, however many
shards it had. As the object is there before the first part goes, no row is missed: where a listed part has gone, all is
read again.

A scorer that came when the run had ended has parts of its own, which count once the object's metadata name it. They do
when the object has its rows, so that a reader sees none of them or all; only those of the version named there count.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from manifests import layout
from manifests.errors import Damaged
from manifests.store.backend import Entry
from manifests.store.parallel import in_parallel
from manifests.store.run_folder import damage_told
from manifests.store.store import Store
from manifests.tables.parquet import from_parquet_bytes, read_note, read_rows, to_parquet_bytes, to_table
from manifests.tables.run import SCORES
from tasks.errors import RunNotFound
from tasks.run.plan import RunInfo, Shard, load_run, published_scores_key, scores_key

log = logging.getLogger(__name__)

_RESCORED = "blora rerun makes these scores again"
_PARTS, _ADDED = "parts", "added scorers"  # what the object's metadata note


@dataclass(frozen=True)
class RunScores:
    """The scores of a run.

    Attributes:
        table: every row, of table SCORES.
        parts: the parts that the rows stand for: the version of each, by key.
        added: the scorers that came when the run had ended and whose rows count: the version of each, by name.
    """

    table: pa.Table
    parts: Mapping[str, str]
    added: Mapping[str, str] = field(default_factory=dict)

    @property
    def sample_ids(self) -> frozenset[str]:
        """The pictures that have scores."""
        return frozenset(self.table["sample_id"].unique().to_pylist())

    def rows(self, *names: str) -> Iterator[dict[str, Any]]:
        """Some columns of every row, by name."""
        return read_rows(self.table.select(names))

    def columns(self, *names: str) -> Iterator[tuple[Any, ...]]:
        """Some columns of every row, in this order."""
        return (tuple(row[name] for name in names) for row in self.rows(*names))


_NOTHING = RunScores(to_table([], SCORES), {})


def read_scores(
    store: Store, run: RunInfo, shards: Iterable[Shard] | None = None, added: Mapping[str, str] | None = None
) -> RunScores:
    """The scores of a run, those of its last closing and those that came since.

    Args:
        store: the store.
        run: the run.
        shards: some of its shards: of the others it is enough to have what there was at the last closing.
        added: further scorers, and the version of each, whose rows are to count as if they had been published.
    """
    listed = store.list(layout.shard_scores_prefix(run.run_id))
    keys = listed.keys() if shards is None else {scores_key(run, shard) for shard in shards} & listed.keys()
    published = read_published(store, run)
    versions = {**published.added, **(added or {})}
    parts = {key: listed[key].version for key in keys} | _added_parts(store, run, shards, versions)
    newer = [key for key, version in parts.items() if published.parts.get(key) != version]
    rows, elder = [_NOTHING.table], _current(published.table, versions)
    for key, data in zip(newer, in_parallel(store, store.find, newer), strict=True):
        if data is None:  # the object has its rows by now
            return read_scores(store, run, shards, added)
        try:
            with damage_told(store, key, _RESCORED):
                table = from_parquet_bytes(data, SCORES)
        except Damaged as error:  # as if it were not there
            log.warning("%s", error)
            del parts[key]
            continue
        rows.append(_current(table, versions))
        if table.num_rows and not rows[-1].num_rows:  # all of a version that does not count: the object is without them
            del parts[key]
    new = pa.concat_tables(rows)
    if new.num_rows:
        elder = elder.filter(pc.invert(pc.is_in(_names(elder), _names(new))))
        # In an order of their own, so that the table does not tell in which order shards came.
        elder = pa.concat_tables([new, elder]).sort_by([("sample_id", "ascending"), ("score", "ascending")])
    return RunScores(elder, {**published.parts, **parts}, versions)


def _added_parts(
    store: Store, run: RunInfo, shards: Iterable[Shard] | None, versions: Mapping[str, str]
) -> dict[str, str]:
    """The parts of scorers that came later, by their versions in the store; nothing where there are none."""
    if not versions:
        return {}
    prefix = layout.added_scores_prefix(run.run_id)
    wanted = None if shards is None else {shard.shard_id for shard in shards}
    parts = {}
    for key, entry in store.list(prefix).items():
        shard_id, _, scorer = key.removeprefix(prefix).removesuffix(".parquet").partition("-")
        if scorer in versions and (wanted is None or shard_id in wanted):
            parts[key] = entry.version
    return parts


def _current(table: pa.Table, versions: Mapping[str, str]) -> pa.Table:
    """The rows without those of scorers that came later in other versions than those that count."""
    for scorer, version in versions.items():
        of_another = pc.and_(pc.equal(table["scorer"], scorer), pc.not_equal(table["scorer_version"], version))
        table = table.filter(pc.invert(of_another))
    return table


def publish_scores(store: Store, run: RunInfo, scores: RunScores) -> None:
    """Put a run's rows into the data set, in place of those of its last closing. A run without any stays out of it."""
    if scores.table.num_rows:
        notes = {_PARTS: json.dumps(dict(sorted(scores.parts.items())))}
        if scores.added:
            notes[_ADDED] = json.dumps(dict(sorted(scores.added.items())))
        store.replace(published_scores_key(run), to_parquet_bytes(scores.table, notes))


def superseded_parts(store: Store, run_id: str, entries: Mapping[str, Entry]) -> dict[str, int]:
    """The parts of a run that its published object stands for, with their sizes in bytes.

    Args:
        store: the store.
        run_id: a run that nobody is at work on.
        entries: its objects, as a listing gives them.

    Returns:
        All its parts; none if it was never closed, or has scores that came after its last closing.
    """
    prefixes = layout.shard_scores_prefix(run_id), layout.added_scores_prefix(run_id)
    parts = {key: entry for key, entry in entries.items() if key.startswith(prefixes)}
    if not parts:
        return {}
    try:
        known = read_published(store, load_run(store, run_id)).parts
    except (RunNotFound, Damaged):
        return {}
    held = all(known.get(key) == entry.version for key, entry in parts.items())
    return {key: entry.size for key, entry in parts.items()} if held else {}


def _names(rows: pa.Table) -> pa.Array:
    """What a row is about: the picture and the score."""
    return pc.binary_join_element_wise(rows["sample_id"], rows["score"], " ").combine_chunks()


def read_published(store: Store, run: RunInfo) -> RunScores:
    """The rows of a run as it was last closed, with the parts that they stand for; nothing if it never was.

    An object that cannot be read counts as none, and the log tells of it.
    """
    key = published_scores_key(run)
    if (data := store.find(key)) is None:
        return _NOTHING
    try:
        with damage_told(store, key, _RESCORED):
            table = from_parquet_bytes(data, SCORES)
            parts, added = (json.loads(read_note(data, name) or "{}") for name in (_PARTS, _ADDED))
            return RunScores(table, parts, added)
    except Damaged as error:
        log.warning("%s", error)
        return _NOTHING
