"""A manifest that is a document with lists: YAML, JSON, a form. `manifests.loading.read_table` has the other shape."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from pydantic import ValidationError

from manifests.errors import counted
from manifests.loading.assemble import NO_DEFAULTS, Assembly
from manifests.loading.base import read_base
from manifests.loading.clips import read_clip
from manifests.loading.side import Side, default_name, files_of, stands_for
from manifests.parsing.fault_list import FaultList, glimpse, shown
from manifests.parsing.nodes import Node
from manifests.parsing.records import suggest
from manifests.parsing.row_faults import RowFaults
from manifests.schema.addresses import Roots
from manifests.schema.entries import ImageEntry, Manifest, parts_of
from manifests.schema.rows import LISTS, DocumentRow, ImageRow, PairFields, PairRow
from manifests.schema.validate import MAX_KEYS, read_row

_SAID = {"preset", "settings", "strength_reading", "on_fault"}
"""What of a head is in the manifest as it stands."""


def from_document(
    root: Node, name: str, source: str, roots: Roots, faults: FaultList
) -> tuple[Manifest | None, Manifest]:
    """Read a document.

    Args:
        root: The tree.
        name: What to call the manifest unless it says so itself.
        source: Where it was read.
        roots: What it may reach.
        faults: Takes what is wrong.

    Returns:
        The manifest, None after adding the faults where nothing usable is left; and what could be read all the same.
    """
    document = RowFaults(faults, root)
    nothing = Assembly(roots, faults).rest({"name": name}, source)
    if not isinstance(root.value, dict):
        document.add("no manifest", glimpse(root.plain()), "a mapping with contents and styles", "see the README")
        return None, nothing
    names = (*DocumentRow.model_fields, *LISTS)
    if root.value and not any(
        key in names or suggest(key, names, "") for key in itertools.islice(root.value, MAX_KEYS)
    ):
        received = f"a mapping with other keys, the first {glimpse(next(iter(root.value)))}"
        document.add("no manifest", received, ", ".join(names), "see the README")
        return None, nothing
    said = {key: node.plain() for key, node in root.value.items() if key not in LISTS and node.value is not None}
    head = read_row(DocumentRow, said, document)
    readable = head or _readable(said)
    told = readable.model_dump(include=_SAID) | {"name": readable.name or name}
    before = len(faults)
    base = read_base(readable.base, roots, document)
    told["base"] = base if len(faults) == before else ""
    if "settings" in root.value:
        before = len(faults)
        check_settings(root.value["settings"], ("settings",), document)
        told["settings"] = told["settings"] if len(faults) == before else {}
    missing = _said_by_prompts(root, head)
    lists = {key: [] if key == f"{missing}s" else _rows(root.value, key, document) for key in LISTS}
    if head and head.grid is not None and head.grid == ("pairs" in root.value):
        received = "grid and pairs together" if head.grid else "grid: false without pairs"
        document.add("grid or pairs", received, "one of them", "remove one", at=("grid",), field="grid")
    is_usable = document.are_none
    assembly = Assembly(roots, faults)
    for side in (assembly.contents, assembly.styles):
        for node in lists[f"{side.label}s"]:
            _read_image(side, RowFaults(faults, node))
    defaults = head or NO_DEFAULTS
    for node in lists["pairs"]:
        _read_pair(assembly, defaults, RowFaults(faults, node))
    if "pairs" not in root.value:
        assembly.add_grid(defaults, missing)
    return assembly.manifest(told, source) if head and is_usable else None, assembly.rest(told, source)


def _readable(said: Mapping[str, Any]) -> DocumentRow:
    """Return what of a refused head can be checked all the same: the keys that are good alone."""
    good: dict[str, Any] = {}
    for key in said.keys() & {"base", "preset", "settings"}:
        with suppress(ValidationError):
            DocumentRow.model_validate({key: said[key]})
            good[key] = said[key]
    return DocumentRow.model_validate(good)


def _said_by_prompts(root: Node, head: DocumentRow | None) -> str:
    """Return the side, "content" or "style", whose list may be left out because prompts stand for it; else ""."""
    if not isinstance(root.value, dict) or ("contents" in root.value) == ("styles" in root.value):
        return ""
    missing = "style" if "contents" in root.value else "content"
    if head is not None and "pairs" not in root.value:
        prompts = head.all_prompts() or (None,)
        return missing if all(stands_for(missing, prompt) for prompt in prompts) else ""
    return missing


def _rows(document: Mapping[str, Node], key: str, faults: RowFaults) -> list[Node]:
    """Return the rows of one of the lists; no row, after adding a fault, where it is missing or no list.

    In place of contents or styles one path may stand, of a folder, say.
    """
    node = document.get(key)
    if node is not None and isinstance(node.value, str) and node.value and key != "pairs":
        return [node]
    if node is not None and isinstance(node.value, list) and node.value:
        return node.value
    if node is not None or key != "pairs":
        received = "nothing" if node is None else shown(node.plain())
        faults.add(f"no {key}", received, "a list with at least one row", f"list the {key}", at=(key,), field=key)
    return []


def _read_image(side: Side, faults: RowFaults) -> None:
    """Add a content, a style, a clip or the pictures of a folder; or the faults. A path stands for {image: path}."""
    values = {"image": faults.node.value} if isinstance(faults.node.value, str) else faults.node.plain()
    if not isinstance(values, dict):
        accepted = "a path, or a mapping with image or images"
        faults.add(f"no {side.label}", shown(values), accepted, "write - image: path", field=f"{side.label}s")
        return
    if "frames" in values:
        read_clip(values, side, faults)
        return
    path, name, field = values.get("image"), values.get("name"), f"{side.label}s"
    files = side.spread(path, name, faults, f"{field}.image") if isinstance(path, str) else {}
    if not files and faults.are_none:
        _add_image(values, side, faults)
    # What is wrong with the row is told once, and not once for each of its pictures.
    elif not faults.are_none or read_row(ImageRow, values | {"name": name or "any"}, faults, field) is None:
        side.refuse(name)
    for called, address in files.items() if faults.are_none else ():
        _add_image(values | {"image": address, "name": name or called}, side, faults.again())


def _add_image(values: dict[str, Any], side: Side, faults: RowFaults) -> None:
    """Add one content or style, or its faults."""
    images, kind = values.get("images"), "adapter" if "adapter" in values else "image"
    paths = [path for path in (images if isinstance(images, list) else [values.get(kind)]) if isinstance(path, str)]
    if values.get("name") is None and paths:
        values["name"] = default_name(paths[0])
    row = read_row(ImageRow, values, faults, side.label + "s")
    addresses = side.resolve(paths, faults, f"{side.label}s.{kind}", str(values.get("name") or ""))
    if row is not None and addresses is not None and row.name is not None:
        said = {"word": row.word, "class_word": row.class_word}
        entry = ImageEntry(name=row.name, **files_of(addresses, kind), **said, file=faults.file, row=faults.node.row)
        if side.admits(entry, faults, f"{side.label}s.name", repeats=False):
            side.keep(entry)
            return
    side.refuse(values.get("name"))


def _read_pair(assembly: Assembly, defaults: PairFields, faults: RowFaults) -> None:
    values = faults.node.plain()
    if not isinstance(values, dict):
        hint = "write - {content: a name, style: a name}"
        faults.add("no pair", shown(values), "a mapping with content and style", hint, field="pairs")
        return
    row = read_row(PairRow, values, faults, "pairs")
    if row is None:
        assembly.knows(_names(values.get("content")), _names(values.get("style")), faults)
    else:
        assembly.add_pair(parts_of(row.content), parts_of(row.style), row, defaults, faults)


def _names(side: object) -> list[object]:
    """The names in a side of a pair that has faults."""
    return list(side) if isinstance(side, dict | list) else [] if side is None else [side]


def check_settings(node: Node, path: tuple[str | int, ...], faults: RowFaults) -> None:
    """Add a fault for every repeated key, broken text, number that is not finite and mapping of too many keys.

    Names are checked elsewhere.
    """
    field = ".".join(map(str, path))
    if isinstance(node.value, dict) and len(node.value) > MAX_KEYS:
        received, accepted = counted(len(node.value), "key"), f"at most {MAX_KEYS} in a mapping of settings"
        faults.add("too many keys", received, accepted, "remove the others", at=path, field=field)
        return
    texts = [node.value] if isinstance(node.value, str) else list(node.value) if isinstance(node.value, dict) else []
    for text in texts:
        if any("\ud800" <= character <= "\udfff" for character in text):
            faults.add("text is not Unicode", shown(text), "whole characters", "retype it", at=path, field=field)
    faults.add_repeated(path, field)
    if isinstance(node.value, float) and not math.isfinite(node.value):
        faults.add("number is not finite", shown(node.value), "a finite number", "correct it", at=path, field=field)
    children: Iterable[tuple[str | int, Node]] = ()
    if isinstance(node.value, dict):
        children = node.value.items()
    elif isinstance(node.value, list):
        children = enumerate(node.value)
    for key, child in children:
        check_settings(child, (*path, key), faults)
