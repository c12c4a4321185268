"""Every setting as a person reads it: its path, what it accepts, what it is where nobody says it, and what it means.

All of it comes from the models themselves, by the JSON schema that pydantic makes of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from blora.settings.presets import PRESETS, Settings

__all__ = ["CatalogueEntry", "catalogue", "differing", "setting_shown", "setting_value"]

_KINDS = {"integer": "whole number", "number": "number", "boolean": "true or false", "object": "mapping"}


@dataclass(frozen=True)
class CatalogueEntry:
    """One setting.

    Attributes:
        path: its dotted name, as `--set` takes it.
        accepted: kind and bounds, in words.
        default: where neither a preset nor a person says anything.
        meaning: its description, on one line.
    """

    path: str
    accepted: str
    default: str
    meaning: str


def catalogue() -> list[CatalogueEntry]:
    """Return every setting, in the order of the models."""
    schema, bare = Settings.model_json_schema(), Settings()
    return [
        CatalogueEntry(
            path,
            _accepted(of),
            setting_shown(setting_value(bare, path)),
            " ".join(str(of.get("description", "")).split()),
        )
        for path, of in _walk(schema, schema, "")
    ]


def differing() -> dict[str, list[str]]:
    """Return the settings in which presets differ: their values by path, in the order of `PRESETS`."""
    shown = {
        entry.path: [setting_shown(setting_value(preset, entry.path)) for preset in PRESETS.values()]
        for entry in catalogue()
    }
    return {path: values for path, values in shown.items() if len(set(values)) > 1}


def setting_value(settings: Any, path: str) -> Any:
    """Return a setting by its dotted path."""
    for name in path.split("."):
        settings = getattr(settings, name)
    return settings


def setting_shown(value: Any) -> str:
    """Return a value on a line of a table, as YAML has it; "-" for nothing."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return f"{{{', '.join(f'{name}: {setting_shown(one)}' for name, one in value.items())}}}"
    return "-" if value in (None, "", ()) else f"{value:g}" if isinstance(value, float) else str(value)


def _walk(schema: Mapping[str, Any], group: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield path and schema of each setting; those of groups behind those of the whole."""
    inner = []
    for name, of in group["properties"].items():
        if "$ref" in of:
            inner.append((name, schema["$defs"][of["$ref"].rpartition("/")[2]]))
        else:
            yield f"{prefix}{name}", of
    for name, below in inner:
        yield from _walk(schema, below, f"{prefix}{name}.")


def _accepted(of: Mapping[str, Any]) -> str:
    """Return what a schema lets pass, in words."""
    if "$ref" in of:
        return "mapping"
    if "anyOf" in of:
        return ", or ".join(dict.fromkeys(_accepted(one) for one in of["anyOf"]))
    if "enum" in of:
        *first, last = map(str, of["enum"])
        return f"{', '.join(first)} or {last}"
    if "const" in of:
        return str(of["const"])
    match of["type"]:
        case "null":
            return "null"
        case "array" if "prefixItems" in of:
            return f"[{', '.join(_accepted(one) for one in of['prefixItems'])}]"
        case "array":
            return f"list, each a {_accepted(of['items'])}"
        case "string":
            fewest, most = of.get("minLength"), of.get("maxLength")
            return f"text of {f'{fewest} to' if fewest else 'up to'} {most:,} characters" if most else "text"
        case kind:
            return f"{_KINDS[kind]}{_bounds(of)}"


def _bounds(of: Mapping[str, Any]) -> str:
    """Return the bounds of a number, beginning with a space, or nothing."""
    told = {
        "minimum": "from {:,}",
        "exclusiveMinimum": "above {:,}",
        "maximum": "to {:,}",
        "exclusiveMaximum": "below {:,}",
        "multipleOf": "in steps of {:,}",
    }
    # A bound such as 1e6 is a whole number, whatever the model wrote it as.
    return "".join(f" {words.format(_plain(of[key]))}" for key, words in told.items() if key in of)


def _plain(number: float) -> float:
    return int(number) if float(number).is_integer() else number
