"""The two shapes of a manifest: a document with lists (YAML, JSON, a form), and a table (CSV, Parquet)."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from manifests.addresses import AddressError, Roots
from manifests.assembly import NO_DEFAULTS, Draft, Side, default_name, stands_for
from manifests.cliprows import read_clip
from manifests.entries import ImageEntry, Manifest
from manifests.fields import MAX_PHOTOS
from manifests.parsing.faultlist import FaultList, shown
from manifests.parsing.nodes import Node
from manifests.parsing.records import Record
from manifests.rowreader import read_row
from manifests.rows import LISTS, DocumentRow, ImageRow, PairFields, PairRow, TableRow
from manifests.sweeps import parts_of

_HUB = re.compile(r"[\w-][\w.-]*/[\w.-]+@\S*", re.ASCII)
_PINNED = re.compile(r"[^@]+@[0-9a-f]{40}")


def from_document(root: Node, name: str, source: str, roots: Roots, faults: FaultList) -> Manifest | None:
    """Read a document; None after adding the faults where nothing usable is left.

    Args:
        root: The tree.
        name: What to call the manifest unless it says so itself.
        source: Where it was read.
        roots: What it may reach.
        faults: Takes what is wrong.
    """
    if not isinstance(root.value, dict):
        faults.add(
            "no manifest", shown(root.plain()), "a mapping with contents and styles", "see the README", row=root.row
        )
        return None
    said = {key: node.plain() for key, node in root.value.items() if key not in LISTS and node.value is not None}
    before = len(faults)
    head = read_row(DocumentRow, said, faults, root)
    base = _base(head.base, root.find(("base",)).row, roots, faults) if head else ""
    _check_settings(root.value.get("settings", Node(None)), "settings", faults)
    missing = _said_by_prompts(root, head)
    lists = {key: [] if key == f"{missing}s" else _rows(root, key, faults) for key in LISTS}
    if head and head.grid is not None and head.grid == ("pairs" in root.value):
        received = "grid and pairs together" if head.grid else "grid: false without pairs"
        faults.add("grid or pairs", received, "one of them", "remove one", row=root.find(("grid",)).row, field="grid")
    is_usable = len(faults) == before
    draft = Draft(roots, faults)
    for side in (draft.contents, draft.styles):
        for node in lists[f"{side.label}s"]:
            _read_image(node, side, faults)
    defaults = head or NO_DEFAULTS
    for node in lists["pairs"]:
        _read_pair(node, draft, defaults, faults)
    if "pairs" not in root.value:
        draft.add_grid(defaults, missing)
    if head is None or not is_usable:
        return None
    fields = {"preset", "settings", "strength_reading", "on_fault"}
    return draft.manifest(head.model_dump(include=fields) | {"name": head.name or name, "base": base}, source)


def _said_by_prompts(root: Node, head: DocumentRow | None) -> str:
    """Return the side, "content" or "style", whose list may be left out because prompts stand for it; else ""."""
    if not isinstance(root.value, dict) or ("contents" in root.value) == ("styles" in root.value):
        return ""
    missing = "style" if "contents" in root.value else "content"
    if head is not None and "pairs" not in root.value:
        prompts = head.all_prompts() or (None,)
        return missing if all(stands_for(missing, prompt) for prompt in prompts) else ""
    return missing


def _rows(root: Node, key: str, faults: FaultList) -> list[Node]:
    """Return the rows of one of the lists; no row, after adding a fault, where it is missing or no list."""
    node = root.find((key,)) if isinstance(root.value, dict) and key in root.value else None
    if node is not None and isinstance(node.value, list) and node.value:
        return node.value
    if node is not None or key != "pairs":
        received = "nothing" if node is None else shown(node.plain())
        row = None if node is None else node.row
        faults.add(f"no {key}", received, "a list with at least one row", f"list the {key}", row=row, field=key)
    return []


def _read_image(node: Node, side: Side, faults: FaultList) -> None:
    """Add a content, a style or a clip, or its faults; a bare path stands for {image: path}."""
    values = {"image": node.value} if isinstance(node.value, str) else node.plain()
    if isinstance(values, dict) and "frames" in values:
        read_clip(values, node, side, faults)
        return
    if not isinstance(values, dict):
        accepted = "a path, or a mapping with image or images"
        faults.add(
            f"no {side.label}", shown(values), accepted, "write - image: path", row=node.row, field=f"{side.label}s"
        )
        return
    images = values.get("images")
    paths = [path for path in (images if isinstance(images, list) else [values.get("image")]) if isinstance(path, str)]
    if values.get("name") is None and paths:
        values["name"] = default_name(paths[0])
    row = read_row(ImageRow, values, faults, node, side.label + "s")
    addresses = side.resolve(paths, node, f"{side.label}s.image", str(values.get("name") or ""))
    if row is not None and addresses is not None and row.name is not None:
        said = {"word": row.word, "class_word": row.class_word}
        entry = ImageEntry(name=row.name, images=addresses, **said, file=faults.file, row=node.row)
        if side.admits(entry, f"{side.label}s.name", repeats=False):
            side.keep(entry)
            return
    side.refused.add(str(values.get("name")))


def _read_pair(node: Node, draft: Draft, defaults: PairFields, faults: FaultList) -> None:
    values = node.plain()
    if not isinstance(values, dict):
        hint = "write - {content: a name, style: a name}"
        faults.add("no pair", shown(values), "a mapping with content and style", hint, row=node.row, field="pairs")
        return
    row = read_row(PairRow, values, faults, node, "pairs")
    if row is None:
        draft.knows(_names(values.get("content")), _names(values.get("style")), node)
    else:
        draft.add_pair(parts_of(row.content), parts_of(row.style), row, defaults, node)


def _names(side: object) -> list[object]:
    """The names in a side of a pair that has faults."""
    return list(side) if isinstance(side, dict | list) else [] if side is None else [side]


def _base(text: str, row: int | None, roots: Roots, faults: FaultList) -> str:
    """Return the base with a folder made absolute, after adding a fault if it is none of the accepted forms."""
    accepted = DocumentRow.model_fields["base"].description or ""
    if text == "embedded" or (_PINNED.fullmatch(text) and _HUB.fullmatch(text)):
        return text
    if _HUB.fullmatch(text):
        hint = "name the commit: a name such as main means another model tomorrow"
        faults.add("base model without a fixed revision", shown(text), accepted, hint, row=row, field="base")
        return text
    try:
        address = roots.resolve(text)
    except AddressError as error:
        faults.add(*error.args, row=row, field="base")
        return text
    if not address.startswith("s3://") and not os.path.isdir(address):
        hint = "correct the folder; a model of the hub needs its revision"
        faults.add("no such base model", shown(text), accepted, hint, row=row, field="base")
    return address


def _check_settings(node: Node, path: str, faults: FaultList) -> None:
    """Add a fault for every repeated key, broken text and number that is not finite; names are checked elsewhere."""
    texts = [node.value] if isinstance(node.value, str) else list(node.value) if isinstance(node.value, dict) else []
    for text in texts:
        if any("\ud800" <= character <= "\udfff" for character in text):
            faults.add("text is not Unicode", shown(text), "whole characters", "retype it", row=node.row, field=path)
    for key, row in node.repeated:
        faults.add("key given twice", key, "each key once", "remove one of them", row=row, field=f"{path}.{key}")
    if isinstance(node.value, float) and not math.isfinite(node.value):
        faults.add("number is not finite", shown(node.value), "a finite number", "correct it", row=node.row, field=path)
    children: Iterable[tuple[Any, Node]] = ()
    if isinstance(node.value, dict):
        children = node.value.items()
    elif isinstance(node.value, list):
        children = enumerate(node.value)
    for key, child in children:
        _check_settings(child, f"{path}.{key}", faults)


def from_records(records: Iterable[Record], name: str, source: str, roots: Roots, faults: FaultList) -> Manifest | None:
    """Read the rows of a table; None after adding the faults where nothing usable is left. Arguments as above."""
    rows = list(records)
    has_pairs = any({"content", "style"} <= record.cells.keys() or _has_prompt(record.cells) for record in rows)
    draft = Draft(roots, faults)
    for record in rows:
        _read_record(record, has_pairs, draft, faults)
    if not has_pairs:
        draft.add_grid(NO_DEFAULTS)
    return draft.manifest({"name": name}, source)


def _has_prompt(cells: Mapping[str, Any]) -> bool:
    """Tell whether a row says in words what it has no picture for."""
    return bool(cells.get("prompt") or cells.get("prompts"))


def _read_record(record: Record, has_pairs: bool, draft: Draft, faults: FaultList) -> None:
    """Add what one row of a table stands for, or its faults."""
    node, cells = Node({}, record.row), dict(record.cells)
    sides = [side for side in (draft.contents, draft.styles) if side.label in cells]
    paths = {side.label: [path.strip() for path in cells[side.label].split("|")] for side in sides}
    for label, photos in paths.items():
        cells.setdefault(f"{label}_name", default_name(photos[0]))
    before = len(faults)
    row = read_row(TableRow, cells, faults, node)
    _check_shape(sides, cells, has_pairs, node, faults)
    addresses = [_photos(side, paths[side.label], cells, node, faults) for side in sides]
    if row is None or len(faults) > before:
        return
    entries = [
        _entry(row, side.label, images or (), node, faults.file) for side, images in zip(sides, addresses, strict=True)
    ]
    if all(
        [side.admits(entry, f"{side.label}_name", repeats=True) for side, entry in zip(sides, entries, strict=True)]
    ):
        for side, entry in zip(sides, entries, strict=True):
            side.keep(entry)
        if has_pairs:
            names = {side.label: entry.name for side, entry in zip(sides, entries, strict=True)}
            draft.add_pair(parts_of(names.get("content")), parts_of(names.get("style")), row, NO_DEFAULTS, node)


def _entry(row: TableRow, label: str, images: tuple[str, ...], node: Node, file: str) -> ImageEntry:
    said = {field: getattr(row, f"{label}_{field}") for field in ("name", "word", "class_word")}
    return ImageEntry(**said, images=images, file=file, row=node.row)


def _check_shape(
    sides: Sequence[Side], cells: Mapping[str, Any], has_pairs: bool, node: Node, faults: FaultList
) -> None:
    """Add a fault if a row is neither a pair among pairs nor a lone content or style among such."""
    if len(sides) < (2 if has_pairs and not _has_prompt(cells) else 1):
        received = f"only a {sides[0].label}" if sides else "neither content nor style"
        accepted = "content and style, or one of them with a prompt" if has_pairs else "a content or a style"
        faults.add("half a row", received, accepted, "complete or remove the row", row=node.row)
    elif not has_pairs and (extra := cells.keys() & PairFields.model_fields.keys()):
        accepted, hint = "these fields on rows with content and style", "remove it"
        faults.add("field of a pair on a row of the grid", ", ".join(sorted(extra)), accepted, hint, row=node.row)


def _photos(
    side: Side, paths: Sequence[str], cells: Mapping[str, Any], node: Node, faults: FaultList
) -> tuple[str, ...] | None:
    """Return the addresses of one object's photos; None after adding what is wrong with them."""
    if len(paths) > MAX_PHOTOS:
        received, accepted = f"{len(paths)} photos", f"at most {MAX_PHOTOS}"
        faults.add("too many photos", received, accepted, "leave some out", row=node.row, field=side.label)
        return None
    return side.resolve(paths, node, side.label, str(cells[f"{side.label}_name"] or ""))
