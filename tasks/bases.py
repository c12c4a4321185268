"""The base that a run works with, spelled out from what a command, a manifest or its preset says; and if it fits."""

from __future__ import annotations

import os
from dataclasses import replace

from blora.bases.spec import parse_base
from blora.settings.presets import Settings
from manifests.loading.load import Loaded
from manifests.notes import Note
from manifests.schema.entries import Manifest

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
        BaseModelError: the base is of no known form.
    """
    manifest = loaded.manifest
    if manifest is None:
        return loaded
    implied = "embedded" if (preset or manifest.preset) == "demo" else "sdxl"
    chosen = parse_base(base).below(os.getcwd()) if base else parse_base(manifest.base or implied)
    return replace(loaded, manifest=manifest.model_copy(update={"base": chosen.text}))


def base_notes(manifest: Manifest, settings: Settings) -> tuple[Note, ...]:
    """Return what speaks against drawing with these settings on this base, before hours are spent.

    Args:
        manifest: its base spelled out.
        settings: the resolved settings.
    """
    base, sample = parse_base(manifest.base), settings.sample
    of_hub = "@" in base.model
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
