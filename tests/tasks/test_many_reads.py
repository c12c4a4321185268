"""What shows many objects asks the store for them side by side: a bucket that is asked one by one takes minutes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from blora.probe.readings import ProbePair
from manifests import layout
from manifests.store.store import Store
from manifests.tables.measuring import METHOD_SCORES, PROBES
from manifests.tables.parquet import to_parquet_bytes, to_table
from tasks.dispatch.artifacts import _thumbnails
from tasks.figures.clip_sheet import draw_clips
from tasks.figures.run_sheet import draw_sheet
from tasks.figures.strips import draw_strips
from tasks.measuring.block_probe import PART_PAIRS, Probe, gather
from tasks.measuring.compared_methods import method_key, sample_key_of
from tasks.measuring.methods_comparison import gather_methods
from tasks.measuring.methods_report import write_methods
from tasks.planning.clips import PlannedClip, PlannedFrame, measure_clips
from tasks.planning.sweeps import Strip, StripStep, write_strips
from tasks.report.run_page import write_report
from tasks.review.best import choose_of
from tasks.review.decisions import Mark, load_marks, record_marks
from tasks.review.score_table import score_table
from tasks.run.inventory import take_inventory
from tasks.run.plan import Plan
from tests.made_run import finish, plan_run, png

DECIDED = datetime(2026, 11, 22, tzinfo=UTC)

Work = Callable[[Store, Plan], object]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Plan]:
    """A closed run of 12 pictures with a strip, decisions in four files, and another method's pictures."""
    store, plan = plan_run(tmp_path_factory.mktemp("many"), ["apple", "owl", "pot"], ["wave", "ink", "sun", "oil"])
    steps = tuple(StripStep(str(number), sample.sample_id, sample.key) for number, sample in enumerate(plan.samples))
    write_strips(store, plan.run.run_id, [Strip("all", steps)])
    finish(store, plan)
    for sample in plan.samples[:4]:
        record_marks(store, plan.run.run_id, [Mark(sample.sample_id, "keep", "Ada", DECIDED)])
    for shard in plan.shards:
        rows = []
        for sample in shard.samples:
            store.replace(sample_key_of(plan, "prompt", sample), png(1))
            row = {"run_id": plan.run.run_id, "method": "prompt", "sample_id": sample.sample_id} | {
                name: getattr(sample, name) for name in ("content_id", "style_id", "content_name", "style_name", "seed")
            }
            row |= {"score": "transfer", "value": 0.5, "scorer": "made", "scorer_version": "1", "scored_at": DECIDED}
            rows.append(row | {"blora_sample_id": sample.sample_id})
        data = to_parquet_bytes(to_table(rows, METHOD_SCORES))
        store.replace(method_key(plan, "prompt", f"{shard.shard_id}.parquet"), data)
    return store, plan


class Overlap:
    """Counts how many questions about a group of keys go on at once; each takes a moment, as on a network."""

    def __init__(self, belongs: Callable[[str], bool]) -> None:
        self.belongs = belongs
        self.seen = self.most = 0
        self._asking: set[int] = set()
        self._lock = threading.Lock()

    @contextmanager
    def one(self, key: str) -> Iterator[None]:
        thread = threading.get_ident()
        if thread in self._asking or not self.belongs(key):  # `find` asks `read`
            yield
            return
        with self._lock:
            self.seen += 1
            self._asking.add(thread)
            self.most = max(self.most, len(self._asking))
        time.sleep(0.02)
        yield
        with self._lock:
            self._asking.remove(thread)


def watch(monkeypatch: pytest.MonkeyPatch, store: Store, belongs: Callable[[str], bool]) -> Overlap:
    """Watch the reads and finds of a store."""
    overlap = Overlap(belongs)
    for name in ("read", "find", "exists"):
        ask = getattr(store, name)

        def watched(key: str, *args: Any, ask: Callable[..., Any] = ask) -> Any:
            with overlap.one(key):
                return ask(key, *args)

        monkeypatch.setattr(store, name, watched)
    return overlap


def _clip(plan: Plan) -> PlannedClip:
    sources = [layout.image_key(adapter.image_ids[0]) for adapter in plan.adapters]
    frames = (
        PlannedFrame(number, sample.sample_id, sample.key, sources[number % len(sources)])
        for number, sample in enumerate(plan.samples)
    )
    return PlannedClip("walk", "wave", "", 0, 8.0, tuple(frames))


def _sheet(store: Store, plan: Plan) -> object:
    return draw_sheet(store, plan, choose_of(store, plan, take_inventory(store, plan)))


def _methods(store: Store, plan: Plan) -> object:
    return write_methods(store, gather_methods(store, plan, ("blora", "prompt"), {}))


SAMPLES, IMAGES = (lambda key: key.startswith("samples/")), (lambda key: key.startswith("images/"))

WORK: Mapping[str, tuple[Work, Callable[[str], bool], int]] = {
    "the cells of the contact sheet": (_sheet, SAMPLES, 12),
    "its edges": (_sheet, IMAGES, 7),
    "strips": (lambda store, plan: draw_strips(store, plan.run.run_id), SAMPLES, 12),
    "the clip sheet": (lambda store, plan: draw_clips(store, [_clip(plan)]), SAMPLES, 12),
    "measures of clips": (lambda store, plan: measure_clips(store, "r", [_clip(plan)]), IMAGES, 12),
    "decisions": (lambda store, plan: load_marks(store, plan.run.run_id), lambda key: "/decisions/" in key, 4),
    "thumbnails in Prefect's UI": (lambda store, plan: _thumbnails(store, score_table(store, plan.run)), SAMPLES, 12),
    "the files of a run's page": (write_report, lambda key: key.endswith((".parquet", "/run.json", ".gif")), 8),
    "the sheet of compared methods": (
        _methods,
        lambda key: SAMPLES(key) or (key.endswith(".png") and "prompt/" in key),
        24,
    ),
}


@pytest.mark.parametrize("what", WORK)
def test_many_objects_are_read_side_by_side(
    what: str, run: tuple[Store, Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    work, belongs, least = WORK[what]
    overlap = watch(monkeypatch, run[0], belongs)
    work(*run)
    assert overlap.seen >= least, "what is watched is what is read"
    assert overlap.most > 1


def test_the_parts_of_a_probe_are_read_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.open(str(tmp_path))
    pairs = tuple(ProbePair("content", "p", "q", (1,)) for _ in range(6 * PART_PAIRS))
    probe = Probe("probe-1", "embedded", "r", None, 0, pairs)  # type: ignore[arg-type]
    for part in probe.parts:
        store.replace(probe.part_key(part), to_parquet_bytes(to_table([], PROBES)))
    overlap = watch(monkeypatch, store, lambda key: "/parts/" in key)
    assert gather(store, probe) == []
    assert overlap.seen >= 6 and overlap.most > 1
