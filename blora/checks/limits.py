"""From which number on a defect is one: limits that were measured, kept in ``limits.json`` beside this file.

The file has an entry for each revision of a base model that was calibrated (`python -m blora.checks.calibrate`), with
its provenance: settings, numbers of pictures, rates of false alarms and misses. A base without an entry has no limits,
and its adapters are not checked, unless the settings give limits of their own. SDXL has not been calibrated.

No torch here: planning needs to know what an adapter is named by.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from importlib import resources
from typing import Any, Final

from blora.checks.defects import ADAPTER_DEFECTS, PICTURE_DEFECTS, picture_defects
from blora.errors import SettingFault, SettingsError
from blora.settings.judging import CheckSettings
from blora.settings.presets import Settings
from blora.settings.sampling import SampleSettings

__all__ = [
    "LIMITS",
    "adapter_limits",
    "calibrated",
    "limits_for",
    "picture_passes",
    "reconstruction_settings",
    "training_identity",
]

LIMITS: Final = (*ADAPTER_DEFECTS, *PICTURE_DEFECTS)
"""Names of all defects, as `CheckSettings` and the file have them."""

CHECK_RECIPE: Final = 1
"""Counts changes of how an adapter is checked that may change which attempt is kept."""


@functools.cache
def calibrated() -> Mapping[str, Mapping[str, Any]]:
    """What was measured, by revision of the base model."""
    bases: dict[str, dict[str, Any]] = json.loads((resources.files("blora.checks") / "limits.json").read_text("utf-8"))
    return bases


def limits_for(check: CheckSettings, base_revision: str) -> dict[str, float]:
    """The limits that hold for a base: the settings' own, else the calibrated ones; none where there is neither."""
    measured: Mapping[str, float] = calibrated().get(base_revision, {}).get("limits", {})
    own = {name: getattr(check, name) for name in LIMITS}
    values = {name: measured.get(name) if value is None else value for name, value in own.items()}
    return {name: float(value) for name, value in values.items() if value is not None}


def adapter_limits(check: CheckSettings, base_revision: str) -> dict[str, float]:
    """The limits that adapters are judged by."""
    return {name: limit for name, limit in limits_for(check, base_revision).items() if name in ADAPTER_DEFECTS}


def picture_passes(scores: Mapping[str, float], limits: Mapping[str, float]) -> bool | None:
    """Whether a picture has no defect, by its scores; None where they, or the limits, do not suffice to judge it.

    Args:
        scores: Of the picture, by name.
        limits: As `limits_for` gives them.
    """
    judged = [value <= limits[name] for name, value in picture_defects(scores).items() if name in limits]
    return all(judged) if judged else None


def reconstruction_settings(settings: Settings) -> SampleSettings:
    """How an adapter's own image is drawn for its check: as pictures are, at the training's size, in few steps."""
    side_px = settings.train.resolution_px
    few = {"steps": settings.check.steps, "width_px": side_px, "height_px": side_px}
    return settings.sample.model_copy(update=few | {"precision": settings.train.precision})


def training_identity(settings: Settings, base_revision: str, prompt: str = "") -> dict[str, Any]:
    """What an adapter is named by, beside its pictures and its base: the recipe of its training.

    With one attempt, a check changes nothing of the adapter and is no part of this. With more, which attempt is kept
    depends on all that the check does, so that this and the limits are a part of the recipe: equal ids still mean equal
    weights, and an adapter that was trained with another policy, or by other limits, is another adapter.

    Args:
        settings: Of the run.
        base_revision: The pinned revision of the base.
        prompt: What the adapter is trained with where that is not the settings' prompt.

    Raises:
        SettingsError: Several attempts, and nothing to judge them by.
    """
    train = settings.train.model_copy(update={"prompt": prompt}) if prompt else settings.train
    identity = train.identity()
    if settings.check.attempts < 2:
        return identity
    limits = adapter_limits(settings.check, base_revision)
    if not limits:
        received, accepted = f"{settings.check.attempts} attempts on a base without limits", "1, or limits"
        hint = "calibrate this base (python -m blora.checks.calibrate) and put the limits into settings.check"
        raise SettingsError([SettingFault("check.attempts", "nothing to judge by", received, accepted, hint)])
    policy = {"attempts": settings.check.attempts, "pictures": settings.check.pictures, "limits": limits}
    drawn = reconstruction_settings(settings).identity()
    return identity | {"check": policy | {"draw": drawn, "recipe": CHECK_RECIPE}}
