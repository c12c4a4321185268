"""Overrides laid over presets and over each other; what is unknown or out of bounds is a fault with its path."""

from __future__ import annotations

import difflib
import functools
import reprlib
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from blora.errors import SettingFault, SettingsError
from blora.settings.fields import Frozen
from blora.settings.presets import PRESETS, Settings

__all__ = ["merge", "resolve", "text_settings"]

_REPR = reprlib.Repr()
_REPR.maxlevel, _REPR.maxstring, _REPR.maxother, _REPR.maxlong = 2, 100, 100, 50


def resolve(preset: str = "paper", overrides: Mapping[str, Any] | None = None) -> Settings:
    """Lay overrides over a preset.

    Args:
        preset: A name in `PRESETS`.
        overrides: Nested or dotted names, for example ``{"train": {"steps": 200}}`` or ``{"train.steps": 200}``.

    Returns:
        The full, checked settings.

    Raises:
        SettingsError: With all faults at once, each under its dotted path.
    """
    faults: list[SettingFault] = []
    if preset not in PRESETS:
        near = difflib.get_close_matches(preset, PRESETS, n=1)
        hint = f"did you mean {near[0]}?" if near else ""
        faults.append(SettingFault("preset", "unknown preset", repr(preset), ", ".join(PRESETS), hint))
    flat = _flatten(overrides or {}, "", faults)
    values: dict[str, Any] = PRESETS.get(preset, PRESETS["paper"]).model_dump()
    for path, value in flat.items():
        group, _, name = path.rpartition(".")
        (values[group] if group else values)[name] = value
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        faults += [_fault(dict(detail)) for detail in error.errors()]
    if faults:
        raise SettingsError(sorted(faults, key=lambda fault: fault.field))
    return settings


def merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Lay nested settings over each other; ``above`` wins, mapping by mapping."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _flatten(overrides: Mapping[str, Any], prefix: str, faults: list[SettingFault]) -> dict[str, Any]:
    """Turn nested overrides into dotted ones that exist; the others become faults."""
    known = _known_paths()
    groups = _groups()
    flat: dict[str, Any] = {}
    for key, value in overrides.items():
        path = f"{prefix}{key}"
        if path in groups:
            if isinstance(value, Mapping):
                flat.update(_flatten(value, f"{path}.", faults))
            else:
                faults.append(SettingFault(path, "is a group of settings", _shown(value), "a mapping of its settings"))
        elif path in known:
            flat[path] = value
        else:
            faults.append(SettingFault(path, "unknown setting", _shown(value), hint=_did_you_mean(path, known)))
    return flat


def _known_paths() -> list[str]:
    """Return the dotted path of every setting."""
    paths = []
    for name, field in Settings.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Frozen):
            paths += [f"{name}.{inner}" for inner in kind.model_fields]
        else:
            paths.append(name)
    return paths


def _shown(value: Any) -> str:
    """Return a value as a message quotes it: short, on one line."""
    return _REPR.repr(value)


def _groups() -> set[str]:
    """Return the names of the groups that settings stand in; the whole of them is one, too."""
    return {path.rpartition(".")[0] for path in _known_paths()}


@functools.cache
def text_settings() -> frozenset[str]:
    """Return the dotted paths of the settings that are texts of any kind, such as prompts."""
    groups = {name: field.annotation for name, field in Settings.model_fields.items()}
    return frozenset(
        f"{group}.{name}"
        for group, kind in groups.items()
        if isinstance(kind, type) and issubclass(kind, Frozen)
        for name, field in kind.model_fields.items()
        if field.annotation is str
    )


def _did_you_mean(word: str, known: Mapping[str, Any] | list[str]) -> str:
    """Return "did you mean X?" for the nearest known names, by their path or by their last part."""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    near = near or [path for path in known if path.rpartition(".")[2] == word.rpartition(".")[2]]
    return f"did you mean {' or '.join(near)}?" if near else f"one of: {', '.join(known)}"


def _fault(detail: Mapping[str, Any]) -> SettingFault:
    """Turn one of pydantic's errors into ours."""
    field = ".".join(str(part) for part in detail["loc"])
    message = str(detail["msg"])
    accepted = message.removeprefix("Input should be ").removeprefix("Value error, ")
    # Of settings that do not go together the input is the whole group, which nobody has written so.
    received = "" if field in _groups() else _shown(detail["input"])
    return SettingFault(field, "not accepted", received, accepted)
