"""Base and settings of a run, from what a command, a manifest and its preset say: what is wrong, what fits badly."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable, Collection, Mapping
from contextvars import copy_context
from dataclasses import replace
from pathlib import Path
from threading import Timer
from typing import Any

from blora.adapters.blocks import front_is_frozen
from blora.bases.places import split_digest
from blora.bases.spec import KNOWN, parse_base
from blora.bases.topology import FamilyName, split_faults
from blora.errors import BaseModelError, BloraError, SettingsError
from blora.settings.block_split import own_split, shown_split
from blora.settings.presets import Settings
from blora.settings.resolve import merge, resolve
from manifests.errors import ManifestsError, StoreError
from manifests.faults import Fault
from manifests.loading.load import Loaded
from manifests.notes import Note
from manifests.schema.entries import Manifest, PairEntry
from tasks.downloads import base_config, base_family, located_base, revision_of
from tasks.errors import is_transient

_EMBEDDED_MOST_PX = 256
"""Sides of pictures that the embedded model can be asked for; it was made for 128."""
_SDXL_FEWEST_PX = 512
_FEW_STEPS = 12
_SOON_SECONDS = 3.0
_PAUSES_SECONDS = (2.0, 5.0)
"""Between tries to have a base from where nobody answers, before all of a run is given up for now."""


def with_base(loaded: Loaded, base: str = "", preset: str | None = None) -> Loaded:
    """The manifest with its base spelled out: what a command or a form says, else the manifest, else the preset.

    Args:
        loaded: the manifest.
        base: what is asked for in its place, its paths relative to the folder of the process; empty for nothing.
        preset: replaces the manifest's own.

    Returns:
        The manifest, or what could be read of it; a base of no known form as it was said, and none where the preset
        implies none: whoever looks for it says what is wrong.
    """

    def based(manifest: Manifest) -> Manifest:
        implied = {"demo": "embedded", "flux": ""}.get(preset or manifest.preset, "sdxl")
        try:
            said = manifest.base or implied
            chosen = parse_base(base).below(os.getcwd()).text if base else said and parse_base(said).text
        except BaseModelError:
            chosen = base or manifest.base
        return manifest.model_copy(update={"base": chosen})

    return replace(loaded, manifest=loaded.manifest and based(loaded.manifest), rest=based(loaded.rest))


def revision_or_faults(manifest: Manifest, option: str = "") -> tuple[str, list[Fault]]:
    """The revision of a manifest's base, or why it has none.

    Args:
        manifest: its base spelled out.
        option: of a command, where that has said the base.
    """
    if not manifest.base:
        what, accepted = "preset flux without a base", "FLUX.1 in diffusers' layout"
        hint = "say base: a folder of FLUX.1, or black-forest-labs/FLUX.1-dev@ and the commit that you mean"
        return "", [Fault("settings", what, "none", accepted, hint, file=manifest.source, field="base")]
    try:
        return revision_of(manifest.base), []
    except (BaseModelError, StoreError) as error:
        file = "" if option else manifest.source
        return "", [Fault("settings", *_parts(error), file=file, field=option or "base", transient=error.transient)]


def lies_here(spec: str) -> bool:
    """Whether every part of a base is a file or folder of this machine that is there, or in the package."""
    places = parse_base(spec).places
    return all(place == "embedded" or Path(split_digest(place)[0]).exists() for place in places)


def fetch_fault(spec: str, precisions: Collection[str], item: str, tell: Callable[[str], None]) -> Fault | None:
    """Have a base brought to this machine before anybody needs it; why it cannot be had, or None.

    Args:
        spec: the base.
        precisions: of its training and drawing.
        item: id of the run that needs it.
        tell: takes a line for a person where it takes long.
    """
    told = Timer(
        _SOON_SECONDS,
        copy_context().run,
        [tell, f"brings {parse_base(spec).label} to this machine, which may take minutes"],
    )
    told.daemon = True
    told.start()
    try:
        for half in sorted({precision != "fp32" for precision in precisions}):
            _located(spec, half)
    except (BloraError, ManifestsError, OSError) as error:
        what, received, accepted, hint = _parts(error)
        name = next((name for name, known in KNOWN.items() if known.text == spec), spec)
        doctor = f"blora doctor --base {shlex.quote(name)} looks closer"
        return Fault(
            "settings",
            f"the base cannot be had: {what}",
            received,
            accepted,
            "; ".join(part for part in (hint, doctor) if part),
            item=item,
            transient=is_transient(error),
        )
    finally:
        told.cancel()
    return None


def _parts(error: Exception) -> tuple[str, str, str, str]:
    """What is wrong and where, what was received and is accepted, and what to do: the parts of a fault."""
    where, what, received, accepted, hint = (
        str(getattr(error, part, "") or "") for part in ("where", "what", "received", "accepted", "hint")
    )
    return (f"{where}: {what}" if where else what, received, accepted, hint) if what else (str(error), "", "", "")


def _located(spec: str, half: bool) -> None:
    """Bring it here; what may pass by itself is tried again, and nothing else."""
    for pause_seconds in (*_PAUSES_SECONDS, None):
        try:
            located_base(spec, half=half)
            return
        except (BloraError, ManifestsError, OSError) as error:
            if pause_seconds is None or not is_transient(error):
                raise
            time.sleep(pause_seconds)


def settings_or_faults(
    manifest: Manifest, preset: str | None, overrides: Mapping[str, Any] | None
) -> tuple[Settings | None, list[Fault]]:
    """The settings of a manifest, resolved, or all that is wrong with them, by where it was said.

    Args:
        manifest: the manifest.
        preset: replaces its own.
        overrides: nested settings laid over its own.
    """
    above = dict(overrides or {})
    try:
        return resolve(preset or manifest.preset, merge(manifest.settings, above)), []
    except SettingsError as error:
        faults = []
        for one in error.faults:
            option = "--preset" if preset and one.field == "preset" else ""
            if one.field != "preset" and _says(above, one.field):
                option = f"--set {one.field}"
            file, field = ("", option) if option else (manifest.source, one.field)
            faults.append(Fault("settings", one.what, one.received, one.accepted, one.hint, file=file, field=field))
        return None, faults


def _says(settings: Mapping[str, Any], path: str) -> bool:
    """Whether nested settings say something of a dotted path, or of a part of the group that it is."""
    for name in path.split("."):
        if not isinstance(settings, Mapping) or name not in settings:
            return False
        settings = settings[name]
    return True


def unfit(manifest: Manifest, settings: Settings) -> list[Fault]:
    """What of the settings a base of this kind would not hear.

    Args:
        manifest: its base spelled out.
        settings: the resolved settings.
    """
    faults = _split_faults(manifest, settings)
    if base_family(manifest.base) == "sdxl":
        return faults + _unfit_for_sdxl(manifest, settings)
    what, hint = "FLUX has no negative row to guide by: it is told guidance as a number", "leave it out"
    unheard = settings.sample.of_a_negative_row()
    faults += [
        Fault("settings", what, repr(value), "", hint, file=manifest.source, field=f"sample.{name}")
        for name, value in unheard.items()
    ]
    if settings.train.layers != "attention":
        what, hint, layers = "FLUX has no cross-attention", "start from preset flux", settings.train.layers
        told = Fault("settings", what, layers, "attention", hint, file=manifest.source, field="train.layers")
        faults.append(told)
    if settings.train.front_pool:
        what, pool = "FLUX has no frozen front that rows could share", str(settings.train.front_pool)
        faults.append(
            Fault("settings", what, pool, "0", "leave it out", file=manifest.source, field="train.front_pool")
        )
    return faults


def _unfit_for_sdxl(manifest: Manifest, settings: Settings) -> list[Fault]:
    """What of the settings SDXL would not hear."""
    train, hint, faults = settings.train, "leave it out", []
    if train.timestep_shift != 1:
        what, field = "SDXL does not learn by flow matching", "train.timestep_shift"
        faults.append(Fault("settings", what, str(train.timestep_shift), "1", hint, file=manifest.source, field=field))
    if train.front_pool and train.split and not front_is_frozen((*train.split.content, *train.split.style)):
        what, accepted = "no frozen front", "0, or content and style blocks among the up blocks"
        pool, field = str(train.front_pool), "train.front_pool"
        faults.append(Fault("settings", what, pool, accepted, hint, file=manifest.source, field=field))
    return faults


def _split_faults(manifest: Manifest, settings: Settings) -> list[Fault]:
    """What blocks a split names that the base does not have; of a base that cannot be asked now, the training says."""
    train = settings.train
    config = base_config(manifest.base) if train.split or train.rank_constraint else None
    found = split_faults(train, config) if config else []
    return [
        Fault("settings", one.what, one.received, one.accepted, one.hint, file=manifest.source, field=one.field)
        for one in found
    ]


def unheard(pair: PairEntry, family: FamilyName) -> Fault | None:
    """The fault of a pair that tells a base of this kind what it does not hear."""
    if family == "sdxl":
        return None
    said = {"content_prompt": pair.content_prompt, "negative_prompt": pair.negative_prompt}
    for field, value in said.items():
        if value:
            what, accepted = f"{field.replace('_', ' ')} with FLUX", "one prompt for all blocks, and no negative one"
            row: dict[str, Any] = {"file": pair.file, "row": pair.row, "item": pair.content or pair.style or ""}
            return Fault("manifest", what, repr(value), accepted, f"remove {field}", field=field, **row)
    return None


def base_notes(manifest: Manifest, settings: Settings) -> tuple[Note, ...]:
    """Return what speaks against drawing with these settings on this base, before hours are spent.

    Args:
        manifest: its base spelled out.
        settings: the resolved settings.
    """
    base, sample = parse_base(manifest.base), settings.sample
    of_hub = "@" in base.model and base_family(manifest.base) == "sdxl"
    largest_px = max(sample.width_px, sample.height_px, settings.train.resolution_px)
    notes = []
    split = settings.train.split
    if split is not None and split != own_split(flux=base_family(manifest.base) == "flux"):
        notes.append(f"hours and memory are reckoned for the base's own blocks, not for {shown_split(split)}")
    if base.model == "embedded" and largest_px > _EMBEDDED_MOST_PX:
        notes.append(
            f"the embedded model was made for 128 px and is asked for {largest_px}: it will draw noise for hours; "
            "say base: sdxl (--base sdxl), or preset demo"
        )
    if of_hub and largest_px < _SDXL_FEWEST_PX:
        notes.append(f"SDXL was made for 1024 px and is asked for {largest_px}: say preset draft, fast or paper")
    if of_hub and not base.fuse and sample.steps <= _FEW_STEPS and sample.guidance_scale == 1:
        notes.append(
            f"{sample.steps} steps without guidance expect a few-step base: say base: sdxl+lightning8, fuse LCM, Hyper "
            "or DMD2 into yours, or take a fine-tune that was made so"
        )
    return tuple(Note(text, file=manifest.source) for text in notes)
