"""From a manifest to a plan: which adapters, which samples, in which packs and shards.

A plan is made once per run and kept (``runs/<run_id>/plan.parquet``): packs and batches keep their membership in
every rerun, so that a rerun computes in the same layout, and therefore the same bytes, and writes only what is
missing.

Making a plan reads; only `publish` writes.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from blora.settings.presets import Settings
from blora.settings.resolve import merge, resolve
from manifests import layout
from manifests.errors import ManifestsError, counted
from manifests.faults import Fault
from manifests.images.normalise import NormalisedImage
from manifests.loading.load import Loaded
from manifests.loading.pictures import NORMALISED, check_images, picture_notes, read_images
from manifests.notes import Note
from manifests.schema.entries import Manifest
from manifests.store.parallel import in_parallel
from manifests.store.run_folder import RunFolder
from manifests.store.store import Store
from manifests.tables.run import NOTES_FILE, PLAN_FILE
from tasks.bases import base_notes, refuse_unfit, with_base
from tasks.devices import chosen_devices
from tasks.downloads import revision_of
from tasks.errors import RunNotFound, RunRefused
from tasks.memory import auto_pack_size
from tasks.planning.clips import PlannedClip, write_clips
from tasks.planning.finished import Finished, check_adapters, write_adapters
from tasks.planning.group import packs_of, plan_rows, shards_of
from tasks.planning.identify import identify
from tasks.planning.sweeps import Strip, write_strips
from tasks.run.inventory import Holdings, holdings
from tasks.run.plan import Plan, RunInfo, load_plan, uncollected

PICTURES_AT_ONCE = 16
"""Input pictures in memory while they are written to the store."""


@dataclass(frozen=True)
class PlanDraft:
    """A plan that is not in the store yet, or was not when it was looked for.

    Attributes:
        manifest: what it was made from.
        plan: the plan; the kept one, where the store has had it before.
        images: the key of each of its pictures, by image_id.
        held: what the store has of it.
        strips: the sweeps among its samples.
        clips: the clips among them.
        notes: what there is to know of its rows.
        finished: the adapters that came as files, by address.
        is_kept: whether the store has had it before.
    """

    manifest: Manifest
    plan: Plan
    images: Mapping[str, str]
    held: Holdings
    strips: tuple[Strip, ...] = ()
    clips: tuple[PlannedClip, ...] = ()
    notes: tuple[Note, ...] = ()
    finished: Finished = field(default_factory=dict)
    is_kept: bool = False


def settings_of(loaded: Loaded, preset: str | None = None, overrides: Mapping[str, Any] | None = None) -> Settings:
    """The settings of a manifest, resolved.

    Args:
        loaded: the manifest.
        preset: replaces the manifest's own.
        overrides: nested settings laid over the manifest's own.

    Raises:
        RunRefused: nothing usable is left of the manifest.
        SettingsError: the settings are refused; the message lists every fault.
    """
    manifest = _usable(loaded)
    return resolve(preset or manifest.preset, merge(manifest.settings, dict(overrides or {})))


@dataclass(frozen=True)
class Survey:
    """What a manifest asks for, as far as can be told without a store.

    Attributes:
        counts: of its contents, styles and pairs, and where there are settings of its pictures.
        faults: what of it cannot be drawn, beside what was found in reading it.
        notes: what there is to know of its rows.
    """

    counts: Mapping[str, int]
    faults: tuple[Fault, ...]
    notes: tuple[Note, ...]


def survey(manifest: Manifest, settings: Settings | None) -> Survey:
    """Check the pictures and adapters of a manifest and count what it asks for, as `make_plan` does.

    Args:
        manifest: the good rows.
        settings: the resolved settings; None where they were refused.
    """
    pictures, image_faults = check_images(manifest)
    finished, adapter_faults, adapter_notes = check_adapters(manifest)
    faults, notes = (*image_faults, *adapter_faults), (*picture_notes(manifest, pictures), *adapter_notes)
    counts = {"content": len(manifest.contents), "style": len(manifest.styles), "pair": len(manifest.pairs)}
    if settings is None:
        return Survey(counts, faults, notes)
    # The base's revision changes nothing in what is asked for twice.
    asked = identify(manifest, pictures, settings, "", finished)
    counts |= {"pair": asked.pairs, "picture": len(asked.samples)}
    return Survey(counts, (*faults, *asked.faults), (*base_notes(manifest, settings), *notes, *asked.notes))


def make_plan(
    store: Store,
    loaded: Loaded,
    settings: Settings | None = None,
    *,
    on_fault: str | None = None,
    devices: str = "auto",
) -> PlanDraft:
    """Work out what a manifest asks for. Writes nothing.

    Args:
        store: asked what it already holds.
        loaded: the manifest and the faults found in reading it.
        settings: the resolved settings; None: the manifest's own.
        on_fault: replaces the manifest's own: ``record`` or ``stop``.
        devices: those that train, as the user names them: an automatic pack size fits the smallest, and is 1 where
            none is named, because other machines train.

    Raises:
        RunRefused: nothing usable is left, or there are faults and the policy is to stop.
        SettingsError: the manifest's settings are refused; the message lists every fault.
    """
    loaded = with_base(loaded)
    manifest, settings = _usable(loaded), settings or settings_of(loaded)
    refuse_unfit(manifest, settings)
    policy = on_fault or manifest.on_fault
    pictures, image_faults = check_images(manifest)
    finished, adapter_faults, adapter_notes = check_adapters(manifest)
    faults = (*loaded.faults, *image_faults, *adapter_faults)
    _stop_at(faults, policy)
    revision = revision_of(manifest.base)
    with uncollected():
        asked = identify(manifest, pictures, settings, revision, finished)
    faults = (*faults, *asked.faults)
    _stop_at(faults, policy)
    if not asked.samples:
        raise RunRefused(f"no pair of the manifest can be drawn: {counted(len(faults), 'fault')}", faults)
    held = holdings(store, [a.adapter_id for a in asked.adapters], [s.content_id for s in asked.samples])
    # What came finished is there as soon as the plan is: it is brought in with it.
    held = replace(held, adapters=held.adapters | {a.adapter_id for a in asked.adapters if a.is_finished})
    try:
        kept = load_plan(store, asked.run_id)
        plan = replace(kept, run=replace(kept.run, faults=faults))
    except RunNotFound:
        kept = None
        run = RunInfo(
            run_id=asked.run_id,
            name=manifest.name,
            source=manifest.source,
            base=manifest.base,
            base_revision=revision,
            settings=settings,
            strength_reading=manifest.strength_reading,
            on_fault=policy,
            created_at=datetime.now(UTC),
            faults=faults,
        )
        packs = packs_of(asked.adapters, held, _pack_size(settings, manifest.base, devices))
        plan = Plan(run, packs, shards_of(asked.samples, held, settings))
    images = {picture.image_id: key for key, picture in pictures.items()}
    about = (*base_notes(manifest, settings), *loaded.notes, *picture_notes(manifest, pictures))
    notes = (*about, *adapter_notes, *asked.notes)
    used = {a.adapter_id for a in asked.adapters}
    finished = {address: one for address, one in finished.items() if one.adapter_id in used}
    return PlanDraft(manifest, plan, images, held, asked.strips, asked.clips, notes, finished, kept is not None)


def _stop_at(faults: Sequence[Fault], policy: str) -> None:
    if faults and policy == "stop":
        raise RunRefused(f"stopped before any work: {counted(len(faults), 'fault')} and on_fault is stop", faults)


def _usable(loaded: Loaded) -> Manifest:
    if loaded.manifest is None:
        raise RunRefused(f"the manifest was refused: {counted(len(loaded.faults), 'fault')}", loaded.faults)
    return loaded.manifest


def publish(store: Store, draft: PlanDraft) -> Plan:
    """Write a plan and its input pictures; the plan that is in the store afterwards wins, also over a racing twin.

    Order: pictures and finished adapters, manifest, run.json, and the plan last, because the plan is the marker.

    Raises:
        RunRefused: a picture or an adapter's file has changed since the plan was made.
    """
    plan = draft.plan
    run_id = plan.run.run_id
    run = RunFolder(store, run_id)
    _write_pictures(store, draft.images)
    write_adapters(store, draft.finished, plan.run.base, plan.run.base_revision)
    if draft.is_kept:
        return plan
    store.write_once(run.key("manifest.json"), draft.manifest.model_dump_json(indent=2).encode())
    write_strips(store, run_id, draft.strips)
    write_clips(store, run_id, draft.clips)
    if draft.notes:
        run.write_once(NOTES_FILE, [{"run_id": run_id, **vars(note)} for note in draft.notes])
    store.write_once(run.key("run.json"), plan.run.to_json(state="planned"))
    run.write_once(PLAN_FILE, plan_rows(plan))
    kept = load_plan(store, run_id)
    return replace(kept, run=replace(kept.run, faults=plan.run.faults))


def _write_pictures(store: Store, images: Mapping[str, str]) -> None:
    """Normalise and write those that the store lacks, a few at a time: thousands of them do not fit into memory."""
    there = store.list(layout.IMAGES_PREFIX)
    wanted = {key: image_id for image_id, key in images.items() if layout.image_key(image_id) not in there}
    changed: list[Fault] = []
    read = read_images(wanted, NORMALISED)
    while some := list(itertools.islice(read, PICTURES_AT_ONCE)):
        good: dict[str, NormalisedImage] = {}
        for key, picture in some:
            if isinstance(picture, ManifestsError) or picture.image_id != wanted[key]:
                changed.append(_changed(key, picture))
            else:
                good[picture.image_id] = picture
        in_parallel(store, partial(_write_picture, store, good), list(good))
    if changed:
        raise RunRefused(f"{counted(len(changed), 'picture')} changed while the run was being planned", changed)


def _write_picture(store: Store, pictures: Mapping[str, NormalisedImage], image_id: str) -> None:
    store.write_once(layout.image_key(image_id), pictures[image_id].png)


def _changed(key: str, picture: NormalisedImage | ManifestsError) -> Fault:
    received = str(picture) if isinstance(picture, ManifestsError) else "another picture"
    hint = "run the manifest again once nobody writes to its pictures"
    what = f"{' '.join(key.splitlines())} changed while the run was being planned"
    return Fault("image", what, received, "the picture as it was", hint)


def _pack_size(settings: Settings, base: str, devices: str) -> int:
    if settings.pack_size != "auto":
        return settings.pack_size
    return auto_pack_size(base, settings.train, chosen_devices(devices)) if devices else 1
