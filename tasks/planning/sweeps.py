"""Sweeps of a run: which pictures are a strip, and in which order; `tasks.figures.strips` draws them.

Which pictures belong to which sweep is written beside the plan (``sweeps.json``): one picture may be a step of several.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from manifests.schema.entries import PairEntry
from manifests.store.run_folder import RunFolder
from manifests.store.store import Store
from tasks.run.plan import PlannedSample


@dataclass(frozen=True)
class StripStep:
    """One picture of a strip, with what it stands for, such as "style_strength 0.5"."""

    label: str
    sample_id: str
    key: str


@dataclass(frozen=True)
class Strip:
    """The pictures of one sweep with one seed, in order."""

    label: str
    steps: tuple[StripStep, ...]


def strips_of(drawn: Sequence[tuple[PairEntry, PlannedSample]]) -> tuple[Strip, ...]:
    """Gather the sweeps of a manifest, by what it says of its pairs."""
    rows: dict[tuple[int | None, str], list[StripStep]] = {}
    for pair, sample in drawn:
        if not pair.sweep:
            continue
        words = [pair.sweep, pair.prompt or ""]
        if pair.colour_of or pair.colour_by:
            words.append(f"colours of {pair.colour_of or 'content'} by {pair.colour_by or 'transfer'}")
        if len(pair.seeds) > 1:
            words.append(f"seed {sample.seed}")
        label = ", ".join(word for word in words if word)
        rows.setdefault((pair.row, label), []).append(StripStep(pair.step, sample.sample_id, sample.key))
    return tuple(Strip(label, tuple(steps)) for (_, label), steps in rows.items())


def write_strips(store: Store, run_id: str, strips: Sequence[Strip]) -> None:
    """Keep a run's sweeps beside its plan; nothing where it has none."""
    if strips:
        RunFolder(store, run_id).write_json_once("sweeps.json", [asdict(strip) for strip in strips])


def read_strips(store: Store, run_id: str) -> tuple[Strip, ...]:
    """Read back what `write_strips` wrote; nothing where a run has no sweeps."""
    rows = RunFolder(store, run_id).find_json("sweeps.json") or []
    return tuple(Strip(row["label"], tuple(StripStep(**step) for step in row["steps"])) for row in rows)
