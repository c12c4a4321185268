"""The report about nights over time: a table and a page with small charts, ``reports/nights/``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup

from blora.settings.score_meanings import lower_is_better
from manifests import layout
from manifests.store.store import Store
from manifests.tables.parquet import to_parquet_bytes, to_table
from manifests.tables.review import NIGHTS
from tasks.report.charts import Point, line_chart
from tasks.report.html import write_page
from tasks.report.trends import (
    LEAST_NIGHTS,
    LEAST_PICTURES,
    WIDTH,
    NightSummary,
    ScoreName,
    TrendPoint,
    all_trends,
    load_days,
    load_nights,
    nights_judged,
    runs_apart,
)
from tasks.words import seconds_in_words, size_in_words

NOTHING = "-"

MEASURES: dict[str, tuple[str, Callable[[NightSummary], float | None], Callable[[float], str]]] = {
    "yield": ("pictures that came out", lambda n: n.done / n.planned if n.planned else None, lambda v: f"{v:.1%}"),
    "kept": ("kept of those reviewed", lambda n: n.kept / n.decided if n.decided else None, lambda v: f"{v:.1%}"),
    "pictures": ("pictures", lambda n: float(n.done), lambda v: f"{v:.0f}"),
    "faults": ("faults", lambda n: float(n.faults), lambda v: f"{v:.0f}"),
    "device_seconds": ("time on the device", lambda n: n.device_seconds, seconds_in_words),
    "bytes": ("bytes of pictures", lambda n: float(n.bytes), size_in_words),
}
"""What is told of a night beside its scores: title, value, and the value in words."""


def write_nights(store: Store, last: int) -> tuple[str, list[tuple[ScoreName, TrendPoint]]]:
    """Write table and page about the last nights of a store.

    Args:
        store: the store.
        last: how many nights are shown; as many before them make the bands of the first ones.

    Returns:
        The key of index.html, and the alarms of the last night.
    """
    runs = runs_apart(store)
    known = load_nights(store, 2 * last, runs)
    nights, trends = known[-last:], all_trends(known)
    shown = {name: points[-last:] for name, points in trends.items()}
    shown = {name: points for name, points in shown.items() if any(point.value is not None for point in points)}
    prefix = layout.nights_report_prefix()
    rows = [*_measure_rows(nights), *_score_rows(shown)]
    store.replace(f"{prefix}nights.parquet", to_parquet_bytes(to_table(rows, NIGHTS)))
    write_page(
        store,
        prefix,
        "nights.html.j2",
        (),
        {},
        nights=nights[::-1],
        days=load_days(store, last, runs)[::-1],
        needed=still_needed(trends),
        measures=_measure_charts(nights),
        scores=_score_charts(shown),
        alarms=_alarms(shown),
        words={name: words for name, (_, _, words) in MEASURES.items()},
        values={name: value for name, (_, value, _) in MEASURES.items()},
        rule={"width": WIDTH, "nights": LEAST_NIGHTS, "pictures": LEAST_PICTURES},
        written_at=datetime.now(UTC),
    )
    newest = nights[-1].date if nights else ""
    return f"{prefix}index.html", [(name, point) for name, point in _alarms(shown) if point.date == newest]


def _alarms(shown: Mapping[ScoreName, Sequence[TrendPoint]]) -> list[tuple[ScoreName, TrendPoint]]:
    """Every reading out of its band, the newest first."""
    alarms = [(name, point) for name, points in shown.items() for point in points if point.alarm]
    return sorted(alarms, key=lambda alarm: alarm[1].date, reverse=True)


def _measure_charts(nights: Sequence[NightSummary]) -> list[tuple[str, str, Markup]]:
    """(title, the last night's value in words, chart) of every measure."""
    charts = []
    for title, value, words in MEASURES.values():
        values = [value(night) for night in nights]
        labels = [NOTHING if number is None else words(number) for number in values]
        points = [
            Point(n.date, f"{n.date}: {label}", number) for n, label, number in zip(nights, labels, values, strict=True)
        ]
        chart = line_chart(f"{title}, night by night", points, words)
        charts.append((title, labels[-1] if labels else NOTHING, chart))
    return charts


def _score_charts(shown: Mapping[ScoreName, Sequence[TrendPoint]]) -> list[tuple[str, str, Markup]]:
    """(title, the last night's value, chart with band) of every score."""
    several = {name for name, _ in shown if sum(other == name for other, _ in shown) > 1}
    charts = []
    for (name, version), some in shown.items():
        title = name.replace("_", " ") + (" ↓" if lower_is_better(name) else "")
        title += f" ({version})" if name in several else ""
        points = [
            Point(
                point.date,
                f"{point.date}: {_number(point.value)}",
                point.value,
                point.low,
                point.high,
                point.alarm != "",
            )
            for point in some
        ]
        charts.append((title, _number(some[-1].value), line_chart(f"{title}, night by night", points, _number)))
    return charts


def still_needed(trends: Mapping[ScoreName, Sequence[TrendPoint]]) -> str:
    """Say how many nights are there of those that a judgement needs; empty once a night can be judged."""
    there = max((nights_judged(points) for points in trends.values()), default=0)
    return f"{there} of {LEAST_NIGHTS} nights needed" if there <= LEAST_NIGHTS else ""


def _number(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.3g}"


def _measure_rows(nights: Sequence[NightSummary]) -> list[dict[str, Any]]:
    blank = {"scorer_version": "", "low": None, "high": None, "alarm": ""}
    return [
        blank | {"date": night.date, "measure": name, "pictures": night.done, "value": value(night)}
        for night in nights
        for name, (_, value, _) in MEASURES.items()
    ]


def _score_rows(shown: Mapping[ScoreName, Sequence[TrendPoint]]) -> list[dict[str, Any]]:
    return [
        vars(point) | {"measure": f"score:{name}", "scorer_version": version}
        for (name, version), points in shown.items()
        for point in points
    ]
