"""Measure one part of a block probe in a slot and write its readings."""

from __future__ import annotations

import time
from dataclasses import replace

from blora.adapters.blocks import probed_blocks
from blora.models.model import Base
from blora.probe.measure import measure
from manifests.tables.measuring import PROBES
from manifests.tables.parquet import to_parquet_bytes, to_table
from tasks.measuring.block_probe import PART_PAIRS, load_probe, rows_of
from tasks.messages import Advance, ProbeAnswer, ProbePart
from tasks.worker.session import Session


def probe_part(session: Session, job: ProbePart) -> ProbeAnswer:
    """Make the readings of a part exist."""
    probe = load_probe(session.store, job.probe_id)
    key = probe.part_key(job.part)
    if session.store.exists(key):
        return ProbeAnswer()
    started = time.monotonic()
    settings = probe.settings
    model = session.model(probe.base, settings.sample.precision)
    # A batch that fits; of a base with one text encoder the model of memory knows nothing.
    drawing = session.drawing(probe.base, settings.sample) if isinstance(model, Base) else settings.sample
    if isinstance(model, Base) and not model.family.hears_by_block:  # both prompts of a picture go through all blocks
        drawing = drawing.model_copy(update={"batch_size": max(1, drawing.batch_size // 2)})
    clip = session.clip(settings.score.clip_model, settings.score.clip_pretrained)
    first = job.part * PART_PAIRS

    def tell(done: int, total: int) -> None:
        session.emit(Advance("probe", str(job.part), done, total))

    readings = measure(
        model,
        clip,
        probe.pairs[first : first + PART_PAIRS],
        drawing,
        probed_blocks(model.unet, probe.blocks),
        on_step=tell,
    )
    numbered = [replace(reading, pair=first + reading.pair) for reading in readings]
    rows = rows_of(probe, numbered, (clip.name, clip.version))
    session.store.write_once(key, to_parquet_bytes(to_table(rows, PROBES)))
    return ProbeAnswer(len(rows), time.monotonic() - started)
