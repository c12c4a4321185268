"""The comparison of methods for people: tables, a report in Markdown, and a sheet of pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blora.settings.score_meanings import lower_is_better
from manifests import layout
from manifests.errors import counted
from manifests.store.parallel import in_parallel
from manifests.store.run_folder import RunFolder
from manifests.store.store import Store
from manifests.tables.measuring import METHOD_SCORES_FILE, METHODS_FILE
from tasks.figures.contact_sheet import contact_sheet
from tasks.measuring.compared_methods import methods_key, sample_key_of
from tasks.measuring.methods_comparison import MethodComparison
from tasks.run.plan import Plan

SHEET_MOST = 16
"""Pairs on the sheet."""


def write_methods(store: Store, comparison: MethodComparison) -> str:
    """Write tables, report and sheet; returns the key of the report."""
    plan = comparison.plan
    run = RunFolder(store, plan.run.run_id)
    run.write(METHOD_SCORES_FILE, comparison.rows)
    run.write(METHODS_FILE, comparison.summary)
    store.replace(methods_key(plan, "sheet.png"), _sheet(store, comparison))
    key = methods_key(plan, "report.md")
    store.replace(key, report_text(comparison).encode())
    return key


def table_rows(comparison: MethodComparison) -> list[tuple[str, ...]]:
    """The comparison as a table for people: a row a measure, a column a method."""
    cells = {(row["score"], row["method"]): row for row in comparison.summary}
    scores = list(dict.fromkeys(row["score"] for row in comparison.summary))
    lines = [("", *comparison.methods)]
    for score in scores:
        name = score + (" (low is good)" if lower_is_better(score) else "")
        lines.append((name, *(_interval(cells.get((score, method))) for method in comparison.methods)))
    costs = [comparison.costs[name] for name in comparison.methods]
    lines.append(("training an adapter, s", *(_number(cost.train_seconds) for cost in costs)))
    lines.append(("drawing a picture, s", *(_number(cost.draw_seconds) for cost in costs)))
    lines.append(("an adapter in fp16, MB", *(f"{cost.adapter_bytes / 1e6:.3g}" for cost in costs)))
    return lines


def report_text(comparison: MethodComparison) -> str:
    """The report in Markdown."""
    head, *lines = table_rows(comparison)
    run = comparison.plan.run
    text = [
        f"# Methods on the pairs of {run.run_id}",
        "",
        f"{counted(len(comparison.pictures), 'picture')} of each method: the same pairs, seeds and settings, "
        f"base {run.base}. "
        "Means with 95 % intervals (contents and styles resampled apart). Seconds are wall time on one slot: of a "
        "training its share of the pack, of a picture loading and writing included.",
        "",
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
        *(f"| {' | '.join(line)} |" for line in lines),
        "",
    ]
    text += [f"{name} is left out: {reason}" for name, reason in comparison.left_out.items()]
    if comparison.alone or comparison.other:
        text.append(
            f"Not compared: {counted(comparison.alone, 'picture')} that some method lacks, "
            f"{comparison.other} with a mix, a prompt for a side or changed colours."
        )
    return "\n".join(text) + "\n"


def _sheet(store: Store, comparison: MethodComparison) -> bytes:
    """A row a pair: the content picture at its head, then the style picture and what each method drew."""
    plan, methods = comparison.plan, comparison.methods
    first = {(sample.content_id, sample.style_id): sample for sample in reversed(comparison.pictures)}
    pairs = list(first.values())[::-1]
    rows = pairs[:: max(1, len(pairs) // SHEET_MOST)][:SHEET_MOST]
    inputs = {side: _input_key(plan, side) for sample in rows for side in (sample.content_id, sample.style_id)}
    drawn = {(sample, method): sample_key_of(plan, method, sample) for sample in rows for method in methods}
    keys = list(dict.fromkeys([*inputs.values(), *drawn.values()]))
    picture = dict(zip(keys, in_parallel(store, store.read, keys), strict=True))
    heads: list[tuple[str, bytes | None]] = []
    cells: dict[tuple[str, str], bytes | None] = {}
    for sample in rows:
        name = f"{sample.content_name} x {sample.style_name}"
        heads.append((name, picture[inputs[sample.content_id]]))
        cells[name, "style"] = picture[inputs[sample.style_id]]
        cells |= {(name, method): picture[drawn[sample, method]] for method in methods}
    return contact_sheet(heads, [("style", None), *((name, None) for name in methods)], cells)


def _input_key(plan: Plan, adapter_id: str) -> str:
    return layout.image_key(plan.adapter(adapter_id).image_ids[0])


def _interval(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "-"
    if row["low"] is None:
        return f"{row['mean']:.3g}"
    return f"{row['mean']:.3g} [{row['low']:.3g}, {row['high']:.3g}]"


def _number(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.3g}"
