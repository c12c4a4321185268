"""A slot that waits or loads says so: nobody takes it for dead."""

from __future__ import annotations

import logging
import re
import signal
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch

from blora.bases.locate import Located
from blora.errors import SettingsError
from manifests import layout
from manifests.store.leases import Lease
from manifests.store.store import Store
from tasks import downloads, environment
from tasks.dispatch.slot import Slot
from tasks.messages import GenerateShard, TrainAnswer, TrainPack
from tasks.progress import Event
from tasks.review.decisions import Mark
from tasks.review.redo import record_review
from tasks.run.plan import load_plan
from tasks.worker import session
from tasks.worker.generate import generate_shard
from tests.flows.conftest import live_leases
from tests.in_process import InProcessSlot
from tests.processes import wait_for
from tests.tiny import save_tiny_base


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny base; do not change it."""
    return save_tiny_base(tmp_path_factory.mktemp("base") / "tiny")


def test_who_waits_for_another_runs_training_is_not_taken_for_dead(
    tmp_path: Path, base: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    work = InProcessSlot(tmp_path, base)
    (pack,) = work.plan.packs
    keys = [layout.lease_key(adapter.adapter_id) for adapter in pack.adapters]
    leases = [lease for key in keys if (lease := work.store.acquire_lease(key, "another run", 300))]
    slot = Slot("cpu", work.store.root, stall_timeout_seconds=600)

    def train_elsewhere() -> None:
        """Once the slot waits, wait longer than it may be silent; then be done."""
        wait_for(lambda: "slot cpu: waits for 2 adapters that another run trains" in caplog.text, 300, "word of it")
        slot.stall_timeout_seconds = 4
        time.sleep(10)
        for adapter in pack.adapters:
            for key in layout.adapter_keys(adapter.adapter_id):
                work.store.replace(key, b"made elsewhere")
        for lease in leases:
            lease.release()

    threading.Thread(target=train_elsewhere, daemon=True).start()
    notes: list[Event] = []
    answer = slot.call(TrainPack(work.plan.run.run_id, pack.pack_id), notes.append)
    slot.stop()
    assert len(leases) == 2 and answer == TrainAnswer()
    assert notes[0]["kind"] == "note"
    said = r"waits for 2 adapters that another run trains: .+, .+: held by another run; until ..:..:.. UTC, unless .+"
    assert re.fullmatch(said, notes[0]["text"]), notes
    assert len(notes) <= 2, "the same is said again and again"


@pytest.mark.parametrize("moment", ["taken", "released"])
def test_a_slot_that_is_stopped_just_as_a_lease_is_taken_or_released_leaves_none(
    moment: str, tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = InProcessSlot(tmp_path, base)
    take, release = Store.acquire_lease, Lease.release

    def stopped_after(store: Store, *arguments: Any) -> Lease | None:
        lease = take(store, *arguments)
        signal.raise_signal(signal.SIGINT)
        return lease

    def stopped_before(lease: Lease) -> None:
        signal.raise_signal(signal.SIGINT)
        release(lease)

    if moment == "taken":
        monkeypatch.setattr(Store, "acquire_lease", stopped_after)
    else:
        monkeypatch.setattr(Lease, "release", stopped_before)
    before = signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # what a job of the background has is to ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            work.train()
    finally:
        signal.signal(signal.SIGINT, before)
    assert work.store.list("leases/") and live_leases(work.store) == []


def test_a_scheduler_that_cannot_draw_is_refused_before_anything_is_trained(tmp_path: Path, base: Path) -> None:
    slot = InProcessSlot(tmp_path, base, scheduler="euler", scheduler_options={"use_karas_sigmas": True})
    with pytest.raises(SettingsError, match="did you mean use_karras_sigmas"):
        slot.train()
    assert not slot.steps


def test_a_base_that_takes_long_to_come_is_said_to_come(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slot = InProcessSlot(tmp_path, base)
    monkeypatch.setenv("BLORA_STALL_TIMEOUT_SECONDS", "0.3")

    def slowly(spec: str, *, half: bool = False) -> Located:
        time.sleep(1)
        return downloads.located_base(spec, half=half)

    monkeypatch.setattr(session, "located_base", slowly)
    slot.session.base(str(base), "fp32")
    beats = len(slot.beats)
    assert beats >= 4 and set(slot.beats) == {f"brings {base} to this machine"}
    slot.session.base(str(base), "fp32")
    time.sleep(2 * environment.heartbeat_seconds())
    assert len(slot.beats) == beats, "it goes on although nothing is brought"


def test_a_shard_that_a_review_added_is_drawn_by_a_slot_that_knew_the_plan(tmp_path: Path, base: Path) -> None:
    slot = InProcessSlot(tmp_path, base)
    run_id = slot.plan.run.run_id
    slot.train()
    mark = Mark(slot.plan.samples[0].sample_id, "redo", "", datetime.now(UTC))
    (added,) = record_review(slot.store, slot.plan, [mark])
    (shard,) = [shard for shard in load_plan(slot.store, run_id).shards if added in shard.samples]
    assert generate_shard(slot.session, GenerateShard(run_id, shard.shard_id)).drawn == (added.sample_id,)
    with pytest.raises(LookupError, match=f"run {run_id}: received 'none'; accepted: a pack or shard of its plan"):
        generate_shard(slot.session, GenerateShard(run_id, "none"))


def test_what_torch_keeps_of_a_model_that_went_is_free_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver stands in for that of a GPU: it calls taken what torch's allocator has not given back."""
    kept = [6 * 10**9]
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10 * 10**9 - sum(kept), 10 * 10**9))
    monkeypatch.setattr(torch.cuda, "empty_cache", kept.clear)
    assert session._free_bytes("cuda:0") == 10 * 10**9


def test_scorers_that_take_long_to_come_are_said_to_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slot = InProcessSlot(tmp_path, save_tiny_base(tmp_path / "tiny"))
    monkeypatch.setenv("BLORA_STALL_TIMEOUT_SECONDS", "0.3")

    def slowly(*_: Any) -> list[Any]:
        deadline = time.monotonic() + 60
        while len(slot.beats) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        return []

    for name in ("load_scorers", "load_scorer", "load_clip"):
        monkeypatch.setattr(session, name, slowly)
    monkeypatch.setattr(session, "local_scorer", lambda asked: asked)
    asked = (
        ("loads scorers", lambda: slot.session.scorers(slot.plan.run.settings.score)),
        ("loads some=scorer", lambda: slot.session.further_scorer("some=scorer")),
        ("loads ViT-B-32", lambda: slot.session.clip("ViT-B-32", "some")),
    )
    for said, load in asked:
        slot.beats.clear()
        load()
        assert len(slot.beats) >= 2 and set(slot.beats) == {said}
