"""Nights over time: what is counted for which night, and when the alarm goes off."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from manifests import layout
from manifests.store.store import Store
from manifests.tables.parquet import from_parquet_bytes
from manifests.tables.review import NIGHTS
from tasks.operations.night_record import Night, NightEntry, write_night
from tasks.report.charts import Point, interval_bar, line_chart
from tasks.report.trends import LEAST_NIGHTS, NightSummary, band_of, load_days, load_nights, trend
from tasks.report.trends_page import write_nights
from tasks.review.decisions import Mark, record_marks
from tests.made_run import finish, plan_run

FIRST = datetime(2026, 10, 1, 2, tzinfo=UTC)


def steady_nights(medians: list[float], score: str = "transfer") -> list[NightSummary]:
    """Nights whose pictures have a score around given medians."""
    spread = (np.arange(9) - 4) / 100
    return [
        NightSummary(f"2026-10-{n + 1:02}", scores={(score, "1"): (middle + spread).tolist()})
        for n, middle in enumerate(medians)
    ]


def test_the_alarm_waits_for_enough_nights_and_says_which_side() -> None:
    steady = [0.50, 0.51, 0.49, 0.50, 0.52, 0.48, 0.50, 0.51, 0.49, 0.50]
    found = trend(steady_nights([*steady, 0.51, 0.30, 0.50, 0.70]), ("transfer", "1"))
    assert [one.alarm for one in found] == [""] * 11 + ["worse", "", "better"]
    assert [one.low is None for one in found[:11]] == [True] * LEAST_NIGHTS + [False]
    assert found[11].low is not None and 0.40 < found[11].low < 0.50
    worse = trend(steady_nights([*steady, 0.70], "colour_distance"), ("colour_distance", "1"))
    assert worse[-1].alarm == "worse"


def test_a_bad_night_does_not_move_the_band_and_small_nights_do_not_count() -> None:
    steady = [0.50, 0.51, 0.49, 0.50, 0.52, 0.48, 0.50, 0.51, 0.49, 0.50, 0.50]
    calm, shaken = band_of(steady), band_of([*steady[:-1], -40.0])
    assert calm and shaken and calm[0] > 0.4 and shaken[0] > 0.35
    nights = steady_nights([*steady, 0.1])
    nights[-1].scores["transfer", "1"] = [0.1]
    last = trend(nights, ("transfer", "1"))[-1]
    assert (last.value, last.alarm, last.pictures) == (None, "", 1)


def test_nights_that_repeat_each_other_do_not_alarm_at_a_rounding() -> None:
    found = trend(steady_nights([0.5] * 12 + [0.5004, 0.6]), ("transfer", "1"))
    assert [one.alarm for one in found[-2:]] == ["", "better"]


def dated(store: Store, run_id: str, day: datetime) -> None:
    """Move a run and its scores to another day."""
    root = Path(store.root)
    path = root / layout.run_key(run_id, "run.json")
    body = json.loads(path.read_text())
    old = body["created_at"][:10]
    path.write_text(json.dumps(body | {"created_at": day.isoformat()}))
    target = root / "scores" / f"date={day:%Y-%m-%d}"
    target.mkdir(parents=True, exist_ok=True)
    (root / "scores" / f"date={old}" / f"run={run_id}").rename(target / f"run={run_id}")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Twelve nights of 10 pictures each, the last with worse scores, a missing picture and decisions."""
    folder = tmp_path_factory.mktemp("nights")
    for night in range(12):
        last = night == 11
        store, plan = plan_run(
            folder, ["apple"], ["wave", "ink", "sun", "oil", "wax"], seeds=(night, 50), name=f"n{night}"
        )
        level = 0.2 if last else 0.5 + 0.01 * (night % 3)
        finish(
            store, plan, scorer=lambda s, n, level=level: {"transfer": level + n / 1000}, missing=[2] if last else ()
        )  # type: ignore[misc]
        dated(store, plan.run.run_id, FIRST + timedelta(days=night))
        if last:
            said = [("keep", 0), ("reject", 1), ("reject", 2), ("redo", 3)]
            marks = [Mark(plan.samples[n].sample_id, decision, "", FIRST) for decision, n in said]  # type: ignore[arg-type]
            record_marks(store, plan.run.run_id, marks)
    return store


def test_what_a_night_came_to(store: Store) -> None:
    nights = load_nights(store, 30)
    assert [night.date for night in nights] == [f"2026-10-{day:02}" for day in range(1, 13)]
    last = nights[-1]
    assert (last.planned, last.done, last.faults, last.kept, last.decided) == (10, 9, 1, 1, 4)
    assert last.device_seconds == 16.0 and last.bytes > 9 * 100
    assert [night.date for night in load_nights(store, 3)] == ["2026-10-10", "2026-10-11", "2026-10-12"]


def test_table_page_and_alarm(store: Store) -> None:
    key, alarms = write_nights(store, 12)
    assert [(name, one.date, one.alarm) for (name, _), one in alarms] == [("transfer", "2026-10-12", "worse")]
    folder = Path(store.root) / Path(key).parent
    rows = from_parquet_bytes((folder / "nights.parquet").read_bytes(), NIGHTS).to_pylist()
    assert len(rows) == 12 * 7
    assert [row["date"] for row in rows if row["alarm"] == "worse"] == ["2026-10-12"]
    html = (folder / "index.html").read_text()
    assert "is worse than the nights before" in html and html.count("<svg") == 7 and "<script" not in html


def test_runs_by_day_are_told_apart_and_judge_no_night(tmp_path: Path) -> None:
    night = Night.begin()
    for name, level, entry in (("dropped", 0.5, True), ("by-hand", 0.1, False)):
        store, plan = plan_run(tmp_path, ["apple"], ["wave", "ink", "sun", "oil"], seeds=(1, 2), name=name)
        finish(store, plan, scorer=lambda s, n, level=level: {"transfer": level})  # type: ignore[misc]
        dated(store, plan.run.run_id, FIRST)
        if entry:
            night = night.add(NightEntry("inbox/a.yaml", "finished", plan.run.run_id))
    write_night(store, night.add(NightEntry("inbox/b.yaml", "refused")))
    store.replace(layout.night_key("damaged"), b"{")
    (at_night,), (by_day,) = load_nights(store, 30), load_days(store, 30)
    assert [run_id[:7] for run_id, _ in at_night.runs] == ["dropped"] and at_night.done == 8
    assert [run_id[:7] for run_id, _ in by_day.runs] == ["by-hand"] and by_day.done == 8
    assert at_night.scores["transfer", "1"] == [0.5] * 8
    key, alarms = write_nights(store, 30)
    html = (Path(store.root) / key).read_text()
    assert "1 of 10 nights needed" in html and "By day" in html and alarms == []


def test_an_empty_store_has_a_page_too(tmp_path: Path) -> None:
    key, alarms = write_nights(Store.open(str(tmp_path)), 30)
    assert alarms == [] and "0 nights" in (tmp_path / key).read_text()


def test_charts_are_well_formed_and_escaped() -> None:
    hostile = '"><script>alert(1)</script>'
    points = [Point(hostile, hostile, 1.0, 0.5, 1.5), Point("", "gap", None), Point("2", "b", 2.0, 0.5, 1.5, True)]
    chart = ElementTree.fromstring(str(line_chart(hostile, points, lambda value: f"<{value:g}>")))
    assert chart.attrib["aria-label"] == hostile
    assert [one.tag for one in chart.iter()].count("circle") == 2
    assert [one.attrib["class"] for one in chart.iter("circle")] == ["dot", "alarm"]
    assert [one.text for one in chart.iter("text")] == ["<0.5>", "<2>", hostile, "2"]
    bar = ElementTree.fromstring(str(interval_bar(0.1, -0.1, 0.3)))
    assert float(bar.find("circle").attrib["cx"]) > 80  # type: ignore[union-attr]
    assert line_chart("none", [Point("a", "a", None)], str) == "" and interval_bar(1.0, None, None) == ""
