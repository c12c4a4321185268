"""Measure one part of a block probe in a slot and write its readings."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from blora.analysis import measure
from blora.blocks import inner_blocks
from manifests.parquet import to_parquet_bytes, to_table
from manifests.tables import PROBES
from tasks.measuring.block_probe import PART_PAIRS, load_probe, rows_of
from tasks.resident import Resident


def probe_part(resident: Resident, payload: dict[str, Any]) -> dict[str, Any]:
    """Make the readings of a part exist.

    Args:
        resident: the slot's working set.
        payload: ``probe_id`` and ``part``.

    Returns:
        ``readings`` (made by this call) and ``probe_seconds``.
    """
    probe = load_probe(resident.store, payload["probe_id"])
    part = int(payload["part"])
    key = probe.part_key(part)
    if resident.store.exists(key):
        return {"readings": 0, "probe_seconds": 0.0}
    started = time.monotonic()
    settings = probe.settings
    model = resident.model(probe.base, settings.sample.precision)
    clip = resident.clip(settings.score.clip_model, settings.score.clip_pretrained)
    first = part * PART_PAIRS

    def tell(done: int, total: int) -> None:
        resident.emit({"kind": "probe", "id": str(part), "done": done, "total": total})

    readings = measure(
        model,
        clip,
        probe.pairs[first : first + PART_PAIRS],
        settings.sample,
        inner_blocks(model.unet),
        on_step=tell,
    )
    numbered = [replace(reading, pair=first + reading.pair) for reading in readings]
    rows = rows_of(probe, numbered, (clip.name, clip.version))
    resident.store.write_once(key, to_parquet_bytes(to_table(rows, PROBES)))
    return {"readings": len(rows), "probe_seconds": time.monotonic() - started}
