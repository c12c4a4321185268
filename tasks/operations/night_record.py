"""The record of a night: what was done, what failed and why, manifest by manifest (``nights/<night_id>/night.json``).

It is written anew after every manifest, so that a night that was killed has left its record as well.
"""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Literal

from manifests import layout
from manifests.errors import Missing, counted, listed
from manifests.store.parallel import in_parallel
from manifests.store.run_folder import damage_told, json_mapping
from manifests.store.store import Store
from tasks.errors import RunNotFound

EntryState = Literal["finished", "already finished", "faults", "refused", "left"]

FAULTS_SHOWN = 20
"""Faults of one manifest that the record repeats; all of them are in the run's faults.parquet."""


@dataclass(frozen=True)
class NightEntry:
    """What a night did with one manifest.

    Attributes:
        manifest: its key in the inbox, made printable.
        state: ``finished``; ``already finished`` (before this night); ``faults`` (something is missing or was refused);
            ``refused`` (nothing could be run); ``left`` (the night's time was over).
        run_id: the run it became; empty where there is none.
        sentence: how that stands, in one line.
        faults: the first faults, a line each, and how many there are beyond.
        seconds: how long it took.
    """

    manifest: str
    state: EntryState
    run_id: str = ""
    sentence: str = ""
    faults: tuple[str, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True)
class Night:
    """A night.

    Attributes:
        night_id: when it began, and a tail that tells two nights of one second apart.
        started_at: UTC.
        ended_at: UTC; None while it goes on, or if it was killed.
        entries: the manifests of the inbox, in the order in which they were dropped; first those that cannot be read.
        ignored: files of the inbox that are no manifests.
    """

    night_id: str
    started_at: datetime
    ended_at: datetime | None = None
    entries: tuple[NightEntry, ...] = field(default=())
    ignored: tuple[str, ...] = ()

    @classmethod
    def begin(cls) -> Night:
        """A night that starts now."""
        now = datetime.now(UTC)
        return cls(f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}", now)

    def add(self, entry: NightEntry) -> Night:
        """The night with one more manifest."""
        return replace(self, entries=(*self.entries, entry))

    def ignoring(self, names: Sequence[str]) -> Night:
        """The night with what else lay in the inbox."""
        return replace(self, ignored=tuple(names))

    def end(self) -> Night:
        """The night, over."""
        return replace(self, ended_at=datetime.now(UTC))

    def count(self, *states: EntryState) -> int:
        """How many manifests stand like that."""
        return sum(entry.state in states for entry in self.entries)

    @property
    def failed(self) -> bool:
        """Whether anything needs a person."""
        return self.count("faults", "refused") > 0

    @property
    def sentence(self) -> str:
        """The night in one line, for states, lists and alerts."""
        parts = [f"{counted(self.count('finished'), 'manifest')} finished"]
        named: dict[EntryState, str] = {
            "faults": "with faults",
            "refused": "refused",
            "left": "left for the next night",
        }
        for state, words in named.items():
            keys = [entry.manifest.removeprefix(layout.INBOX_PREFIX) for entry in self.entries if entry.state == state]
            if keys:
                parts.append(f"{len(keys)} {words} ({listed(keys, 5)})")
        if before := self.count("already finished"):
            parts.append(f"{before} finished before")
        if self.ignored:
            names = [name.removeprefix(layout.INBOX_PREFIX) for name in self.ignored]
            parts.append(f"no manifest and ignored: {listed(names, 5)}")
        return ", ".join(parts)


def write_night(store: Store, night: Night) -> None:
    """Keep the record of a night as it stands."""
    body = asdict(night) | {"started_at": night.started_at.isoformat(), "sentence": night.sentence}
    body["ended_at"] = night.ended_at.isoformat() if night.ended_at else None
    store.replace(layout.night_key(night.night_id), json.dumps(body, indent=2, ensure_ascii=False).encode())


def load_night(store: Store, night_id: str = "") -> Night:
    """Read the record of a night; the last one where none is named.

    Raises:
        RunNotFound: the store has no such night.
        Damaged: its record cannot be read.
    """
    known = [key.split("/")[1] for key in store.list(layout.NIGHTS_PREFIX) if key.endswith("/night.json")]
    if not night_id and not known:
        raise RunNotFound(f"no night has been worked off in {store.root}")
    key = layout.night_key(night_id or known[-1])
    try:
        data = store.read(key)
    except Missing as error:
        raise RunNotFound(f"night: received {night_id!r}; the store holds: {', '.join(known[-10:])}") from error
    with damage_told(store, key, "name another night, or delete it: a night's record is for looking alone"):
        body = json_mapping(data)
        return Night(
            body["night_id"],
            datetime.fromisoformat(body["started_at"]),
            datetime.fromisoformat(body["ended_at"]) if body["ended_at"] else None,
            tuple(NightEntry(**entry | {"faults": tuple(entry["faults"])}) for entry in body["entries"]),
            tuple(body.get("ignored", ())),
        )


def runs_of_nights(store: Store) -> frozenset[str]:
    """Ids of the runs that nights have worked off, by the records of all nights; unreadable ones count as none."""
    keys = [key for key in store.list(layout.NIGHTS_PREFIX) if key.endswith("/night.json")]
    run_ids: set[str] = set()
    for data in in_parallel(store, store.find, keys):
        with contextlib.suppress(ValueError, TypeError, KeyError):
            run_ids.update(str(entry["run_id"]) for entry in json.loads(data or b"{}")["entries"])
    return frozenset(run_ids - {""})
