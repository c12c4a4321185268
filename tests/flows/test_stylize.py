"""The product end to end, in this process, on a tiny base: what is made, what is made again, what a fault does."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from blora.adapters.safetensors_bytes import unpack_safetensors
from flows.params import RunOptions
from flows.stylize import rerun, stylize
from manifests.loading.load import load_manifest
from manifests.store.store import Store
from manifests.tables.parquet import from_parquet_bytes
from manifests.tables.run import ADAPTERS, FAULTS, SAMPLES, SCORES, SLOTS
from tasks import progress
from tasks.planning.make import make_plan, publish
from tests.flows.conftest import SETTINGS, Project, live_leases
from tests.tiny_flux import save_tiny_flux

pytestmark = pytest.mark.usefixtures("prefect_api", "warm_slots")


class Work:
    """Runs the flow and remembers which packs and shards really worked."""

    def __init__(self, root: str, allowed_roots: tuple[str, ...]) -> None:
        self.root, self.allowed_roots = root, allowed_roots
        self.store = Store.open(root)
        self.run_id = ""

    def __call__(self, flow: Callable[..., Any], subject: str, **options: Any) -> Any:
        def listen(event: progress.Event) -> None:
            if event["kind"] == "run":
                self.run_id = event["id"]

        with progress.watching(listen):
            given = RunOptions(**{"root": self.root, "devices": "cpu", "allowed_roots": self.allowed_roots} | options)
            state = flow(subject, given, return_state=True)
        return state

    def json(self, name: str) -> dict[str, Any]:
        return dict(json.loads(self.store.read(f"runs/{self.run_id}/{name}")))

    def rows(self, name: str, schema: Any) -> list[dict[str, Any]]:
        return list(from_parquet_bytes(self.store.read(f"runs/{self.run_id}/{name}.parquet"), schema).to_pylist())

    def objects(self, *prefixes: str) -> dict[str, bytes]:
        """Keys and bytes of pictures and halves (markers and tables hold times)."""
        keys = [key for prefix in prefixes or ("samples/", "adapters/") for key in self.store.list(prefix)]
        return {key: self.store.read(key) for key in keys if not key.endswith(".json")}

    def written(self) -> dict[str, Any]:
        """When each picture and half was last written."""
        entries = {**self.store.list("samples/"), **self.store.list("adapters/")}
        return {key: entry.modified for key, entry in entries.items()}


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, prefect_api: str, warm_slots: None
) -> tuple[Project, Work]:
    """A grid of 2 x 2 that has been worked off once; tests look at it, or go on from a copy of it."""
    folder = tmp_path_factory.mktemp("finished")
    project = Project(folder / "project", tiny_base)
    work = Work(str(folder / "store"), (str(tiny_base),))
    assert work(stylize, str(project.path)).is_completed()
    return project, work


def test_a_base_that_cannot_be_had_is_one_fault_and_no_slot_tries_it(tiny_base: Path, tmp_path: Path) -> None:
    base, away = tmp_path / "base", tmp_path / "away"
    shutil.copytree(tiny_base, base)
    project, work = Project(tmp_path / "project", base, 1, 1), Work(str(tmp_path / "store"), (str(base),))
    draft = make_plan(work.store, load_manifest(str(project.path), allowed_roots=[str(base)]))
    run_id = publish(work.store, draft).run.run_id
    base.rename(away)
    assert work(rerun, run_id).is_failed()
    (row,) = work.rows("faults", FAULTS)
    assert row["item"] == run_id and row["what"].startswith("the base cannot be had") and not row["transient"]
    assert f"blora doctor --base {base}" in row["hint"] and not work.store.exists(f"runs/{run_id}/slots.parquet")
    away.rename(base)
    assert work(rerun, run_id, only=("faults",)).is_completed()


@pytest.fixture
def project(finished: tuple[Project, Work], tmp_path: Path) -> Project:
    """A copy of the finished project, to be changed."""
    return Project(tmp_path / "project", finished[0].base)


@pytest.fixture
def work(finished: tuple[Project, Work], tmp_path: Path) -> Work:
    """A copy of the finished store, to be worked in."""
    shutil.copytree(finished[1].root, tmp_path / "store")
    copy = Work(str(tmp_path / "store"), finished[1].allowed_roots)
    copy.run_id = finished[1].run_id
    return copy


def test_a_grid_leaves_pictures_tables_and_a_contact_sheet(finished: tuple[Project, Work]) -> None:
    work = finished[1]
    assert work.json("run.json")["sentence"] == "4 of 4 pictures, 4 of 4 adapters"
    samples = work.rows("samples", SAMPLES)
    assert [row["status"] for row in samples] == ["done"] * 4
    assert {(row["content_name"], row["style_name"]) for row in samples} == {
        ("c0", "s0"), ("c0", "s1"), ("c1", "s0"), ("c1", "s1")
    }  # fmt: skip
    assert all(work.store.exists(row["key"]) for row in samples)
    adapters = work.rows("adapters", ADAPTERS)
    assert sorted(row["name"] for row in adapters) == ["c0", "c1", "s0", "s1"]
    assert all(row["content_bytes"] > 1000 and row["train_seconds"] > 0 for row in adapters)
    scores = work.rows("scores", SCORES)
    assert {row["sample_id"] for row in scores} == {row["sample_id"] for row in samples}
    assert {"content_clip", "style_clip", "leakage_lite0", "transfer", "colour_distance", "harmonic_mean"} <= {
        row["score"] for row in scores
    }
    assert all(row["scorer"] and row["scorer_version"] for row in scores)
    assert work.rows("faults", FAULTS) == []
    assert work.store.read(f"runs/{work.run_id}/report/contact_sheet.png").startswith(b"\x89PNG")
    assert live_leases(work.store) == []


def test_a_base_of_another_family_gives_a_whole_run(tmp_path: Path) -> None:
    """FLUX.1 in little: two adapters, a picture, its scores and its page, through the same flow."""
    base = save_tiny_flux(tmp_path / "flux")
    project = Project(tmp_path / "project", base, contents=1, styles=1)
    settings = {name: dict(group) if isinstance(group, dict) else group for name, group in SETTINGS.items()}
    settings["train"] |= {"steps": 2, "precision": "fp32"}
    settings["sample"] |= {"precision": "fp32"}
    project.write(preset="flux", settings=settings)
    work = Work(str(tmp_path / "store"), (str(base),))
    assert work(stylize, str(project.path)).is_completed()
    assert work.json("run.json")["sentence"] == "1 of 1 picture, 2 of 2 adapters"
    assert {row["sample_id"] for row in work.rows("scores", SCORES)} == {
        row["sample_id"] for row in work.rows("samples", SAMPLES)
    }
    halves = [unpack_safetensors(data)[0] for data in work.objects("adapters/").values()]
    assert all(key.startswith("transformer.single_transformer_blocks.") for half in halves for key in half)
    assert work.store.exists(f"runs/{work.run_id}/report/index.html")


def test_a_run_says_what_its_slots_did(finished: tuple[Project, Work]) -> None:
    _, work = finished
    (slot,) = work.rows("slots", SLOTS)
    assert (slot["slot"], slot["adapters"], slot["pictures"], slot["scored"]) == ("0 cpu", 4, 4, 4)
    assert 0 < slot["busy_seconds"] <= slot["wall_seconds"]
    assert slot["busy_share"] == pytest.approx(slot["busy_seconds"] / slot["wall_seconds"])
    timings = work.json("run.json")["timings"]
    assert slot["adapters_per_hour"] == pytest.approx(4 * 3600 / timings["train_seconds"])
    assert slot["pictures_per_hour"] == pytest.approx(4 * 3600 / timings["sample_seconds"])
    assert timings["slots"] == [{name: value for name, value in slot.items() if name != "run_id"}]


def test_where_there_are_gpus_scoring_goes_on_beside_them(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a GPU it is the placing that is tested: the slots' children make their objects without a model."""
    monkeypatch.setenv("BLORA_SLOT_MODULE", "tests.stub_slot")
    monkeypatch.setenv("BLORA_STUB_SECONDS", "0.2")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    work = Work(str(tmp_path / "new"), (str(project.base),))
    assert work(stylize, str(project.path), devices="cuda:0,cuda:1").is_completed()
    slots = {row["slot"]: row for row in work.rows("slots", SLOTS)}
    assert set(slots) == {"0 cuda:0", "1 cuda:1", "scoring cpu"}
    scoring = slots.pop("scoring cpu")
    assert (scoring["adapters"], scoring["pictures"], scoring["scored"]) == (0, 0, 4)
    for kind, count in {"adapters": 4, "pictures": 4, "scored": 0}.items():
        assert sum(row[kind] for row in slots.values()) == count
    assert all(0 < row["busy_share"] <= 1 for row in slots.values())


def test_what_the_store_has_is_not_made_again(work: Work, project: Project) -> None:
    before, first = work.written(), work.run_id
    assert work(stylize, str(project.path)).is_completed()
    assert work.run_id == first
    assert work.written() == before


def test_what_was_deleted_or_damaged_comes_back_alone_and_equal(work: Work) -> None:
    objects, times = work.objects(), work.written()
    deleted, html, cut = [key for key in objects if key.startswith("samples/")][:3]
    torn, lost = [key for key in objects if key.endswith("style.safetensors")][:2]
    gone = (deleted, html, cut, torn, lost)
    for key in (deleted, lost):
        work.store.delete(key)
    work.store.replace(html, b"<!doctype html><title>403</title>")
    for key in (cut, torn):
        work.store.replace(key, objects[key][: len(objects[key]) // 2])
    unreadable = next(key for key in work.store.list("adapters/") if key.endswith(".json") and torn[:20] not in key)
    work.store.replace(unreadable, b"")
    assert work(rerun, work.run_id).is_completed()
    assert work.objects() == objects
    rewritten = {key for key, time in work.written().items() if time != times[key]}
    again = {key for key in times if key.startswith(unreadable.removesuffix("adapter.json"))}
    assert rewritten == {*gone, *again}, "an adapter whose marker cannot be read is written whole"
    assert json.loads(work.store.read(unreadable))["sha256"]


def test_an_edited_image_redoes_its_adapter_and_its_column_only(work: Work, project: Project) -> None:
    before, first = work.objects(), work.run_id
    project.draw("s1", seed=99)
    assert work(stylize, str(project.path)).is_completed()
    assert work.run_id != first
    after = work.objects()
    assert before.items() <= after.items()
    fresh = [key for key in after if key not in before]
    assert sum(key.startswith("adapters/") for key in fresh) == 2  # both halves of one adapter
    assert sum(key.startswith("samples/") for key in fresh) == 2  # one column of two rows


def test_one_bad_row_does_not_stop_the_others(work: Work, project: Project) -> None:
    project.names["styles"].append("broken")
    project.write()
    (project.folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n truncated")
    state = work(stylize, str(project.path))
    assert state.is_failed()
    assert state.message == "4 of 4 pictures, 4 of 4 adapters, 1 fault"
    (fault,) = work.rows("faults", FAULTS)
    assert fault["kind"] == "image"
    assert fault["file"].endswith("night.json") and fault["row"] > 1
    assert "broken.png" in fault["what"] + fault["received"]


def test_on_fault_stop_starts_nothing(work: Work, project: Project, tmp_path: Path) -> None:
    work = Work(str(tmp_path / "fresh"), work.allowed_roots)
    (project.folder / "c1.png").unlink()
    state = work(stylize, str(project.path), on_fault="stop")
    assert state.is_failed()
    assert "stopped before any work" in str(state.data)
    assert work.store.list("") == {}


def test_a_diverging_adapter_is_a_fault_and_the_rest_goes_on(work: Work, project: Project) -> None:
    # A step of this size overflows within a few updates, whatever the picture.
    wild = {"learning_rate": 1e3, "max_lower_rates": 0, "reseeds_before_lower_rate": 0, "skips_before_reseed": 1}
    settings = {"train": wild | {"layers": "attention", "steps": 40, "max_grad_norm": 1e6}}
    state = work(stylize, str(project.path), overrides=settings)
    assert state.is_failed()
    faults = work.rows("faults", FAULTS)
    assert faults and {fault["kind"] for fault in faults} == {"train"}
    assert all(not fault["transient"] and "learning_rate" in fault["hint"] for fault in faults)
    assert live_leases(work.store) == []


def test_two_names_of_one_picture_share_an_adapter(work: Work, project: Project) -> None:
    project.names["styles"].append("twin")
    pairs = [{"content": f"c{n}", "style": f"s{n}"} for n in range(2)]
    project.write(pairs=[*pairs, {"content": "c0", "style": "twin", "prompt": "A [c] at night"}], grid=None)
    (project.folder / "twin.png").write_bytes((project.folder / "s0.png").read_bytes())
    assert work(stylize, str(project.path)).is_completed()
    assert len(work.rows("adapters", ADAPTERS)) == 4
    assert len({key.split("/")[1] for key in work.store.list("adapters/")}) == 4


def test_seeds_make_samples_and_seed_zero_is_a_seed(work: Work, project: Project) -> None:
    project.write(seeds=[0, 1])
    assert work(stylize, str(project.path)).is_completed()
    samples = work.rows("samples", SAMPLES)
    assert sorted(row["seed"] for row in samples) == [0] * 4 + [1] * 4
    pair = [row["key"] for row in samples if (row["content_name"], row["style_name"]) == ("c0", "s0")]
    assert work.store.read(pair[0]) != work.store.read(pair[1])
