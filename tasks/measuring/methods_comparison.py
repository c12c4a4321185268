"""Methods on the pairs of a run: one score table, means with intervals, seconds and bytes.

Everything is taken over the pairs and seeds that every method has a picture and a score of. Intervals resample contents
and styles apart (`tasks.report.crossed`), since pictures that share one are not independent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from blora.settings.score_meanings import lower_is_better
from manifests.store.parallel import in_parallel
from manifests.store.run_folder import RunFolder
from manifests.store.store import Store
from manifests.tables.run import ADAPTERS_FILE
from tasks.errors import RunRefused
from tasks.measuring.compared_methods import comparable, method_file, method_scores_files
from tasks.report.crossed import crossed_interval
from tasks.run.outcome import read_record
from tasks.run.plan import Plan, PlannedSample
from tasks.run.scores import read_scores

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Cost:
    """What a method takes; None where nobody measured it (the run's pictures were drawn by an earlier run, say)."""

    train_seconds: float | None
    draw_seconds: float | None
    adapter_bytes: int


@dataclass(frozen=True)
class MethodComparison:
    """Methods on the pairs of a run.

    Attributes:
        plan: the run.
        methods: those that have pictures, blora first.
        rows: rows of table METHOD_SCORES, of the pictures that all of them have.
        summary: rows of table METHODS.
        costs: by method.
        left_out: methods that were asked for and are not there, with the reason.
        pictures: the run's pictures that every method has a counterpart of.
        alone: how many comparable pictures of the run lack one.
        other: how many pictures of the run are not comparable: mixes, prompts for a side, changed colours.
    """

    plan: Plan
    methods: tuple[str, ...]
    rows: Rows
    summary: Rows
    costs: Mapping[str, Cost]
    left_out: Mapping[str, str]
    pictures: tuple[PlannedSample, ...]
    alone: int
    other: int


def gather_methods(store: Store, plan: Plan, asked: Sequence[str], left_out: Mapping[str, str]) -> MethodComparison:
    """Read what methods have drawn and how it was judged.

    Raises:
        RunRefused: there is no pair that all of them have a picture of.
    """
    methods = tuple(name for name in asked if name not in left_out)
    scores = {
        name: _blora_rows(store, plan) if name == "blora" else _method_rows(store, plan, name) for name in methods
    }
    have = {name: frozenset(row["blora_sample_id"] for row in rows) for name, rows in scores.items()}
    shared = frozenset.intersection(*have.values())
    candidates = [sample for sample in plan.samples if comparable(sample)]
    pictures = tuple(sample for sample in candidates if sample.sample_id in shared)
    if not pictures:
        raise RunRefused(
            f"compare-methods: {plan.run.run_id} has no picture of one content and one style that every method has; "
            f"they have {', '.join(f'{name} {len(have[name])}' for name in methods)} of {len(candidates)}"
        )
    rows = [row for name in methods for row in scores[name] if row["blora_sample_id"] in shared]
    costs = {name: _cost(store, plan, name) for name in methods}
    return MethodComparison(
        plan,
        methods,
        rows,
        _summary(plan, methods, rows, pictures, costs),
        costs,
        left_out,
        pictures,
        len(candidates) - len(pictures),
        len(plan.samples) - len(candidates),
    )


def _summary(
    plan: Plan,
    methods: Sequence[str],
    rows: Rows,
    pictures: Sequence[PlannedSample],
    costs: Mapping[str, Cost],
) -> Rows:
    contents = list(dict.fromkeys(sample.content_id for sample in pictures))
    styles = list(dict.fromkeys(sample.style_id for sample in pictures))
    place = {
        sample.sample_id: (contents.index(sample.content_id), styles.index(sample.style_id)) for sample in pictures
    }
    values: dict[str, dict[str, dict[str, float]]] = {}
    scorers: dict[str, tuple[str, str]] = {}
    for row in rows:
        values.setdefault(row["score"], {}).setdefault(row["method"], {})[row["blora_sample_id"]] = row["value"]
        scorers[row["score"]] = row["scorer"], row["scorer_version"]
    summary: Rows = []
    for score, by_method in values.items():
        known = [sample_id for sample_id in place if all(sample_id in by_method.get(name, {}) for name in methods)]
        if not known:
            continue  # a text score of pictures without words, say
        where = [place[sample_id][0] for sample_id in known], [place[sample_id][1] for sample_id in known]
        for name in methods:
            mine = [by_method[name][sample_id] for sample_id in known]
            gaps = [by_method[name][sample_id] - by_method["blora"][sample_id] for sample_id in known]
            interval = crossed_interval(mine, *where) or (None, None)
            apart = (None, None) if name == "blora" else crossed_interval(gaps, *where) or (None, None)
            cost = costs[name]
            summary.append(
                {
                    "run_id": plan.run.run_id,
                    "method": name,
                    "score": score,
                    "scorer": scorers[score][0],
                    "scorer_version": scorers[score][1],
                    "lower_is_better": lower_is_better(score),
                    "pictures": len(known),
                    "mean": fmean(mine),
                    "low": interval[0],
                    "high": interval[1],
                    "difference": fmean(gaps),
                    "difference_low": apart[0],
                    "difference_high": apart[1],
                    "train_seconds": cost.train_seconds,
                    "draw_seconds": cost.draw_seconds,
                    "adapter_bytes": cost.adapter_bytes,
                }
            )
    return sorted(summary, key=lambda row: (row["score"] != "transfer", row["score"]))


def _blora_rows(store: Store, plan: Plan) -> Rows:
    """The run's own scores of its comparable pictures by the scorers of its settings."""
    wanted = {sample.sample_id for sample in plan.samples if comparable(sample)}
    rows = [row for row in read_scores(store, plan.run).table.to_pylist() if row["sample_id"] in wanted]
    return [row | {"method": "blora", "blora_sample_id": row["sample_id"]} for row in rows]


def _method_rows(store: Store, plan: Plan, method: str) -> Rows:
    run, folder = RunFolder(store, plan.run.run_id), method_scores_files(method)
    parts = in_parallel(store, run.rows, [folder.file(shard.shard_id) for shard in plan.shards])
    return [row for rows in parts for row in rows]


def _cost(store: Store, plan: Plan, method: str) -> Cost:
    if method == "blora":
        adapters = RunFolder(store, plan.run.run_id).read(ADAPTERS_FILE).to_pylist()
        timings = read_record(store, plan.run.run_id).timings
        drawn, seconds = timings.get("drawn"), timings.get("sample_seconds")
        return Cost(
            fmean(adapter["train_seconds"] for adapter in adapters) if adapters else None,
            seconds / drawn if drawn and seconds else None,
            round(fmean(adapter["content_bytes"] + adapter["style_bytes"] for adapter in adapters)) if adapters else 0,
        )
    packs = _records(store, plan, method, [pack.pack_id for pack in plan.packs])
    trained = [adapter for pack in packs for adapter in pack.values()]
    drawn = _records(store, plan, method, [shard.shard_id for shard in plan.shards])
    pictures = sum(shard["drawn"] for shard in drawn)
    return Cost(
        fmean(adapter["seconds"] for adapter in trained) if trained else 0.0,
        sum(shard["seconds"] for shard in drawn) / pictures if pictures else None,
        round(fmean(adapter["bytes"] for adapter in trained)) if trained else 0,
    )


def _records(store: Store, plan: Plan, method: str, items: Sequence[str]) -> list[dict[str, Any]]:
    """What a method's packs or shards say of themselves, as far as they have ended."""
    run = RunFolder(store, plan.run.run_id)
    records = in_parallel(store, run.find_json, [method_file(method, f"{item}.json") for item in items])
    return [record for record in records if record]
