"""Planning reads and publishing writes: what happens to pictures between the two, and what a second run reads again."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from manifests import layout
from manifests.images import animation, normalise
from manifests.loading import pictures
from manifests.loading.load import Loaded, parse_manifest
from manifests.loading.pictures import Turn
from manifests.store.store import Store
from tasks.errors import RunRefused
from tasks.planning.make import make_plan, publish
from tasks.run.plan import load_plan, published_scores_key
from tests.made_run import png


def grid(folder: Path, sides: int = 3) -> Loaded:
    """As many contents as styles."""
    body: dict[str, object] = {"version": 1, "name": "plan", "grid": True}
    for offset, side in enumerate(("contents", "styles")):
        for number in range(sides):
            (folder / f"{side}{number}.png").write_bytes(png(100 * offset + number))
        body[side] = [{"image": f"{side}{n}.png", "name": f"{side[0]}{n}", "word": "thing"} for n in range(sides)]
    return parse_manifest(body, "json", "inline", (str(folder),))


def test_a_picture_that_changes_while_a_run_is_planned_refuses_the_run_and_leaves_no_plan(tmp_path: Path) -> None:
    store, loaded = Store.open(str(tmp_path / "store")), grid(tmp_path)
    draft = make_plan(store, loaded)
    assert store.list("") == {}, "planning writes nothing"
    (tmp_path / "contents1.png").write_bytes(png(7))
    (tmp_path / "styles2.png").unlink()
    with pytest.raises(RunRefused, match="2 pictures changed") as caught:
        publish(store, draft)
    told = [str(fault) for fault in caught.value.faults]
    assert len(told) == 2
    assert "contents1.png" in told[0] and "another picture" in told[0]
    assert "styles2.png" in told[1]
    assert store.list(layout.RUNS_PREFIX) == {}
    assert len(store.list(layout.IMAGES_PREFIX)) == 4


def test_of_two_planners_across_midnight_the_date_of_the_plan_that_is_kept_stands(tmp_path: Path) -> None:
    """Scores lie under that date: a run with two of them would be counted twice."""
    store, loaded = Store.open(str(tmp_path / "store")), grid(tmp_path)
    first, draft = make_plan(store, loaded), make_plan(store, loaded)
    next_day = replace(draft.plan.run, created_at=draft.plan.run.created_at + timedelta(days=1))
    second = replace(draft, plan=replace(draft.plan, run=next_day))
    keys = {published_scores_key(publish(store, one).run) for one in (first, second)}
    assert keys == {published_scores_key(load_plan(store, first.plan.run.run_id).run)}


def test_pictures_that_the_store_has_are_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, loaded = Store.open(str(tmp_path / "store")), grid(tmp_path)
    made: list[bytes] = []

    def counted(data: bytes) -> normalise.NormalisedImage:
        made.append(data)
        return normalise.normalise(data)

    monkeypatch.setattr(pictures, "NORMALISED", Turn(counted, animation.normalise_frames))
    publish(store, make_plan(store, loaded))
    assert len(made) == len(store.list(layout.IMAGES_PREFIX)) == 6
    publish(store, make_plan(store, loaded))
    assert len(made) == 6
