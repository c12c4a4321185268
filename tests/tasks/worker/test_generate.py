"""What the forms of a manifest draw, in this process without Prefect: each changes the picture that asks for it."""

from __future__ import annotations

import io
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from blora.adapters.safetensors_bytes import pack_safetensors, unpack_safetensors
from blora.metrics.palette_distance import colour_distance
from blora.models.families.text_encoders import TextEncoders
from blora.sampling.draw import Draw
from manifests import layout
from manifests.loading.load import load_manifest
from manifests.store.store import Store
from tasks.messages import DrawMethod, GenerateShard, ScoreShard, TrainPack
from tasks.planning.make import make_plan, publish
from tasks.run.plan import Plan
from tasks.worker import generate
from tasks.worker.generate import generate_shard, writers
from tasks.worker.methods import draw_method
from tasks.worker.score import score_shard
from tasks.worker.session import Session
from tasks.worker.train import train_pack
from tests.flows.conftest import SETTINGS, Project
from tests.in_process import InProcessSlot
from tests.tiny import save_tiny_base


def trained(project: Project, store: Store) -> tuple[Session, Plan]:
    """A slot's working set, and the plan of a project whose adapters all exist."""
    loaded = load_manifest(str(project.path), allowed_roots=[str(project.base)])
    assert loaded.manifest is not None and loaded.faults == ()
    plan = publish(store, make_plan(store, loaded))
    session = Session("cpu", store, lambda event: None)
    for pack in plan.packs:
        assert train_pack(session, TrainPack(plan.run.run_id, pack.pack_id)).faults == ()
    return session, plan


def test_colours_and_a_prompt_for_the_content_block_change_the_picture_that_asks_for_them(tmp_path: Path) -> None:
    ways: list[dict[str, Any]] = [
        {},
        {"own_style": 0.45},
        {"colour_by": "transfer"},
        {"colour_of": "style", "colour_by": "subject"},
        {"colour_by": "guidance", "colour_amount": 0.5},
        {"content_prompt": "A [c] alone"},
    ]
    project = Project(tmp_path / "project", save_tiny_base(tmp_path / "tiny"))
    project.write(pairs=[{"content": "c0", "style": "s0"} | way for way in ways], grid=None)
    store = Store.open(str(tmp_path / "store"))
    session, plan = trained(project, store)
    for shard in plan.shards:
        generate_shard(session, GenerateShard(plan.run.run_id, shard.shard_id))
    pictures = [Image.open(io.BytesIO(store.read(sample.key))) for sample in plan.samples]
    drawn = [np.asarray(picture) for picture in pictures]
    assert len(drawn) == 6
    for sample, picture in zip(plan.samples, pictures, strict=True):
        prompt, negative, told = picture.info["parameters"].split("\n")
        assert negative == "Negative prompt: "
        assert prompt == json.loads(picture.info["blora"])["prompt"] == sample.prompt
        assert f"Seed: {sample.seed}, Size: {picture.width}x{picture.height}, Model: " in told
        assert f"Style strength: {sample.style_strength:g}" in told
    assert all(not np.array_equal(one, other) for one, other in itertools.combinations(drawn, 2))
    by_way = {(sample.colour_by, bool(sample.style_mix), sample.content_prompt): one
              for sample, one in zip(plan.samples, drawn, strict=True)}  # fmt: skip
    content = np.asarray(Image.open(project.folder / "c0.png").convert("RGB"))
    plain, kept = by_way[None, False, None], by_way["transfer", False, None]
    assert colour_distance(kept, content) < 0.8 * colour_distance(plain, content)


def test_one_bad_picture_does_not_keep_its_shard_from_being_drawn_or_scored(tmp_path: Path) -> None:
    project = Project(tmp_path / "project", save_tiny_base(tmp_path / "tiny"), contents=1, styles=4)
    store = Store.open(str(tmp_path / "store"))
    session, plan = trained(project, store)
    (shard,) = plan.shards
    by_style = {sample.style_name: sample for sample in shard.samples}
    wild, torn, unreadable, good = (by_style[f"s{number}"] for number in range(4))
    wild_key = layout.adapter_key(wild.style_id, "style")
    tensors, metadata = unpack_safetensors(store.read(wild_key))
    store.replace(wild_key, pack_safetensors({key: value.float() * 1e35 for key, value in tensors.items()}, metadata))
    store.replace(layout.adapter_key(torn.style_id, "style"), b"half a file")

    made = generate_shard(session, GenerateShard(plan.run.run_id, shard.shard_id))
    assert set(made.drawn) == {unreadable.sample_id, good.sample_id}
    told = {fault.item: fault for fault in made.faults}
    assert told.keys() == {wild.sample_id, torn.sample_id}
    assert "not finite" in told[wild.sample_id].received
    assert "not a readable adapter file" in told[torn.sample_id].received

    store.replace(unreadable.key, store.read(unreadable.key)[:-200])
    scored = score_shard(session, ScoreShard(plan.run.run_id, shard.shard_id))
    assert scored.scored == (good.sample_id,)
    assert [fault.item for fault in scored.faults] == [unreadable.sample_id]


@pytest.fixture
def come(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """An entry for each time that text encoders are loaded."""
    times: list[int] = []
    load = TextEncoders.load

    def watched(self: TextEncoders) -> Any:
        times.extend([1] if not self.loaded else [])
        return load(self)

    monkeypatch.setattr(TextEncoders, "load", watched)
    return times


def test_encoders_that_must_leave_come_once_for_a_shard_of_any_method(tmp_path: Path, come: list[int]) -> None:
    """Two pictures in two batches of two prompts: where memory is short, encoders were loaded for each batch."""
    slot = InProcessSlot(tmp_path, save_tiny_base(tmp_path / "tiny"), styles=2, batch_size=1)
    base = slot.session.base(slot.plan.run.base, "fp32")
    base.save_memory(encoders="leave", vae_in_tiles=False)
    (shard,) = slot.plan.shards
    assert len(shard.batches) == 2
    answer = draw_method(slot.session, DrawMethod(slot.plan.run.run_id, "prompt", shard.shard_id))
    assert len(answer.drawn) == 2 and len(come) == 1


def test_adapters_come_to_drawing_in_its_number_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Converted by the threads that load them, and not once a batch by the one that draws."""
    slot = InProcessSlot(tmp_path, save_tiny_base(tmp_path / "tiny"), precision="bf16")
    slot.train()
    seen: set[torch.dtype] = set()
    draw = generate.sample_each

    def watched(base: Any, draws: list[Draw], settings: Any) -> Any:
        halves = [half for one in draws for half in (one.content, one.style) if half is not None]
        seen.update(factors.down.dtype for half in halves for factors in half.layers.values())
        return draw(base, draws, settings)

    monkeypatch.setattr(generate, "sample_each", watched)
    (shard,) = slot.plan.shards
    assert generate_shard(slot.session, GenerateShard(slot.plan.run.run_id, shard.shard_id)).drawn
    assert seen == {torch.bfloat16}


def test_encoders_that_must_leave_come_once_for_a_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, come: list[int]
) -> None:
    """Two batches with a prompt each."""
    project = Project(tmp_path / "project", save_tiny_base(tmp_path / "tiny"), contents=1, styles=1)
    pairs = [
        {"content": "c0", "style": "s0", "prompt": f"A [c] in [s] style {when}"} for when in ("by day", "by night")
    ]
    project.write(pairs=pairs, grid=None, settings=SETTINGS | {"sample": SETTINGS["sample"] | {"batch_size": 1}})
    loaded = load_manifest(str(project.path), allowed_roots=[str(project.base)])
    store = Store.open(str(tmp_path / "store"))
    plan = publish(store, make_plan(store, loaded))
    session = Session("cpu", store, lambda event: None)
    session.base(plan.run.base, plan.run.settings.sample.precision).save_memory(encoders="leave", vae_in_tiles=False)
    (shard,) = plan.shards
    assert len(shard.batches) == 2
    monkeypatch.setattr(generate, "_draw", lambda session, planned, run: Draw(None, None, planned.prompt, planned.seed))
    assert len(generate_shard(session, GenerateShard(plan.run.run_id, shard.shard_id)).drawn) == 2 and len(come) == 1


def test_as_many_threads_write_as_the_slot_has_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 6)
    assert writers() == 6
