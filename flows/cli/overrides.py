"""Settings on the command line, `--set NAME=VALUE`: values are read as a manifest's are, by the same reader."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from manifests.parsing.fault_list import DocumentRefused, FaultList, shown


def parse_overrides(pairs: Sequence[str] | None) -> dict[str, Any]:
    """``train.steps=200`` -> {"train": {"steps": 200}}.

    Where a setting is a text, all that stands behind the = is that text: nothing in a prompt is a comment or a list.

    Raises:
        ValueError: one has no name or no value, or its value cannot be read.
    """
    if not pairs:
        return {}
    from blora.settings.resolve import text_settings

    nested: dict[str, Any] = {}
    for pair in pairs:
        path, equals, text = (part.strip() for part in pair.partition("="))
        if not equals or not path:
            raise ValueError(f"--set: received {shown(pair)}; accepted: NAME=VALUE, e.g. train.steps=200")
        *groups, name = path.split(".")
        level: Any = nested
        for group in groups:
            level = level.setdefault(group, {})
            if not isinstance(level, dict):
                raise ValueError(f"--set: {group} is set as a whole and {path} as a part of it; give one of them")
        level[name] = _text(text) if path in text_settings() else _read(path, text)
    return nested


def parse_base_option(text: str) -> str:
    """What `--base` says in one line: a place as it stands; a mapping, as in a manifest, as JSON.

    Raises:
        ValueError: it begins as a mapping and cannot be read.
    """
    return json.dumps(_read("base", text)) if text.startswith("{") else text


def _text(text: str) -> str:
    """A text as it stands; in quotes, what YAML takes it for."""
    from manifests.parsing.yaml_text import parse_yaml

    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        try:
            value = parse_yaml(text, FaultList("--set")).value
        except DocumentRefused:  # two texts in quotes with something between them
            return text
        return value if isinstance(value, str) else text
    return text


def _read(path: str, text: str) -> Any:
    from manifests.loading.read import check_settings
    from manifests.parsing.row_faults import RowFaults
    from manifests.parsing.yaml_text import parse_yaml

    if not text:
        return None
    faults = FaultList("")
    try:
        node = parse_yaml(text, faults)
    except DocumentRefused as error:
        (fault,) = faults.all()
        problem = f"{fault.what}: {fault.received}"
        raise ValueError(f"--set {path}: received {shown(text)}; accepted: a value as in YAML ({problem})") from error
    check_settings(node, (), RowFaults(faults, node))
    if found := faults.all():
        raise ValueError(f"--set {path}: received {shown(text)}; {found[0].what}; accepted: {found[0].accepted}")
    return node.plain()
