"""From a manifest to a plan: which adapters, which samples, in which packs and shards.

A plan is made once per run and kept (``runs/<run_id>/plan.parquet``): packs and batches keep their membership in
every rerun, so that a rerun computes in the same layout, and therefore the same bytes, and writes only what is
missing. What the store lacked when the plan was made stands first, so that old work and new work do not share a pack.

Making a plan reads; only `publish` writes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, TypeVar

from blora.config import Settings, resolve
from manifests import ids, layout
from manifests.checks import check_images
from manifests.images import NormalisedImage
from manifests.schema import Loaded, Manifest
from manifests.store import Store
from manifests.tables import PLAN, to_parquet_bytes, to_table
from tasks.bases import revision_of
from tasks.cost import auto_pack_size
from tasks.faults import RunNotFound, RunRefused
from tasks.naming import Naming
from tasks.runs import Pack, Plan, PlannedAdapter, PlannedSample, RunInfo, Shard, load_plan, load_run
from tasks.stock import Holdings, holdings, in_parallel
from tasks.strips import Strip, write_strips

Item = TypeVar("Item")


@dataclass(frozen=True)
class Draft:
    """A plan that is not published yet, with the pictures that publishing writes."""

    plan: Plan
    images: tuple[NormalisedImage, ...]
    held: Holdings
    strips: tuple[Strip, ...] = ()


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
        raise RunRefused(f"the manifest was refused: {len(loaded.faults)} faults", loaded.faults)
    settings = resolve(preset or manifest.preset, merge(manifest.settings, overrides or {}))
    pictures, image_faults = check_images(manifest)
    faults = (*loaded.faults, *image_faults)
    if faults and (on_fault or manifest.on_fault) == "stop":
        raise RunRefused(f"stopped before any work: {len(faults)} faults and on_fault is stop", faults)
    revision = revision_of(manifest.base)
    naming = Naming(manifest, pictures, settings, revision)
    if not naming.samples:
        raise RunRefused(f"no pair of the manifest can be drawn: {len(faults)} faults", faults)
    run_id = naming.run_id()
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
        plan = replace(load_plan(store, run_id), run=replace(load_run(store, run_id), faults=faults))
    except RunNotFound:
        packs = _packs(naming.adapters, held, _pack_size(settings, manifest.base, elsewhere))
        plan = Plan(run, packs, shards_of(naming.samples, held, settings))
    images = tuple({picture.image_id: picture for picture in pictures.values()}.values())
    return Draft(plan, images, held, naming.strips)


def publish(store: Store, draft: Draft, manifest: Manifest) -> Plan:
    """Write a plan and its input pictures; the plan that is in the store afterwards wins, also over a racing twin.

    Order: pictures, manifest, run.json, and the plan last, because the plan is the marker.
    """
    plan = draft.plan
    run_id = plan.run.run_id
    pictures = {layout.image_key(picture.image_id): picture.png for picture in draft.images}
    in_parallel(lambda key: store.write_once(key, pictures[key]), list(pictures))
    store.write_once(layout.run_key(run_id, "manifest.json"), manifest.model_dump_json(indent=2).encode())
    write_strips(store, run_id, draft.strips)
    store.write_once(layout.run_key(run_id, "run.json"), plan.run.to_json(state="planned"))
    store.write_once(layout.run_key(run_id, "plan.parquet"), to_parquet_bytes(to_table(plan_rows(plan), PLAN)))
    return replace(load_plan(store, run_id), run=plan.run)


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
            some = [s for s in row if (s.sample_id in held.samples, s.candidate_of is not None) == (there, further)]
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
