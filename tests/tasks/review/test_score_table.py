"""The score table: conditions that no picture can meet because of a slip are told, with what was meant."""

from __future__ import annotations

import pytest

from manifests.store.store import Store
from tasks.review.score_table import score_table
from tasks.run.plan import load_run
from tests.made_run import finish, plan_run


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
        ("style_lite0=0.5", "a score with < or >"),
        ("transfer<half", "accepted: a number after the <"),
        ("wave", "received 'wave'"),
    ],
)
def test_a_slip_in_a_condition_is_told(finished: tuple[Store, str], condition: str, said: str) -> None:
    store, run_id = finished
    with pytest.raises(ValueError, match="where: received") as caught:
        score_table(store, load_run(store, run_id), where=[condition])
    assert said in str(caught.value) and condition in str(caught.value)


def test_good_conditions_hold_together(finished: tuple[Store, str]) -> None:
    store, run_id = finished
    (row,) = score_table(store, load_run(store, run_id), where=["style = wave", "transfer>-1", "chosen=yes"])
    assert (row.style_name, row.content_name) == ("wave", "apple")
    assert score_table(store, load_run(store, run_id), where=["transfer<-1"]) == []
