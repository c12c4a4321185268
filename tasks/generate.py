"""Draw one shard in a slot: batch by batch, writing only the pictures that are missing.

A batch is always drawn with the membership that the plan gave it, and a row whose adapter does not exist is drawn
without one and thrown away: the layout, and with it every bit of the other rows, stays the same.
"""

from __future__ import annotations

import io
import json
import time
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from blora.sample import Draw, sample
from manifests import layout
from manifests.store import Missing
from tasks.resident import Pixels, Resident
from tasks.runs import PlannedSample, RunInfo


def generate_shard(resident: Resident, payload: dict[str, Any]) -> dict[str, Any]:
    """Make every picture of a shard exist whose adapters do.

    Args:
        resident: the slot's working set.
        payload: ``run_id`` and ``shard_id``; ``only`` names the pictures that are wanted, None means all.

    Returns:
        ``drawn`` (sample ids written by this call), ``without_adapter`` (sample ids that cannot be drawn) and
        ``sample_seconds``.
    """
    plan = resident.plan(payload["run_id"])
    shard = plan.shard(payload["shard_id"])
    only = payload.get("only")
    present: set[str] = set()
    for content_id in {planned.content_id for planned in shard.samples}:
        present |= resident.store.list(layout.samples_prefix(content_id)).keys()
    drawn: list[str] = []
    orphans: list[str] = []
    started = time.monotonic()
    done = 0
    for batch in shard.batches:
        missing = [
            planned for planned in batch if planned.key not in present and (only is None or planned.sample_id in only)
        ]
        if missing:
            written, lost = _draw_batch(resident, plan.run, batch, missing)
            drawn += written
            orphans += lost
        done += len(batch)
        resident.emit({"kind": "sample", "id": shard.shard_id, "done": done, "total": len(shard.samples)})
    return {
        "drawn": drawn,
        "without_adapter": orphans,
        "sample_seconds": time.monotonic() - started if drawn else 0.0,
    }


def _draw_batch(
    resident: Resident, run: RunInfo, batch: tuple[PlannedSample, ...], missing: list[PlannedSample]
) -> tuple[list[str], list[str]]:
    draws: list[Draw] = []
    orphans: list[str] = []
    for planned in batch:
        draw = _draw(resident, planned)
        if draw is None:
            orphans.append(planned.sample_id)
            draw = Draw(None, None, planned.prompt, planned.seed)
        draws.append(draw)
    wanted = [planned for planned in missing if planned.sample_id not in orphans]
    if not wanted:
        return [], [planned.sample_id for planned in missing]
    base = resident.base(run.base, run.settings.sample.precision)
    pictures = sample(base, draws, run.settings.sample)
    written: list[str] = []
    for planned, pixels in zip(batch, pictures, strict=True):
        if planned in wanted and resident.store.write_once(planned.key, encode_png(pixels, planned, run)):
            written.append(planned.sample_id)
    return written, [planned.sample_id for planned in missing if planned.sample_id in orphans]


def _draw(resident: Resident, planned: PlannedSample) -> Draw | None:
    """The draw of a planned sample; None when one of its adapters does not exist."""
    try:
        content = resident.half(planned.content_id, "content")
        style = resident.half(planned.style_id, "style")
    except Missing:
        return None
    return Draw(
        content=content,
        style=style,
        prompt=planned.prompt,
        seed=planned.seed,
        content_strength=planned.content_strength,
        style_strength=planned.style_strength,
        content_prompt=planned.content_prompt,
        negative_prompt=planned.negative_prompt,
    )


def encode_png(pixels: Pixels, planned: PlannedSample, run: RunInfo) -> bytes:
    """A PNG that explains itself: ids, prompts, strengths, seed, settings, base; no time, so that its bytes repeat."""
    facts = {key: value for key, value in vars(planned).items() if not key.endswith(("_name", "text"))}
    facts |= {"base": run.base, "base_revision": run.base_revision, "settings": run.settings.sample.identity()}
    text = PngInfo()
    text.add_itxt("blora", json.dumps(facts, sort_keys=True, ensure_ascii=False))
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", pnginfo=text)
    return buffer.getvalue()
