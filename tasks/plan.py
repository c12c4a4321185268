"""From a manifest to a plan: which adapters, which samples, in which packs and shards.

A plan is made once per run and kept (``runs/<run_id>/plan.parquet``): packs and batches keep their membership in
every rerun, so that a rerun computes in the same layout, and therefore the same bytes, and writes only what is
missing. What the store lacked when the plan was made stands first, so that old work and new work do not share a pack.

Making a plan reads; only `publish` writes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

from blora.config import Settings, resolve
from manifests import ids, layout
from manifests.checks import NORMALISED, check_images, read_images
from manifests.errors import ManifestsError, counted
from manifests.faults import Fault
from manifests.images import NormalisedImage
from manifests.parquet import to_parquet_bytes, to_table
from manifests.schema import Loaded, Manifest
from manifests.store import Store
from manifests.tables import PLAN
from tasks.bases import revision_of
from tasks.bulk import uncollected
from tasks.clips import PlannedClip, write_clips
from tasks.cost import auto_pack_size
from tasks.faults import RunNotFound, RunRefused
from tasks.naming import Naming
from tasks.parallel import in_parallel
from tasks.runs import Pack, Plan, PlannedAdapter, PlannedSample, RunInfo, Shard, load_plan
from tasks.stock import Holdings, holdings
from tasks.strips import Strip, write_strips

Item = TypeVar("Item")

PICTURES_AT_ONCE = 16
"""Input pictures in memory while they are written to the store."""


@dataclass(frozen=True)
class Draft:
    """A plan, with the key of each of its pictures by image_id; `is_kept` if the store has had it before."""

    plan: Plan
    images: Mapping[str, str]
    held: Holdings
    strips: tuple[Strip, ...] = ()
    clips: tuple[PlannedClip, ...] = ()
    is_kept: bool = False


def make_plan(
    store: Store,
    loaded: Loaded,
    *,
    preset: str | None = None,
    overrides: dict[str, Any] | None = None,
    on_fault: str | None = None,
    elsewhere: bool = False,
) -> Draft:
    """Work out what a manifest asks for. Writes nothing.

    Args:
        store: asked what it already holds.
        loaded: the manifest and the faults found in reading it.
        preset: replaces the manifest's own.
        overrides: nested settings laid over the manifest's own.
        on_fault: replaces the manifest's own: ``record`` or ``stop``.
        elsewhere: whether other machines train: what a device there holds cannot be known here, so that an automatic
            pack size is 1.

    Raises:
        RunRefused: nothing usable is left, or there are faults and the policy is to stop.
        SettingsError: the settings are refused; the message lists every fault.
    """
    manifest = loaded.manifest
    if manifest is None:
        raise RunRefused(f"the manifest was refused: {counted(len(loaded.faults), 'fault')}", loaded.faults)
    settings = resolve(preset or manifest.preset, merge(manifest.settings, overrides or {}))
    pictures, image_faults = check_images(manifest)
    faults = (*loaded.faults, *image_faults)
    if faults and (on_fault or manifest.on_fault) == "stop":
        raise RunRefused(f"stopped before any work: {counted(len(faults), 'fault')} and on_fault is stop", faults)
    revision = revision_of(manifest.base)
    with uncollected():
        naming = Naming(manifest, pictures, settings, revision)
        run_id = naming.run_id()
    if not naming.samples:
        raise RunRefused(f"no pair of the manifest can be drawn: {counted(len(faults), 'fault')}", faults)
    held = holdings(store, [a.adapter_id for a in naming.adapters], [s.content_id for s in naming.samples])
    run = RunInfo(
        run_id=run_id,
        name=manifest.name,
        source=manifest.source,
        base=manifest.base,
        base_revision=revision,
        settings=settings,
        strength_reading=manifest.strength_reading,
        on_fault=on_fault or manifest.on_fault,
        created_at=datetime.now(UTC),
        faults=faults,
    )
    try:
        kept = load_plan(store, run_id)
        plan = replace(kept, run=replace(kept.run, faults=faults))
    except RunNotFound:
        kept = None
        packs = _packs(naming.adapters, held, _pack_size(settings, manifest.base, elsewhere))
        plan = Plan(run, packs, shards_of(naming.samples, held, settings))
    images = {picture.image_id: key for key, picture in pictures.items()}
    return Draft(plan, images, held, naming.strips, naming.clips, kept is not None)


def publish(store: Store, draft: Draft, manifest: Manifest) -> Plan:
    """Write a plan and its input pictures; the plan that is in the store afterwards wins, also over a racing twin.

    Order: pictures, manifest, run.json, and the plan last, because the plan is the marker.

    Raises:
        RunRefused: a picture has changed since the plan was made.
    """
    plan = draft.plan
    run_id = plan.run.run_id
    _write_pictures(store, draft.images)
    if draft.is_kept:
        return plan
    store.write_once(layout.run_key(run_id, "manifest.json"), manifest.model_dump_json(indent=2).encode())
    write_strips(store, run_id, draft.strips)
    write_clips(store, run_id, draft.clips)
    store.write_once(layout.run_key(run_id, "run.json"), plan.run.to_json(state="planned"))
    store.write_once(layout.run_key(run_id, "plan.parquet"), to_parquet_bytes(to_table(plan_rows(plan), PLAN)))
    return replace(load_plan(store, run_id), run=plan.run)


def _write_pictures(store: Store, images: Mapping[str, str]) -> None:
    """Normalise and write those that the store lacks, a few at a time: thousands of them do not fit into memory."""
    there = store.list(layout.IMAGES_PREFIX)
    wanted = {key: image_id for image_id, key in images.items() if layout.image_key(image_id) not in there}
    changed: list[Fault] = []
    read = read_images(wanted, NORMALISED)
    while some := list(itertools.islice(read, PICTURES_AT_ONCE)):
        good: dict[str, NormalisedImage] = {}
        for key, found in some:
            if isinstance(found, ManifestsError) or found.image_id != wanted[key]:
                changed.append(_changed(key, found))
            else:
                good[found.image_id] = found
        in_parallel(store, partial(_write_picture, store, good), list(good))
    if changed:
        raise RunRefused(f"{counted(len(changed), 'picture')} changed while the run was being planned", changed)


def _write_picture(store: Store, pictures: Mapping[str, NormalisedImage], image_id: str) -> None:
    store.write_once(layout.image_key(image_id), pictures[image_id].png)


def _changed(key: str, found: NormalisedImage | ManifestsError) -> Fault:
    received = str(found) if isinstance(found, ManifestsError) else "another picture"
    hint = "run the manifest again once nobody writes to its pictures"
    what = f"{' '.join(key.splitlines())} changed while the run was being planned"
    return Fault("image", what, received, "the picture as it was", hint)


def merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Lay nested settings over each other; `above` wins, mapping by mapping."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _pack_size(settings: Settings, base: str, elsewhere: bool) -> int:
    if settings.pack_size != "auto":
        return settings.pack_size
    return 1 if elsewhere else auto_pack_size(base, settings.train)


def _packs(adapters: Sequence[PlannedAdapter], held: Holdings, size: int) -> tuple[Pack, ...]:
    """Packs of what is missing, then packs of what is there (a rerun may find it gone)."""
    groups: list[tuple[PlannedAdapter, ...]] = []
    for there in (False, True):
        some = [a for a in adapters if (a.adapter_id in held.adapters) is there]
        groups += _chunks(some, size)
    return tuple(Pack(ids.digest("pack", [a.adapter_id for a in g]), i, g) for i, g in enumerate(groups))


def shards_of(samples: Sequence[PlannedSample], held: Holdings, settings: Settings) -> tuple[Shard, ...]:
    """Stretches of one row, cut into batches; what is missing first.

    Further candidates have batches of their own: what is asked for is drawn in the layout, and so with the bytes, that
    it has without them.
    """
    rows: dict[str, list[PlannedSample]] = {}
    for sample in samples:
        rows.setdefault(sample.row, []).append(sample)
    groups: list[tuple[PlannedSample, ...]] = []
    for row in rows.values():
        for there, further in itertools.product((False, True), (False, True)):
            some = [s for s in row if (s.sample_id in held.pictures, s.candidate_of is not None) == (there, further)]
            groups += _chunks(some, settings.shard_size)
    return tuple(
        Shard(ids.digest("shard", [s.sample_id for s in g]), i, tuple(_chunks(g, settings.sample.batch_size)))
        for i, g in enumerate(groups)
    )


def plan_rows(plan: Plan) -> Iterable[dict[str, Any]]:
    """The plan as rows of the PLAN table."""
    blank: dict[str, Any] = dict.fromkeys(PLAN.names)
    for pack in plan.packs:
        for position, adapter in enumerate(pack.adapters):
            yield blank | {
                "run_id": plan.run.run_id,
                "kind": "adapter",
                "group_id": pack.pack_id,
                "group_index": pack.index,
                "batch_index": 0,
                "position": position,
                "adapter_id": adapter.adapter_id,
                "name": adapter.name,
                "word": adapter.word,
                "image_ids": list(adapter.image_ids),
                "prompt": adapter.prompt or None,
            }
    for shard in plan.shards:
        for number, batch in enumerate(shard.batches):
            for position, sample in enumerate(batch):
                yield (
                    blank
                    | sample.columns()
                    | {
                        "run_id": plan.run.run_id,
                        "kind": "sample",
                        "group_id": shard.shard_id,
                        "group_index": shard.index,
                        "batch_index": number,
                        "position": position,
                    }
                )


def _chunks(items: Sequence[Item], size: int) -> list[tuple[Item, ...]]:
    return [tuple(items[start : start + size]) for start in range(0, len(items), size)]
