"""Two runs side by side: what is paired, what the interval covers, and what is left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from manifests.store.store import Store
from manifests.tables.parquet import from_parquet_bytes
from manifests.tables.review import COMPARISON, COMPARISON_PAIRS
from tasks.errors import RunRefused
from tasks.report.comparison import compare
from tasks.report.comparison_page import changed_settings, write_comparison
from tasks.report.crossed import crossed_interval
from tasks.run.plan import Plan, PlannedSample
from tests.made_run import finish, made_scores, plan_run

CONTENTS, STYLES = ["apple", "owl", "pot"], ["wave", "ink", "sun", "oil"]


def better_by(gain: float) -> object:
    """Scores of a pair that do not depend on the run, and `gain` more transfer."""

    def scorer(sample: PlannedSample, number: int) -> dict[str, float]:
        draw = np.random.default_rng([ord(c) for c in sample.content_name + sample.style_name])
        level, noise = draw.uniform(0.2, 0.8), draw.normal(0, 0.01)
        return {"transfer": level + gain + noise * (gain > 0), "colour_distance": 20 * level - 30 * gain}

    return scorer


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Store, Plan, Plan]:
    """One grid under two guidance scales; the second has one content less and another seed more."""
    store, a = plan_run(tmp_path, CONTENTS, STYLES)
    finish(store, a, scorer=better_by(0.0))  # type: ignore[arg-type]
    settings = {"sample": {"guidance_scale": 3.5}}
    _, b = plan_run(tmp_path, CONTENTS[:2], STYLES, seeds=(0, 5), settings=settings)
    finish(store, b, scorer=better_by(0.1))  # type: ignore[arg-type]
    return store, a, b


def test_pairs_share_content_style_and_seed(runs: tuple[Store, Plan, Plan]) -> None:
    store, a, b = runs
    found = compare(store, a.run.run_id, b.run.run_id)
    assert len(found.twins) == 8 and (found.alone_a, found.alone_b) == (4, 8)
    for twin in found.twins:
        assert (twin.a.content_name, twin.a.style_name, twin.a.seed) == (
            twin.b.content_name,
            twin.b.style_name,
            twin.b.seed,
        )
        assert twin.a.sample_id != twin.b.sample_id
    by_name = {one.score: one for one in found.differences}
    transfer, colour = by_name["transfer"], by_name["colour_distance"]
    assert transfer.difference == pytest.approx(0.1, abs=0.02)
    assert transfer.difference == pytest.approx(transfer.mean_b - transfer.mean_a)
    assert transfer.low is not None and transfer.high is not None
    assert 0 < transfer.low <= transfer.difference <= transfer.high < 0.2
    assert transfer.verdict == "b is better" and transfer.better_share == 1
    assert colour.difference == pytest.approx(-3) and colour.verdict == "b is better" and colour.lower_is_better


def test_tables_and_page(runs: tuple[Store, Plan, Plan]) -> None:
    store, a, b = runs
    found = compare(store, a.run.run_id, b.run.run_id)
    key = write_comparison(store, found)
    folder = Path(store.root) / Path(key).parent
    scores = from_parquet_bytes((folder / "comparison.parquet").read_bytes(), COMPARISON).to_pylist()
    assert {row["score"] for row in scores} == {"transfer", "colour_distance"}
    pairs = from_parquet_bytes((folder / "pairs.parquet").read_bytes(), COMPARISON_PAIRS).to_pylist()
    assert len(pairs) == 16 and all(row["difference"] == row["value_b"] - row["value_a"] for row in pairs)
    html = (folder / "index.html").read_text()
    assert "sample.guidance_scale" in html and "b is better" in html and "4 pictures of a and 8 of b" in html
    assert [name for name, _, _ in changed_settings(a, b)] == ["sample.guidance_scale"]
    assert (folder / "../../../../runs" / a.run.run_id / "report" / "index.html").resolve().is_file()


def test_scores_of_two_scorers_are_not_compared(tmp_path: Path) -> None:
    store, a = plan_run(tmp_path, ["apple"], ["wave"])
    finish(store, a)
    _, b = plan_run(tmp_path, ["apple"], ["wave"], settings={"sample": {"guidance_scale": 3.5}})
    finish(store, b, scorer=lambda sample, n: {**made_scores(sample, n), "new": 1.0})
    assert compare(store, a.run.run_id, b.run.run_id).left_out == {"new": "only b has it"}


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    store, a = plan_run(tmp_path, ["apple"], ["wave"])
    _, b = plan_run(tmp_path, ["apple"], ["wave"], seeds=(3,))
    with pytest.raises(RunRefused, match="no pair in common"):
        compare(store, a.run.run_id, b.run.run_id)
    with pytest.raises(RunRefused, match="twice"):
        compare(store, a.run.run_id, a.run.run_id)


def test_the_interval_covers_the_truth_where_pairs_are_not_independent() -> None:
    draw = np.random.default_rng(3)
    rows, columns = (index.ravel().tolist() for index in np.indices((12, 12)))
    covered = naive = 0
    for trial in range(200):
        values = (draw.normal(0, 1, (12, 1)) + draw.normal(0, 1, (1, 12)) + draw.normal(0, 0.5, (12, 12))).ravel()
        low, high = crossed_interval(values.tolist(), rows, columns, trial) or (1.0, -1.0)
        covered += low <= 0 <= high
        half = 1.96 * values.std() / 12
        naive += abs(values.mean()) <= half
    assert covered >= 0.88 * 200  # 95 % meant; percentile intervals of 12 rows are a little narrow
    assert naive < 0.6 * 200  # what taking the 144 values for independent would cover


def test_few_values() -> None:
    assert crossed_interval([1.0], [0], [0]) is None
    assert crossed_interval([2.0, 2.0, 2.0], [0, 0, 0], [0, 0, 0]) == (2.0, 2.0)
    low, high = crossed_interval([0.0, 1.0, 2.0, 3.0], [0, 0, 0, 0], [0, 0, 0, 0]) or (9, 9)
    assert low < 1.5 < high
    low, high = crossed_interval([0.0, 1.0], [0, 1], [0, 1]) or (9, 9)  # a grid with gaps
    assert (low, high) == (0.0, 1.0)
