"""Draw one shard in a slot: batch by batch, writing only the pictures that are missing.

While a batch is drawn, threads encode and write the one before it and load the adapters of the one after it.

A batch is always drawn with the membership that the plan gave it, and a row whose adapter does not exist is drawn
without one and thrown away: the layout, and with it every bit of the other rows, stays the same.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, cast

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from blora.adapter import Adapter
from blora.blend import blend_adapters
from blora.blocks import Half
from blora.recolour import Method, Palette
from blora.sample import Draw, sample
from manifests import layout
from manifests.store import Missing
from tasks.pictures import encoded
from tasks.resident import Pixels, Resident
from tasks.runs import PlannedSample, RunInfo

WRITERS = 2
"""Threads that encode and write pictures of one batch, and load the adapters of the next, while a batch is drawn."""


NEWER = ("content_mix", "style_mix", "colour_of", "colour_by", "colour_amount")
"""Facts that a picture states only where they are used, so that the bytes of other pictures stay as they were."""


UNTOLD = ("_name", "text", "candidate_of")
"""What differs from manifest to manifest, and is no part of a picture."""


def generate_shard(resident: Resident, payload: dict[str, Any]) -> dict[str, Any]:
    """Make every picture of a shard exist whose adapters do.

    Args:
        resident: the slot's working set.
        payload: ``run_id`` and ``shard_id``; ``only`` names the pictures that are wanted, None means all.

    Returns:
        ``drawn`` (sample ids written by this call), ``without_adapter`` (sample ids that cannot be drawn),
        ``sample_seconds``, and ``busy_seconds`` of them in which the device drew.
    """
    plan = resident.plan(payload["run_id"])
    shard = plan.shard(payload["shard_id"])
    only = None if payload.get("only") is None else frozenset(payload["only"])
    present: set[str] = set()
    for content_id in {planned.content_id for planned in shard.samples}:
        present |= resident.store.list(layout.samples_prefix(content_id)).keys()
    todo = [
        (batch, [one for one in batch if one.key not in present and (only is None or one.sample_id in only)])
        for batch in shard.batches
    ]
    todo = [(batch, missing) for batch, missing in todo if missing]
    done = len(shard.samples) - sum(len(batch) for batch, _ in todo)
    drawn: list[str] = []
    orphans: list[str] = []
    writes: list[Future[str | None]] = []
    started, busy_seconds = time.monotonic(), 0.0
    with ThreadPoolExecutor(WRITERS) as threads:
        loads = deque(threads.submit(_draws, resident, batch, plan.run.run_id) for batch, _ in todo[:1])
        for number, (batch, missing) in enumerate(todo):
            draws, lost = loads.popleft().result()
            for following, _ in todo[number + 1 : number + 2]:
                loads.append(threads.submit(_draws, resident, following, plan.run.run_id))
            orphans += [one.sample_id for one in missing if one.sample_id in lost]
            wanted = {one.sample_id for one in missing} - lost
            if wanted:
                began = time.monotonic()
                pictures = _sample(resident, plan.run, draws)
                busy_seconds += time.monotonic() - began
                drawn += _written(writes)  # of the batch before: no more than one waits in memory
                writes = [
                    threads.submit(_write, resident, one, pixels, plan.run)
                    for one, pixels in zip(batch, pictures, strict=True)
                    if one.sample_id in wanted
                ]
            done += len(batch)
            if number + 1 < len(todo):
                resident.emit({"kind": "sample", "id": shard.shard_id, "done": done, "total": len(shard.samples)})
        drawn += _written(writes)
    resident.emit({"kind": "sample", "id": shard.shard_id, "done": done, "total": len(shard.samples)})
    return {
        "drawn": drawn,
        "without_adapter": orphans,
        "sample_seconds": time.monotonic() - started if drawn else 0.0,
        "busy_seconds": busy_seconds,
    }


def _draws(resident: Resident, batch: tuple[PlannedSample, ...], run_id: str) -> tuple[list[Draw], set[str]]:
    """The draws of a batch, and the ids of those without an adapter, which only keep their place."""
    found = [(planned, _draw(resident, planned, run_id)) for planned in batch]
    lost = {planned.sample_id for planned, draw in found if draw is None}
    return [draw or Draw(None, None, planned.prompt, planned.seed) for planned, draw in found], lost


def _sample(resident: Resident, run: RunInfo, draws: list[Draw]) -> list[Pixels]:
    base = resident.base(run.base, run.settings.sample.precision)
    return sample(base, draws, resident.drawing(run.base, run.settings.sample))


def _write(resident: Resident, planned: PlannedSample, pixels: Pixels, run: RunInfo) -> str | None:
    """Write one picture; its id if it was not there."""
    there = resident.store.write_once(planned.key, encode_png(pixels, planned, run))
    return planned.sample_id if there else None


def _written(writes: list[Future[str | None]]) -> list[str]:
    """Wait for pictures under way; a failed write fails the task, which finds the others in the store next time."""
    return [sample_id for write in writes if (sample_id := write.result())]


def _draw(resident: Resident, planned: PlannedSample, run_id: str) -> Draw | None:
    """The draw of a planned sample; None when one of its adapters does not exist."""
    try:
        content, style = _half(resident, planned, "content"), _half(resident, planned, "style")
    except Missing:
        return None
    return Draw(
        content=content,
        style=style,
        prompt=planned.prompt,
        seed=planned.seed,
        content_strength=planned.content_strength or 0.0,
        style_strength=planned.style_strength or 0.0,
        content_prompt=planned.content_prompt,
        negative_prompt=planned.negative_prompt,
        palette=_palette(resident, planned, run_id),
    )


def _palette(resident: Resident, planned: PlannedSample, run_id: str) -> Palette | None:
    """Whose colours a picture gets: of several pictures, those of the one with the largest weight."""
    if planned.colour_of is None or planned.colour_by is None or planned.colour_amount is None:
        return None
    heaviest = max(planned.parts(cast("Half", planned.colour_of)), key=lambda part: part.weight)
    image_id = resident.plan(run_id).adapter(heaviest.adapter_id).image_ids[0]
    picture = resident.picture(layout.image_key(image_id))
    return Palette(picture, cast("Method", planned.colour_by), planned.colour_amount)


def _half(resident: Resident, planned: PlannedSample, half: Half) -> Adapter | None:
    """A side's adapter, several of a mix as one; None where the prompt says the side."""
    parts = [(resident.half(part.adapter_id, half), part.weight) for part in planned.parts(half)]
    return parts[0][0] if len(parts) == 1 else blend_adapters(parts) if parts else None


def encode_png(pixels: Pixels, planned: PlannedSample, run: RunInfo) -> bytes:
    """A PNG that explains itself: ids, prompts, strengths, seed, settings, base; no time, so that its bytes repeat."""
    told = {key: value for key, value in planned.columns().items() if not key.endswith(UNTOLD)}
    facts = {key: value for key, value in told.items() if value is not None or key not in NEWER}
    facts |= {"base": run.base, "base_revision": run.base_revision, "settings": run.settings.sample.identity()}
    return png_with(pixels, facts)


def png_with(pixels: Pixels, facts: Mapping[str, Any]) -> bytes:
    """A PNG with facts about it as JSON under the key ``blora``."""
    text = PngInfo()
    text.add_itxt("blora", json.dumps(facts, sort_keys=True, ensure_ascii=False))
    return encoded(Image.fromarray(pixels), pnginfo=text)
