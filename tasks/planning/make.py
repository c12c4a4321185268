"""From a manifest to a plan: which adapters, which samples, in which packs and shards.

A plan is made once per run and kept (``runs/<run_id>/plan.parquet``): packs and batches keep their membership in
every rerun, so that a rerun computes in the same layout, and therefore the same bytes, and writes only what is
missing.

Making a plan reads; only `publish` writes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from blora.settings.presets import Settings
from manifests.errors import counted
from manifests.faults import Fault
from manifests.images.normalise import IdentifiedImage
from manifests.loading.load import Loaded
from manifests.loading.pictures import check_images, picture_notes, small_notes, write_images
from manifests.notes import Note
from manifests.schema.entries import Manifest
from manifests.store.run_folder import RunFolder
from manifests.store.store import Store
from manifests.tables.run import NOTES_FILE, PLAN_FILE
from tasks.bases import base_notes, revision_or_faults, settings_or_faults, unfit, with_base
from tasks.devices import chosen_devices
from tasks.errors import RunNotFound, RunRefused
from tasks.memory import auto_pack_size
from tasks.planning.clips import PlannedClip, write_clips
from tasks.planning.finished import Finished, check_adapters, write_adapters
from tasks.planning.group import packs_of, plan_rows, shards_of
from tasks.planning.identify import Identified, identify
from tasks.planning.sweeps import Strip, write_strips
from tasks.run.inventory import Holdings, holdings
from tasks.run.plan import Plan, RunInfo, load_plan, uncollected


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


@dataclass(frozen=True)
class Survey:
    """What there is to say of a manifest before it is planned: base, settings and pictures each looked at alone.

    Attributes:
        manifest: what was read, its base spelled out.
        settings: the resolved settings; None where they were refused.
        revision: of the base; empty where that was refused.
        pictures: the good pictures by key.
        finished: the good ones of the adapters that came as files, by address.
        faults: rows, pictures and adapters that cannot be used.
        refused: what nothing at all can be worked off with.
        notes: what there is to know beside them.
    """

    manifest: Manifest
    settings: Settings | None
    revision: str
    pictures: Mapping[str, IdentifiedImage]
    finished: Finished
    faults: tuple[Fault, ...]
    refused: tuple[Fault, ...]
    notes: tuple[Note, ...]

    def asked_for(self) -> Identified | None:
        """What it asks for, each thing named by its content; None where nobody can tell."""
        if self.settings is None or not self.manifest.pairs:
            return None
        with uncollected():
            return identify(self.manifest, self.pictures, self.settings, self.revision, self.finished)


def survey(
    loaded: Loaded,
    base: str = "",
    preset: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    refused: Sequence[Fault] = (),
) -> Survey:
    """Check all that a manifest says, whatever else is wrong with it.

    Args:
        loaded: the manifest.
        base: replaces the manifest's own; paths are relative to the folder of the process.
        preset: replaces the manifest's own.
        overrides: nested settings laid over the manifest's own.
        refused: what else is wrong already, with the options of a command, say.
    """
    loaded = with_base(loaded, base, preset)
    manifest = loaded.manifest or loaded.rest
    settings, setting_faults = settings_or_faults(manifest, preset, overrides)
    revision, base_faults = revision_or_faults(manifest, "--base" if base else "")
    if settings and not base_faults:
        setting_faults = [*setting_faults, *unfit(manifest, settings)]
    pictures, image_faults = check_images(manifest)
    finished, adapter_faults, adapter_notes = check_adapters(manifest)
    about = base_notes(manifest, settings) if settings and not base_faults else ()
    small = small_notes(manifest, pictures, settings.train.resolution_px) if settings else ()
    of_rows, of_all = ((), loaded.faults) if loaded.manifest is None else (loaded.faults, ())
    return Survey(
        manifest,
        settings,
        revision,
        pictures,
        finished,
        (*of_rows, *image_faults, *adapter_faults),
        (*refused, *base_faults, *setting_faults, *of_all),
        (*about, *loaded.notes, *picture_notes(manifest, pictures), *small, *adapter_notes),
    )


def make_plan(
    store: Store, surveyed: Loaded | Survey, *, on_fault: str | None = None, devices: str = "auto"
) -> PlanDraft:
    """Work out what a manifest asks for. Writes nothing.

    Args:
        store: asked what it already holds.
        surveyed: what was found in looking at the manifest; one that was only read is looked at.
        on_fault: replaces the manifest's own: ``record`` or ``stop``.
        devices: those that train, as the user names them: an automatic pack size fits the smallest, and is 1 where
            none is named, because other machines train.

    Raises:
        RunRefused: nothing usable is left, or there are faults and the policy is to stop; all faults are in it.
    """
    found = survey(surveyed) if isinstance(surveyed, Loaded) else surveyed
    manifest, settings, asked = found.manifest, found.settings, found.asked_for()
    policy = on_fault or manifest.on_fault
    faults = (*found.faults, *(asked.faults if asked else ()))
    if found.refused or asked is None or settings is None:
        every = (*found.refused, *faults)
        raise RunRefused(f"nothing can be begun: {counted(len(every), 'fault')}", every)
    if faults and policy == "stop":
        raise RunRefused(f"stopped before any work: {counted(len(faults), 'fault')} and on_fault is stop", faults)
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
            base_revision=found.revision,
            settings=settings,
            strength_reading=manifest.strength_reading,
            on_fault=policy,
            created_at=datetime.now(UTC),
            faults=faults,
        )
        packs = packs_of(asked.adapters, held, _pack_size(settings, manifest.base, devices))
        plan = Plan(run, packs, shards_of(asked.samples, held, settings))
    images = {picture.image_id: key for key, picture in found.pictures.items()}
    used = {a.adapter_id for a in asked.adapters}
    finished = {address: one for address, one in found.finished.items() if one.adapter_id in used}
    notes = (*found.notes, *asked.notes)
    return PlanDraft(manifest, plan, images, held, asked.strips, asked.clips, notes, finished, kept is not None)


def publish(store: Store, draft: PlanDraft) -> Plan:
    """Write a plan and its input pictures; the plan that is in the store afterwards wins, also over a racing twin.

    Order: pictures and finished adapters, manifest, run.json, and the plan last, because the plan is the marker.

    Raises:
        RunRefused: a picture or an adapter's file has changed since the plan was made.
    """
    plan = draft.plan
    run_id = plan.run.run_id
    run = RunFolder(store, run_id)
    if changed := write_images(store, draft.images):
        raise RunRefused(f"{counted(len(changed), 'picture')} changed while the run was being planned", changed)
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


def _pack_size(settings: Settings, base: str, devices: str) -> int:
    if settings.pack_size != "auto":
        return settings.pack_size
    return auto_pack_size(base, settings.train, chosen_devices(devices)) if devices else 1
