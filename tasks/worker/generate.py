"""Draw one shard in a slot: batch by batch, writing only the pictures that are missing.

While a batch is drawn, threads encode and write the one before it and load the adapters of the one after it.

A batch is always drawn with the membership that the plan gave it, and a row whose adapter does not exist is drawn
without one and thrown away: the layout, and with it every bit of the other rows, stays the same.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, cast

import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from blora.adapters.adapter import Adapter, blend_adapters
from blora.adapters.blocks import Half
from blora.errors import BloraError
from blora.sampling.colour_transfer import Method, Palette
from blora.sampling.draw import Draw
from blora.sampling.generation_text import KEY, generation_text
from blora.sampling.sample import sample_each
from blora.settings.fields import Precision
from blora.settings.sampling import SampleSettings
from manifests import layout
from manifests.errors import Missing
from manifests.faults import Fault
from manifests.store.store import Store
from tasks.messages import Advance, GenerateAnswer, GenerateShard
from tasks.pictures import encoded
from tasks.run.plan import PlannedSample, RunInfo, Shard
from tasks.worker.session import Pixels, Session


def writers() -> int:
    """Threads that encode and write pictures of one batch, and load the adapters of the next, while a batch is drawn.

    As many as the slot has cores: a PNG of 1,024 px takes one of them a quarter of a second.
    """
    return max(2, torch.get_num_threads())


NEWER = ("content_mix", "style_mix", "colour_of", "colour_by", "colour_amount")
"""Facts that a picture states only where they are used, so that the bytes of other pictures stay as they were."""


UNTOLD = ("_name", "text", "candidate_of")
"""What differs from manifest to manifest, and is no part of a picture."""


def generate_shard(session: Session, job: GenerateShard) -> GenerateAnswer:
    """Make every picture of a shard exist whose adapters do."""
    plan, shard = session.shard(job.run_id, job.shard_id)
    todo = _missing(session.store, shard, None if job.only is None else frozenset(job.only))
    done = len(shard.samples) - sum(len(batch) for batch, _ in todo)
    drawn: list[str] = []
    orphans: list[str] = []
    faults: list[Fault] = []
    writes: list[Future[str | None]] = []
    started, busy_seconds = session.clock(), 0.0
    settings = _ready(session, plan.run, [planned for batch, _ in todo for planned in batch])
    with ThreadPoolExecutor(writers()) as threads:
        loads = deque(threads.submit(_draws, session, batch, plan.run.run_id) for batch, _ in todo[:1])
        for number, (batch, missing) in enumerate(todo):
            draws, lost, torn = loads.popleft().result()
            for following, _ in todo[number + 1 : number + 2]:
                loads.append(threads.submit(_draws, session, following, plan.run.run_id))
            orphans += [planned.sample_id for planned in missing if planned.sample_id in lost]
            faults += [_fault(planned, torn[planned.sample_id]) for planned in missing if planned.sample_id in torn]
            wanted = {planned.sample_id for planned in missing} - lost - torn.keys()
            if wanted:
                began = session.clock()
                base = session.base(plan.run.base, plan.run.settings.sample.precision)
                pictures = sample_each(base, draws, settings)
                busy_seconds += session.clock() - began
                drawn += _written(writes)  # of the batch before: no more than one waits in memory
                writes = []
                for planned, made in zip(batch, pictures, strict=True):
                    if planned.sample_id not in wanted:
                        continue
                    if isinstance(made, BloraError):
                        faults.append(_fault(planned, made))
                    else:
                        writes.append(threads.submit(_write, session, planned, made, plan.run))
            done += len(batch)
            if number + 1 < len(todo):
                session.emit(Advance("sample", shard.shard_id, done - len(orphans) - len(faults), len(shard.samples)))
        drawn += _written(writes)
    session.emit(Advance("sample", shard.shard_id, done - len(orphans) - len(faults), len(shard.samples)))
    return GenerateAnswer(
        drawn=tuple(drawn),
        without_adapter=tuple(orphans),
        faults=tuple(faults),
        sample_seconds=session.clock() - started if drawn else 0.0,
        busy_seconds=busy_seconds,
    )


def _missing(
    store: Store, shard: Shard, only: frozenset[str] | None
) -> list[tuple[tuple[PlannedSample, ...], list[PlannedSample]]]:
    """Batches of a shard of which something is to be drawn, each with what that is."""
    present: set[str] = set()
    for content_id in {planned.content_id for planned in shard.samples}:
        present |= store.list(layout.samples_prefix(content_id)).keys()
    batches = [
        (batch, [s for s in batch if s.key not in present and (only is None or s.sample_id in only)])
        for batch in shard.batches
    ]
    return [(batch, missing) for batch, missing in batches if missing]


def _draws(
    session: Session, batch: tuple[PlannedSample, ...], run_id: str
) -> tuple[list[Draw], set[str], dict[str, BloraError]]:
    """The draws of a batch; ids of those without an adapter, and why others cannot be had: both keep their place."""
    draws, lost, torn = [], set(), {}
    for planned in batch:
        draw: Draw | None = None
        try:
            draw = _draw(session, planned, run_id)
        except Missing:
            lost.add(planned.sample_id)
        except BloraError as error:
            torn[planned.sample_id] = error
        draws.append(draw or Draw(None, None, planned.prompt, planned.seed))
    return draws, lost, torn


def _ready(session: Session, run: RunInfo, samples: Sequence[PlannedSample]) -> SampleSettings:
    """Load the base, have it embed every prompt of a shard at once, and say how many pictures it draws in one pass."""
    if not samples:
        return run.settings.sample
    base = session.base(run.base, run.settings.sample.precision)
    settings = session.drawing(run.base, run.settings.sample)
    texts = (text for planned in samples for text in (planned.prompt, planned.content_prompt) if text is not None)
    base.remember_prompts((*texts, *(planned.negative_prompt or settings.negative_prompt for planned in samples)))
    return settings


def _fault(planned: PlannedSample, error: BloraError) -> Fault:
    return Fault(
        kind="sample",
        item=planned.sample_id,
        what=f"the picture {planned.content_name} x {planned.style_name}, seed {planned.seed}, could not be drawn",
        received=str(error)[:2000],
        accepted="adapters that can be read, and a finite picture",
        hint="mend the cause, then: blora rerun, which trains an adapter again whose file is cut",
    )


def _write(session: Session, planned: PlannedSample, pixels: Pixels, run: RunInfo) -> str | None:
    """Write one picture; its id if it was not there."""
    scheduler = str(session.base(run.base, run.settings.sample.precision).scheduler_config["_class_name"])
    there = session.store.write_once(planned.key, encode_png(pixels, planned, run, scheduler))
    return planned.sample_id if there else None


def _written(writes: list[Future[str | None]]) -> list[str]:
    """Wait for pictures under way; a failed write fails the task, which finds the others in the store next time."""
    return [sample_id for write in writes if (sample_id := write.result())]


def _draw(session: Session, planned: PlannedSample, run_id: str) -> Draw:
    """The draw of a planned sample.

    Raises:
        Missing: One of its adapters does not exist.
        KeyMismatchError: One cannot be read, or they cannot be mixed.
    """
    precision = session.plan(run_id).run.settings.sample.precision
    return Draw(
        content=_half(session, planned, "content", precision),
        style=_half(session, planned, "style", precision),
        prompt=planned.prompt,
        seed=planned.seed,
        content_strength=planned.content_strength or 0.0,
        style_strength=planned.style_strength or 0.0,
        content_prompt=planned.content_prompt,
        negative_prompt=planned.negative_prompt,
        palette=_palette(session, planned, run_id),
    )


def _palette(session: Session, planned: PlannedSample, run_id: str) -> Palette | None:
    """Whose colours a picture gets: of several pictures, those of the one with the largest weight."""
    if planned.colour_of is None or planned.colour_by is None or planned.colour_amount is None:
        return None
    heaviest = max(planned.parts(cast("Half", planned.colour_of)), key=lambda part: part.weight)
    image_id = session.plan(run_id).adapter(heaviest.adapter_id).image_ids[0]
    picture = session.picture(layout.image_key(image_id))
    return Palette(picture, cast("Method", planned.colour_by), planned.colour_amount)


def _half(session: Session, planned: PlannedSample, half: Half, precision: Precision) -> Adapter | None:
    """A side's adapter, several of a mix as one; None where the prompt says the side."""
    parts = planned.parts(half)
    if len(parts) == 1:
        return session.half(parts[0].adapter_id, half, precision)
    return blend_adapters([(session.half(part.adapter_id, half), part.weight) for part in parts]) if parts else None


def encode_png(pixels: Pixels, planned: PlannedSample, run: RunInfo, base_scheduler: str) -> bytes:
    """A PNG that explains itself: ids, prompts, strengths, seed, settings, base; no time, so that its bytes repeat.

    Once as JSON, with everything, and once in the text that image browsers read.
    """
    told = {key: value for key, value in planned.columns().items() if not key.endswith(UNTOLD)}
    facts = {key: value for key, value in told.items() if value is not None or key not in NEWER}
    facts |= {"base": run.base, "base_revision": run.base_revision, "settings": run.settings.sample.identity()}
    more = {
        "Base revision": run.base_revision,
        "Content": planned.content_id,
        "Content strength": planned.content_strength,
        "Style": planned.style_id,
        "Style strength": planned.style_strength,
    }
    text = generation_text(
        planned.prompt,
        planned.negative_prompt,
        planned.seed,
        run.settings.sample,
        base=run.base,
        base_scheduler=base_scheduler,
        more={name: value for name, value in more.items() if value is not None},
    )
    return png_with(pixels, facts, text)


def png_with(pixels: Pixels, facts: Mapping[str, Any], generation: str = "") -> bytes:
    """A PNG with facts about it as JSON under the key ``blora``, and the text that image browsers read, if any."""
    text = PngInfo()
    text.add_itxt("blora", json.dumps(facts, sort_keys=True, ensure_ascii=False))
    if generation:
        text.add_text(KEY, generation)  # Latin letters as tEXt, which old readers know; others as iTXt
    return encoded(Image.fromarray(pixels), pnginfo=text)
