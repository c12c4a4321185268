"""The base that a run works with, spelled out from what a command, a manifest or its preset says; and if it fits."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

from blora.bases.spec import parse_base
from blora.bases.topology import FamilyName
from blora.errors import BaseModelError, SettingFault, SettingsError
from blora.settings.presets import Settings
from manifests.faults import Fault
from manifests.loading.load import Loaded
from manifests.notes import Note
from manifests.schema.entries import Manifest, PairEntry
from tasks.downloads import base_family

_EMBEDDED_MOST_PX = 256
"""Sides of pictures that the embedded model can be asked for; it was made for 128."""
_SDXL_FEWEST_PX = 512
_FEW_STEPS = 12


def with_base(loaded: Loaded, base: str = "", preset: str | None = None) -> Loaded:
    """The manifest with its base spelled out: what a command or a form says, else the manifest, else the preset.

    Args:
        loaded: the manifest.
        base: what is asked for in its place, its paths relative to the folder of the process; empty for nothing.
        preset: replaces the manifest's own.

    Raises:
        BaseModelError: the base is of no known form, or none is said with a preset that implies none.
    """
    manifest = loaded.manifest
    if manifest is None:
        return loaded
    named = preset or manifest.preset
    if named == "flux" and not (base or manifest.base):
        hint = "say base: a folder of FLUX.1, or black-forest-labs/FLUX.1-dev@ and the commit that you mean"
        raise BaseModelError("preset flux without a base", "none", "FLUX.1 in diffusers' layout", manifest.source, hint)
    implied = "embedded" if named == "demo" else "sdxl"
    chosen = parse_base(base).below(os.getcwd()) if base else parse_base(manifest.base or implied)
    return replace(loaded, manifest=manifest.model_copy(update={"base": chosen.text}))


def refuse_unfit(manifest: Manifest, settings: Settings) -> None:
    """Refuse settings that a base of this kind would not hear, before anything is planned with them.

    Args:
        manifest: its base spelled out.
        settings: the resolved settings.

    Raises:
        SettingsError: with all of them.
    """
    if base_family(manifest.base) == "sdxl":
        return
    what, hint = "FLUX has no negative row to guide by: it is told guidance as a number", "leave it out"
    unheard = settings.sample.of_a_negative_row()
    faults = [SettingFault(f"sample.{name}", what, repr(value), hint=hint) for name, value in unheard.items()]
    if settings.train.layers != "attention":
        what, hint = "FLUX has no cross-attention", "start from preset flux"
        faults.append(SettingFault("train.layers", what, settings.train.layers, "attention", hint))
    if faults:
        raise SettingsError(faults)


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
