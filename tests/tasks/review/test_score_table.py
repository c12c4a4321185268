"""The score table: conditions that no picture can meet because of a slip are told, with what was meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from manifests.store.store import Store
from tasks.review.score_filter import parse_conditions, told_of_none
from tasks.review.score_table import score_table
from tasks.run.plan import load_run
from tests.made_run import finish, plan_run

STYLES = ["wave", "night", "salt and pepper"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, str]:
    """A run of two pictures."""
    store, plan = plan_run(tmp_path_factory.mktemp("run"), ["apple"], ["wave", "night"])
    finish(store, plan)
    return store, plan.run.run_id


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ("stlye=wave", "did you mean style?"),
        ("style=wavee", "accepted: a style of this run: night, wave; did you mean wave?"),
        ("content=aple", "did you mean apple?"),
        ("seed=7", "accepted: a seed of this run: 0"),
        ("chosen=maybe", "accepted: a chosen of this run: no, yes"),
        ("style_lite>0.5", "did you mean style_lite0?"),
        ("style_lite0=0.5", "a score with <, <=, > or >="),
        ("transfer<half", "accepted: a number after the <"),
        ("transfer>=half", "accepted: a number after the >="),
        ("wave", "received 'wave'"),
        ("", "received ''"),
    ],
)
def test_a_slip_in_a_condition_is_told(finished: tuple[Store, str], condition: str, said: str) -> None:
    store, run_id = finished
    with pytest.raises(ValueError, match="where: received") as caught:
        parse_conditions([condition], score_table(store, load_run(store, run_id)))
    assert said in str(caught.value) and condition in str(caught.value)
    with pytest.raises(ValueError, match="where: received") as again:
        parse_conditions([f"seed=0 and {condition} and transfer <= 2"], score_table(store, load_run(store, run_id)))
    assert said in str(again.value) or not set("<=>") & set(condition)


@pytest.mark.parametrize(
    ("asked", "styles"),
    [
        (["style = wave", "transfer>-1", "chosen=yes"], ["wave"]),
        (["style=wave and transfer > -1 AND chosen = yes"], ["wave"]),
        (["transfer >= 0.25"], ["wave", "salt and pepper"]),
        (["transfer>0.25"], ["wave"]),
        (["transfer <= 0.25"], ["night", "salt and pepper"]),
        (["transfer<0.25"], ["night"]),
        (["style=salt and pepper and transfer<=1"], ["salt and pepper"]),
        (["transfer<0.25 and transfer>=0.5"], []),
    ],
)
def test_conditions_hold_together(tmp_path: Path, asked: list[str], styles: list[str]) -> None:
    values = dict(zip(STYLES, (0.75, 0.0, 0.25), strict=True))
    store, plan = plan_run(tmp_path, ["apple"], STYLES)
    finish(store, plan, scorer=lambda sample, _: {"transfer": values[sample.style_name]})
    rows = score_table(store, load_run(store, plan.run.run_id), best_first=True)
    conditions = parse_conditions(asked, rows)
    met = {row.style_name for row in rows if all(condition.meets(row) for condition in conditions)}
    assert met == set(styles)
    if not styles:
        assert told_of_none(conditions, rows) == (
            "no picture meets all of it: transfer<0.25 holds for 1 of 3; transfer goes from 0 to 0.75; "
            "transfer>=0.5 holds for 1 of 3; transfer goes from 0 to 0.75"
        )
