"""Records of runs: read side by side, because a store may hold thousands, and left out where they are just deleted."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from blora.bases.locate import SDXL_FOLDER
from blora.sampling.scheduler import make_sampler
from blora.settings.resolve import resolve
from manifests import layout
from manifests.loading.load import parse_manifest
from manifests.store.backend import Entry
from manifests.store.store import Store
from tasks.closing.collect import close_run
from tasks.closing.export import export_run
from tasks.closing.status import list_runs
from tasks.dispatch.slots import slot_figures
from tasks.operations import gc
from tasks.operations.inbox import look
from tasks.planning.cost import Estimate, estimate
from tasks.planning.make import make_plan, survey
from tasks.report.trends import load_nights
from tasks.run.inventory import Holdings, take_inventory
from tasks.run.outcome import read_record
from tasks.run.plan import Plan
from tests.made_run import finish, plan_run
from tests.tiny import save_tiny_base


@pytest.fixture
def stored(tmp_path: Path) -> tuple[Store, list[Plan]]:
    """Four runs of four pictures each that have ended."""
    plans = []
    for number in range(4):
        store, plan = plan_run(tmp_path, ["c0", "c1"], ["s0", "s1"], name=f"night-{number}")
        finish(store, plan)
        plans.append(plan)
    return store, plans


def in_twos(monkeypatch: pytest.MonkeyPatch, store: Store, prefix: str, suffix: str = "") -> list[str]:
    """Have no object under a prefix read before another is, too; the keys read."""
    meeting, read, keys = threading.Barrier(2, timeout=10), store.read, list[str]()

    def together(key: str) -> bytes:
        if key.startswith(prefix) and key.endswith(suffix):
            meeting.wait()
            keys.append(key)
        return read(key)

    monkeypatch.setattr(store, "read", together)
    return keys


def price(store: Store, folder: Path, gpu: str = "", **settings: Any) -> Estimate:
    """The price of another manifest, with the same settings or others."""
    sides = {side: [{"image": f"{side}0.png", "name": side, "word": "thing"}] for side in ("contents", "styles")}
    body: dict[str, object] = {"version": 1, "name": "next", "grid": True, **sides}
    loaded = parse_manifest(body, "json", "inline", (str(folder),))
    draft = make_plan(store, survey(loaded, overrides=settings))
    return estimate(store, draft.plan, draft.held, (), gpu)


@pytest.mark.parametrize("look", [list_runs, lambda store: load_nights(store, 30)], ids=["runs", "nights"])
def test_records_of_runs_are_read_side_by_side(
    stored: tuple[Store, list[Plan]], look: Callable[[Store], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, plans = stored
    keys = in_twos(monkeypatch, store, layout.RUNS_PREFIX, "/run.json")
    assert look(store)
    assert len(keys) == len(plans)


def test_a_price_is_made_from_records_that_are_read_side_by_side(
    stored: tuple[Store, list[Plan]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, plans = stored
    keys = in_twos(monkeypatch, store, f"{layout.RUNS_PREFIX}night-", "/run.json")
    same = price(store, tmp_path / "inputs")
    assert same.basis.startswith("measured in run night-") and "operation" not in same.basis
    assert len(keys) == len(plans)


def test_what_a_run_took_besides_its_items_is_measured_for_the_next(
    stored: tuple[Store, list[Plan]], tmp_path: Path
) -> None:
    store, plans = stored
    other = {"train": {"steps": 7}}  # else its picture is there
    first = price(store, tmp_path / "inputs", **other)
    assert first.score_seconds == pytest.approx(0.5 / 4) and first.slots == 1
    assert first.seconds == pytest.approx(first.slot_seconds + first.other_seconds)
    timings = {
        "trained": 4,
        "train_seconds": 40.0,
        "drawn": 4,
        "sample_seconds": 4.0,
        "scored": 4,
        "score_seconds": 4.0,
    }
    spent = {"trained": 2, "train_seconds": 20.0, "drawn": 2, "sample_seconds": 2.0, "busy_seconds": 20.0}
    slots = [slot_figures(f"{number} cpu", spent, 40.0) for number in range(2)]
    plan = replace(plans[0], run=replace(plans[0].run, created_at=datetime.now(UTC) + timedelta(days=1)))
    began = time.monotonic() - 60
    close_run(store, plan, take_inventory(store, plan), (), timings | {"slots": slots}, began)
    took = read_record(store, plan.run.run_id).timings
    assert took["start_seconds"] == pytest.approx(60 - 48 / 2, abs=0.5), "of 60 s two slots were at items for 24"
    assert 60 < took["elapsed_seconds"] < 90 and took["close_seconds_per_picture"] > 0
    then = price(store, tmp_path / "inputs", **other)
    assert then.other_seconds == pytest.approx(took["start_seconds"] + took["close_seconds_per_picture"])


def test_a_past_run_with_other_settings_gives_the_rate(stored: tuple[Store, list[Plan]], tmp_path: Path) -> None:
    store, _ = stored
    steps = resolve("demo").train.steps
    prices = [
        price(store, tmp_path / "inputs", train={"steps": steps * times}, check={"attempts": 0}) for times in (2, 6)
    ]
    assert all(one.basis.startswith("measured in run night-") and "operation counts" in one.basis for one in prices)
    assert prices[1].train_seconds == pytest.approx(3 * prices[0].train_seconds) != 0


def sdxl_priced(plan: Plan, folder: Path, **settings: Any) -> Estimate:
    """The price of a plan on SDXL, in a store without a past."""
    sdxl = replace(plan.run, base="org/sdxl@" + "0" * 40, base_revision="0" * 40, settings=resolve("paper", settings))
    return estimate(Store.open(str(folder / "empty")), replace(plan, run=sdxl), Holdings())


def test_a_price_follows_how_often_a_picture_goes_through_the_unet(
    stored: tuple[Store, list[Plan]], tmp_path: Path
) -> None:
    def seconds(**sample: Any) -> float:
        return sdxl_priced(stored[1][0], tmp_path, sample={"steps": 50, **sample}).sample_seconds

    guided, alone = seconds(), seconds(guidance_scale=1)
    a_pass = (guided - alone) / 50
    assert seconds(guidance_interval=[0.28, 5.42], guidance_scale=1) == pytest.approx(alone)
    config = json.loads((SDXL_FOLDER / "scheduler" / "scheduler_config.json").read_text())
    sampler = make_sampler(config, "base", 50)
    inside = [0.28 < sampler.sigma(timestep) <= 5.42 for timestep in sampler.timesteps]
    assert 5 < sum(inside) < 45
    assert seconds(guidance_interval=[0.28, 5.42]) - alone == pytest.approx(sum(inside) * a_pass)
    second_order = seconds(scheduler="HeunDiscreteScheduler", guidance_scale=1)
    assert second_order - alone == pytest.approx(49 * a_pass), "each step but the last visits two timesteps"


def test_a_base_whose_scheduler_says_nothing_of_itself_has_a_price(
    stored: tuple[Store, list[Plan]], tmp_path: Path
) -> None:
    """Whoever loads it says what it lacks; a plan does not end on it."""
    folder, plan = save_tiny_base(tmp_path / "tiny"), stored[1][0]
    here = replace(plan, run=replace(plan.run, base=str(folder)))
    file = folder / "scheduler" / "scheduler_config.json"

    def seconds() -> float:
        return estimate(Store.open(str(tmp_path / "empty")), here, Holdings()).sample_seconds

    whole = seconds()
    file.write_text(json.dumps({k: v for k, v in json.loads(file.read_text()).items() if k != "_class_name"}))
    assert seconds() == whole
    file.unlink()
    assert seconds() == whole


def test_a_price_of_training_is_of_what_is_done(stored: tuple[Store, list[Plan]], tmp_path: Path) -> None:
    def seconds(**settings: Any) -> float:
        return sdxl_priced(stored[1][0], tmp_path, **settings).train_seconds

    plain = seconds(check={"attempts": 0})
    assert seconds(check={"attempts": 1}) == plain, "no limits are known for this base, so that nothing is drawn"
    assert seconds(check={"attempts": 1, "split_image": 0.5}) > plain
    assert seconds(train={"checkpointing": "on"}) == pytest.approx(13.9 / 11.0 * plain)
    pooled = seconds(train={"front_pool": 50, "front_uses": 4})
    assert pooled == pytest.approx((11.0 - 2.91 * 0.75) / 11.0 * plain), "the front in a quarter of the steps"


def test_without_one_the_rate_is_that_of_the_gpu(stored: tuple[Store, list[Plan]], tmp_path: Path) -> None:
    empty = Store.open(str(tmp_path / "empty"))
    plan = stored[1][0]
    sdxl = replace(plan, run=replace(plan.run, base="org/sdxl@" + "0" * 40, settings=resolve("paper")))
    none = Holdings()
    hours = {
        gpu: estimate(empty, sdxl, none, (), gpu).train_seconds for gpu in ("NVIDIA H100 80GB HBM3", "NVIDIA L4", "")
    }
    h100, l4, unknown = hours.values()
    assert h100 < unknown < l4
    assert "218 TFLOP/s of an H100" in estimate(empty, sdxl, none, (), "NVIDIA H100 80GB HBM3").basis
    slow = estimate(empty, sdxl, none, ("cpu",))
    assert slow.train_seconds > 100 * unknown and "of two cores" in slow.basis, "a CPU is not promised a GPU's time"


def test_pictures_of_an_export_are_read_side_by_side(
    stored: tuple[Store, list[Plan]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, plans = stored
    before = export_run(store, plans[0].run.run_id, str(tmp_path / "a"))
    keys = in_twos(monkeypatch, store, layout.SAMPLES_PREFIX)
    assert export_run(store, plans[0].run.run_id, str(tmp_path / "b")) == before == (4, 0)
    assert len(keys) == 4
    assert {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()} == {
        path.name: path.read_bytes() for path in (tmp_path / "b").iterdir()
    }


@pytest.mark.parametrize("look", [list_runs, lambda store: load_nights(store, 30)], ids=["runs", "nights"])
def test_a_run_that_housekeeping_deletes_meanwhile_is_left_out(
    stored: tuple[Store, list[Plan]], look: Callable[[Store], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, plans = stored
    gone, listing = plans[1].run.run_id, store.list
    went = list[str]()

    def then_deleted(prefix: str) -> dict[str, Entry]:
        entries = listing(prefix)
        if not went:
            keys = [key for key in listing("") if gone in key]
            waste = (gc.Waste("runs", (gone,), dict.fromkeys(keys, 0)),)
            went.extend(keys)
            list(gc.delete_waste(Store.open(store.root), gc.Removable(waste, frozenset(), listing(layout.RUNS_PREFIX))))
        return entries

    monkeypatch.setattr(store, "list", then_deleted)
    found = look(store)
    assert went and gone not in str(found)
    assert all(plan.run.run_id in str(found) for plan in plans if plan.run.run_id != gone)


def test_manifests_of_the_inbox_are_read_side_by_side_and_one_taken_away_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, names = Store.open(str(tmp_path / "store")), [f"{layout.INBOX_PREFIX}{name}.json" for name in "abcde"]
    for name in names:
        store.replace(name, name.encode())
    listing = store.list

    def then_taken(prefix: str) -> dict[str, Entry]:
        entries = listing(prefix)
        store.delete(names[0])
        return entries

    monkeypatch.setattr(store, "list", then_taken)
    keys = in_twos(monkeypatch, store, layout.INBOX_PREFIX)
    store.write_once(f"{layout.INBOX_PREFIX}f.json", b"f")
    assert [one.key for one in look(store, [])] == [*names[1:], f"{layout.INBOX_PREFIX}f.json"]
    assert len(keys) == 6
