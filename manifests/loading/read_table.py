"""A manifest that is a table: CSV, JSON Lines, Parquet. `manifests.loading.read` has the other shape."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from manifests.loading.assemble import NO_DEFAULTS, Assembly
from manifests.loading.side import Side, default_name, files_of
from manifests.parsing.fault_list import FaultList
from manifests.parsing.nodes import Node
from manifests.parsing.records import Record
from manifests.parsing.row_faults import RowFaults
from manifests.schema.addresses import Roots
from manifests.schema.entries import ImageEntry, Manifest, parts_of
from manifests.schema.fields import MAX_PHOTOS
from manifests.schema.rows import PairFields, TableRow
from manifests.schema.validate import read_row


def from_records(
    records: Iterable[Record], name: str, source: str, roots: Roots, faults: FaultList
) -> tuple[Manifest | None, Manifest]:
    """Read the rows of a table.

    Args:
        records: The rows.
        name: What to call the manifest.
        source: Where it was read.
        roots: What it may reach.
        faults: Takes what is wrong.

    Returns:
        The manifest, None after adding the faults where nothing usable is left; and what could be read all the same.
    """
    rows = list(records)
    has_pairs = any(len(_said_sides(record.cells)) == 2 or _has_prompt(record.cells) for record in rows)
    assembly = Assembly(roots, faults)
    for record in rows:
        row = RowFaults(faults, Node({}, record.row))
        for cells in _spread(record.cells, assembly, row):
            _read_record(cells, has_pairs, assembly, row.again())
    if not has_pairs:
        assembly.add_grid(NO_DEFAULTS)
    return assembly.manifest({"name": name}, source), assembly.rest({"name": name}, source)


def _spread(cells: Mapping[str, Any], assembly: Assembly, faults: RowFaults) -> list[Mapping[str, Any]]:
    """A row whose picture is a folder or a pattern, once for each picture there; none after adding a fault."""
    spread: list[Mapping[str, Any]] = [cells]
    for side in (assembly.contents, assembly.styles):
        paths, name = _paths(cells.get(side.label)), f"{side.label}_name"
        files = side.spread(paths[0], cells.get(name), faults, side.label) if len(paths) == 1 else {}
        if files:
            each = [{name: cells.get(name, called), side.label: [address]} for called, address in files.items()]
            spread = [dict(row) | one for row in spread for one in each]
    return spread if faults.are_none else []


def _said_sides(cells: Mapping[str, Any]) -> dict[str, str]:
    """The column of each side that a row names: the side's own, or that of its finished adapter."""
    columns = ((side, column) for side in ("content", "style") for column in (f"{side}_adapter", side))
    return {side: column for side, column in columns if column in cells}


def _has_prompt(cells: Mapping[str, Any]) -> bool:
    """Tell whether a row says in words what it has no picture for."""
    return bool(cells.get("prompt") or cells.get("prompts"))


def _read_record(record: Mapping[str, Any], has_pairs: bool, assembly: Assembly, faults: RowFaults) -> None:
    """Add what one row of a table stands for, or its faults."""
    cells = dict(record)
    columns = _said_sides(cells)
    sides = [side for side in (assembly.contents, assembly.styles) if side.label in columns]
    paths = {label: _paths(cells[column]) for label, column in columns.items()}
    for label, photos in paths.items():
        if photos and (name := default_name(photos[0])):
            cells.setdefault(f"{label}_name", name)
    row = read_row(TableRow, cells, faults)
    _check_shape(sides, cells, has_pairs, faults)
    addresses = [_photos(side, columns[side.label], paths[side.label], cells, faults) for side in sides]
    if row is None or not faults.are_none:
        return
    entries = [
        _entry(row, columns[side.label], files or (), faults) for side, files in zip(sides, addresses, strict=True)
    ]
    for side, entry in zip(sides, entries, strict=True):
        side.admits(entry, faults, f"{side.label}_name", repeats=True)
    if not faults.are_none:
        return
    known = [side.keep(entry) for side, entry in zip(sides, entries, strict=True)]
    if has_pairs:
        names = {side.label: entry.name for side, entry in zip(sides, entries, strict=True)}
        assembly.add_pair(parts_of(names.get("content")), parts_of(names.get("style")), row, NO_DEFAULTS, faults)
    if not faults.are_none:
        for side, entry, before in zip(sides, entries, known, strict=True):
            side.put_back(entry.name, before)


def _paths(cell: object) -> list[str]:
    """The paths in a cell, several of one object as a list or separated by |; the row's fields refuse what is none."""
    said = cell.split("|") if isinstance(cell, str) else cell if isinstance(cell, list) else []
    return [path.strip() for path in said if isinstance(path, str)]


def _entry(row: TableRow, column: str, files: tuple[str, ...], faults: RowFaults) -> ImageEntry:
    label, _, kind = column.partition("_")
    said = {field: getattr(row, f"{label}_{field}") for field in ("name", "word", "class_word")}
    return ImageEntry(**said, **files_of(files, kind), file=faults.file, row=faults.node.row)


def _check_shape(sides: Sequence[Side], cells: Mapping[str, Any], has_pairs: bool, faults: RowFaults) -> None:
    """Add a fault if a row is neither a pair among pairs nor a lone content or style among such."""
    if len(sides) < (2 if has_pairs and not _has_prompt(cells) else 1):
        received = f"only a {sides[0].label}" if sides else "neither content nor style"
        accepted = "content and style, or one of them with a prompt" if has_pairs else "a content or a style"
        faults.add("half a row", received, accepted, "complete or remove the row")
    elif not has_pairs and (extra := cells.keys() & PairFields.model_fields.keys()):
        accepted, hint = "these fields on rows with content and style", "remove it"
        faults.add("field of a pair on a row of the grid", ", ".join(sorted(extra)), accepted, hint)


def _photos(
    side: Side, column: str, paths: Sequence[str], cells: Mapping[str, Any], faults: RowFaults
) -> tuple[str, ...] | None:
    """Return the addresses of one object's photos, or of an adapter; None after adding what is wrong with them."""
    if len(paths) > 1 and column != side.label:
        received, accepted = f"{len(paths)} files", "one"
        faults.add("several adapters in a row", received, accepted, "write a row for each", field=column)
        return None
    if len(paths) > MAX_PHOTOS:
        received, accepted = f"{len(paths)} photos", f"at most {MAX_PHOTOS}"
        faults.add("too many photos", received, accepted, "leave some out", field=side.label)
        return None
    return side.resolve(paths, faults, column, str(cells.get(f"{side.label}_name") or ""))
