"""What a comparison of two runs leaves: two tables and a page, ``reports/compare/<run_a>/<run_b>/``."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

from blora.settings.presets import Settings
from manifests import layout
from manifests.store.store import Store
from manifests.tables.parquet import to_parquet_bytes, to_table
from manifests.tables.review import COMPARISON, COMPARISON_PAIRS
from tasks.report.charts import interval_bar
from tasks.report.comparison import Comparison
from tasks.report.html import write_page
from tasks.report.run_data import DIGITS, score_head
from tasks.report.thumbnails import ThumbnailPage, in_pages, write_thumbnails
from tasks.run.inventory import take_inventory
from tasks.run.plan import Plan, PlannedSample

SCRIPTS = (
    *("common.js", "scores.js", "twins.js", "thumbnails.js", "sheet.js"),
    *("filters.js", "views.js", "twins_table.js", "compare.js"),
)
_ROOT = "../../../../"  # from the page's folder to the store's root


def write_comparison(store: Store, comparison: Comparison) -> str:
    """Write tables and page; returns the key of index.html."""
    runs = {"run_a": comparison.a.run.run_id, "run_b": comparison.b.run.run_id}
    prefix = layout.comparison_prefix(runs["run_a"], runs["run_b"])
    scores = [runs | vars(difference) for difference in comparison.differences]
    store.replace(f"{prefix}comparison.parquet", to_parquet_bytes(to_table(scores, COMPARISON)))
    store.replace(f"{prefix}pairs.parquet", to_parquet_bytes(to_table(_pair_rows(comparison, runs), COMPARISON_PAIRS)))
    there = take_inventory(store, comparison.a).pictures.keys() | take_inventory(store, comparison.b).pictures.keys()
    keys = [_key(sample, there) for twin in comparison.twins for sample in (twin.a, twin.b)]
    pages = write_thumbnails(store, in_pages(keys), store, f"{prefix}thumbnails/")
    write_page(
        store,
        prefix,
        "compare.html.j2",
        SCRIPTS,
        _columns(comparison, keys, pages),
        a=comparison.a.run,
        b=comparison.b.run,
        pairs=len(comparison.twins),
        alone=(comparison.alone_a, comparison.alone_b),
        differences=[
            (difference, interval_bar(difference.difference, difference.low, difference.high))
            for difference in comparison.differences
        ],
        left_out=comparison.left_out,
        changed=changed_settings(comparison.a, comparison.b),
        root=_ROOT,
    )
    return f"{prefix}index.html"


def changed_settings(a: Plan, b: Plan) -> list[tuple[str, Any, Any]]:
    """What differs between two runs: (dotted name, in a, in b); batching, which changes no picture, is left out."""
    ours, theirs = _identity(a.run.settings), _identity(b.run.settings)
    ours["base"], theirs["base"] = (f"{run.base} @ {run.base_revision[:12]}" for run in (a.run, b.run))
    for column in ("prompt", "content_strength", "style_strength"):
        for side, plan in ((ours, a), (theirs, b)):
            values = {getattr(sample, column) for sample in plan.samples}
            side[f"pairs.{column}"] = values.pop() if len(values) == 1 else f"{len(values)} different"
    names = sorted({*ours, *theirs})
    return [(name, ours.get(name), theirs.get(name)) for name in names if ours.get(name) != theirs.get(name)]


def _identity(settings: Settings) -> dict[str, Any]:
    parts = {
        "train": settings.train.identity(),
        "sample": settings.sample.identity(),
        "score": settings.score.identity(),
    }
    return {f"{part}.{name}": value for part, values in parts.items() for name, value in values.items()}


def _key(sample: PlannedSample, there: Set[str]) -> str | None:
    return sample.key if sample.sample_id in there else None


def _pair_rows(comparison: Comparison, runs: dict[str, str]) -> list[dict[str, Any]]:
    return [
        runs
        | {
            "content_name": twin.a.content_name,
            "style_name": twin.a.style_name,
            "seed": twin.a.seed,
            "sample_id_a": twin.a.sample_id,
            "sample_id_b": twin.b.sample_id,
            "score": name,
            "value_a": a,
            "value_b": b,
            "difference": b - a,
        }
        for twin in comparison.twins
        for name, (a, b) in twin.values.items()
    ]


def _columns(comparison: Comparison, keys: list[str | None], pages: list[ThumbnailPage]) -> dict[str, Any]:
    """The page's data: one list a field, one entry a pair."""

    def values(name: str, side: int) -> list[float | None]:
        pairs = (twin.values.get(name) for twin in comparison.twins)
        return [None if pair is None else float(f"{pair[side]:.{DIGITS}g}") for pair in pairs]

    settings = comparison.a.run.settings.sample
    return {
        "root": _ROOT,
        "runs": [comparison.a.run.run_id, comparison.b.run.run_id],
        "thumbnails": pages,
        "width": settings.width_px,
        "height": settings.height_px,
        "names": [f"{twin.a.content_name} in {twin.a.style_name}, seed {twin.a.seed}" for twin in comparison.twins],
        "contents": [twin.a.content_name for twin in comparison.twins],
        "styles": [twin.a.style_name for twin in comparison.twins],
        "keys": keys,
        "scores": [
            {
                **score_head(difference.score),
                "a": values(difference.score, 0),
                "b": values(difference.score, 1),
            }
            for difference in comparison.differences
        ],
    }
