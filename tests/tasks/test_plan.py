"""Planning reads and publishing writes: what happens to pictures between the two, and what a second run reads again."""

from __future__ import annotations

from pathlib import Path

import pytest

from manifests import layout
from manifests.images import animation, normalise
from manifests.loading.load import Loaded, parse_manifest
from manifests.loading.pictures import Turn
from manifests.store.store import Store
from tasks import plan
from tasks.faults import RunRefused
from tasks.plan import make_plan, publish
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
    assert loaded.manifest is not None
    draft = make_plan(store, loaded)
    assert store.list("") == {}, "planning writes nothing"
    (tmp_path / "contents1.png").write_bytes(png(7))
    (tmp_path / "styles2.png").unlink()
    with pytest.raises(RunRefused, match="2 pictures changed") as caught:
        publish(store, draft, loaded.manifest)
    told = [str(fault) for fault in caught.value.faults]
    assert len(told) == 2
    assert "contents1.png" in told[0] and "another picture" in told[0]
    assert "styles2.png" in told[1]
    assert store.list(layout.RUNS_PREFIX) == {}
    assert len(store.list(layout.IMAGES_PREFIX)) == 4


def test_pictures_that_the_store_has_are_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, loaded = Store.open(str(tmp_path / "store")), grid(tmp_path)
    assert loaded.manifest is not None
    made: list[bytes] = []

    def counted(data: bytes) -> normalise.NormalisedImage:
        made.append(data)
        return normalise.normalise(data)

    monkeypatch.setattr(plan, "NORMALISED", Turn(counted, animation.normalise_frames))
    publish(store, make_plan(store, loaded), loaded.manifest)
    assert len(made) == len(store.list(layout.IMAGES_PREFIX)) == 6
    publish(store, make_plan(store, loaded), loaded.manifest)
    assert len(made) == 6
