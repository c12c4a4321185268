"""Methods side by side: one score table, one table of means with intervals, seconds and bytes, and a sheet of pictures.

Everything is taken over the pairs and seeds that every method has a picture and a score of. Intervals resample contents
and styles apart (`tasks.review.crossed`), since pictures that share one are not independent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from manifests import layout
from manifests.store.parallel import in_parallel
from manifests.store.store import Store
from manifests.tables.measuring import METHOD_SCORES, METHODS
from manifests.tables.parquet import from_parquet_bytes, to_parquet_bytes, to_table
from manifests.tables.run import ADAPTERS
from tasks.compaction import read_scores
from tasks.contact_sheet import contact_sheet
from tasks.faults import RunRefused
from tasks.method_names import comparable, method_key, methods_key, sample_key_of
from tasks.review.crossed import crossed_interval
from tasks.runs import Plan, PlannedSample
from tasks.score_table import lower_is_better

Rows = list[dict[str, Any]]

SHEET_MOST = 16
"""Pairs on the sheet."""


@dataclass(frozen=True)
class Cost:
    """What a method takes; None where nobody measured it (the run's pictures were drawn by an earlier run, say)."""

    train_seconds: float | None
    draw_seconds: float | None
    adapter_bytes: int


@dataclass(frozen=True)
class Found:
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


def gather_methods(store: Store, plan: Plan, asked: Sequence[str], left_out: Mapping[str, str]) -> Found:
    """Read what methods have drawn and how it was judged.

    Raises:
        RunRefused: there is no pair that all of them have a picture of.
    """
    methods = tuple(name for name in asked if name not in left_out)
    scores = {
        name: _blora_rows(store, plan) if name == "blora" else _method_rows(store, plan, name) for name in methods
    }
    have = {name: {row["blora_sample_id"] for row in rows} for name, rows in scores.items()}
    shared = frozenset.intersection(*(frozenset(some) for some in have.values()))
    some = [sample for sample in plan.samples if comparable(sample)]
    pictures = tuple(sample for sample in some if sample.sample_id in shared)
    if not pictures:
        raise RunRefused(
            f"compare-methods: {plan.run.run_id} has no picture of one content and one style that every method has; "
            f"they have {', '.join(f'{name} {len(have[name])}' for name in methods)} of {len(some)}"
        )
    rows = [row for name in methods for row in scores[name] if row["blora_sample_id"] in shared]
    costs = {name: _cost(store, plan, name) for name in methods}
    return Found(
        plan,
        methods,
        rows,
        _summary(plan, methods, rows, pictures, costs),
        costs,
        left_out,
        pictures,
        len(some) - len(pictures),
        len(plan.samples) - len(some),
    )


def write_methods(store: Store, found: Found) -> str:
    """Write tables, report and sheet; returns the key of the report."""
    plan = found.plan
    tables = {"scores.parquet": (found.rows, METHOD_SCORES), "methods.parquet": (found.summary, METHODS)}
    for name, (rows, schema) in tables.items():
        store.replace(methods_key(plan, name), to_parquet_bytes(to_table(rows, schema)))
    store.replace(methods_key(plan, "sheet.png"), _sheet(store, found))
    key = methods_key(plan, "report.md")
    store.replace(key, report_text(found).encode())
    return key


def table_rows(found: Found) -> list[tuple[str, ...]]:
    """The comparison as a table for people: a row a measure, a column a method."""
    cells = {(row["score"], row["method"]): row for row in found.summary}
    scores = list(dict.fromkeys(row["score"] for row in found.summary))
    lines = [("", *found.methods)]
    for score in scores:
        name = score + (" (low is good)" if lower_is_better(score) else "")
        lines.append((name, *(_interval(cells.get((score, method))) for method in found.methods)))
    costs = [found.costs[name] for name in found.methods]
    lines.append(("training an adapter, s", *(_number(one.train_seconds) for one in costs)))
    lines.append(("drawing a picture, s", *(_number(one.draw_seconds) for one in costs)))
    lines.append(("an adapter in fp16, MB", *(f"{one.adapter_bytes / 1e6:.3g}" for one in costs)))
    return lines


def report_text(found: Found) -> str:
    """The report in Markdown."""
    head, *lines = table_rows(found)
    run = found.plan.run
    text = [
        f"# Methods on the pairs of {run.run_id}",
        "",
        f"{len(found.pictures)} pictures of each method: the same pairs, seeds and settings, base {run.base}. "
        "Means with 95 % intervals (contents and styles resampled apart). Seconds are wall time on one slot: of a "
        "training its share of the pack, of a picture loading and writing included.",
        "",
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
        *(f"| {' | '.join(line)} |" for line in lines),
        "",
    ]
    text += [f"{name} is left out: {reason}" for name, reason in found.left_out.items()]
    if found.alone or found.other:
        text.append(
            f"Not compared: {found.alone} pictures that some method lacks, {found.other} with a mix, a prompt for a "
            "side or changed colours."
        )
    return "\n".join(text) + "\n"


def _summary(
    plan: Plan,
    methods: Sequence[str],
    rows: Rows,
    pictures: Sequence[PlannedSample],
    costs: Mapping[str, Cost],
) -> Rows:
    contents = list(dict.fromkeys(one.content_id for one in pictures))
    styles = list(dict.fromkeys(one.style_id for one in pictures))
    place = {one.sample_id: (contents.index(one.content_id), styles.index(one.style_id)) for one in pictures}
    values: dict[str, dict[str, dict[str, float]]] = {}
    scorers: dict[str, tuple[str, str]] = {}
    for row in rows:
        values.setdefault(row["score"], {}).setdefault(row["method"], {})[row["blora_sample_id"]] = row["value"]
        scorers[row["score"]] = row["scorer"], row["scorer_version"]
    summary: Rows = []
    for score, by_method in values.items():
        known = [one.sample_id for one in pictures if all(one.sample_id in by_method.get(name, {}) for name in methods)]
        if not known:
            continue  # a text score of pictures without words, say
        where = [place[one][0] for one in known], [place[one][1] for one in known]
        for name in methods:
            mine = [by_method[name][one] for one in known]
            gaps = [by_method[name][one] - by_method["blora"][one] for one in known]
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
    wanted = {one.sample_id for one in plan.samples if comparable(one)}
    rows = [row for row in read_scores(store, plan.run).table.to_pylist() if row["sample_id"] in wanted]
    return [row | {"method": "blora", "blora_sample_id": row["sample_id"]} for row in rows]


def _method_rows(store: Store, plan: Plan, method: str) -> Rows:
    keys = [method_key(plan, method, f"{shard.shard_id}.parquet") for shard in plan.shards]
    there = store.list(methods_key(plan, method))
    tables = in_parallel(
        store, lambda key: from_parquet_bytes(store.read(key), METHOD_SCORES), [key for key in keys if key in there]
    )
    return [row for table in tables for row in table.to_pylist()]


def _cost(store: Store, plan: Plan, method: str) -> Cost:
    if method == "blora":
        adapters = from_parquet_bytes(
            store.read(layout.run_key(plan.run.run_id, "adapters.parquet")), ADAPTERS
        ).to_pylist()
        timings = json.loads(store.read(layout.run_key(plan.run.run_id, "run.json"))).get("timings") or {}
        drawn, seconds = timings.get("drawn"), timings.get("sample_seconds")
        return Cost(
            fmean(one["train_seconds"] for one in adapters) if adapters else None,
            seconds / drawn if drawn and seconds else None,
            round(fmean(one["content_bytes"] + one["style_bytes"] for one in adapters)) if adapters else 0,
        )
    trained = [cost for pack in plan.packs for cost in _told(store, plan, method, pack.pack_id).values()]
    drawn = [told for shard in plan.shards if (told := _told(store, plan, method, shard.shard_id))]
    pictures = sum(one["drawn"] for one in drawn)
    return Cost(
        fmean(one["seconds"] for one in trained) if trained else 0.0,
        sum(one["seconds"] for one in drawn) / pictures if pictures else None,
        round(fmean(one["bytes"] for one in trained)) if trained else 0,
    )


def _told(store: Store, plan: Plan, method: str, item: str) -> dict[str, Any]:
    return dict(json.loads(store.find(method_key(plan, method, f"{item}.json")) or "{}"))


def _sheet(store: Store, found: Found) -> bytes:
    """A row a pair: the content picture at its head, then the style picture and what each method drew."""
    plan = found.plan
    first = list({(one.content_id, one.style_id): one for one in reversed(found.pictures)}.values())[::-1]
    step = max(1, len(first) // SHEET_MOST)
    rows = first[::step][:SHEET_MOST]
    names = [f"{one.content_name} x {one.style_name}" for one in rows]

    def picture(side: str) -> bytes:
        return store.read(layout.image_key(plan.adapter(side).image_ids[0]))

    cells: dict[tuple[str, str], bytes | None] = {}
    for name, one in zip(names, rows, strict=True):
        cells[name, "style"] = picture(one.style_id)
        cells |= {(name, method): store.read(sample_key_of(plan, method, one)) for method in found.methods}
    heads = [(name, picture(one.content_id)) for name, one in zip(names, rows, strict=True)]
    return contact_sheet(heads, [("style", None), *((name, None) for name in found.methods)], cells)


def _interval(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "-"
    if row["low"] is None:
        return f"{row['mean']:.3g}"
    return f"{row['mean']:.3g} [{row['low']:.3g}, {row['high']:.3g}]"


def _number(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.3g}"
