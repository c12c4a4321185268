"""What a manifest says: contents, styles, and which of them meet. All faults at once; the good rows survive.

    loaded = load_manifest("pairs.csv", allowed_roots=["/data/pictures"])
    for fault in loaded.faults: print(fault)
    loaded.manifest                  # the good rows; None where nothing usable is left

Below is what becomes of what a manifest says; the room `parsing` has the table for its bytes,
`manifests.schema.addresses` the one for paths, `manifests.images.normalise` the one for pictures, and
`manifests.schema.rows` every field with its bounds.

| what arrives | outcome |
|---|---|
| no such file, no right to read it, no regular file, over `MAX_MANIFEST_BYTES`, another extension | nothing usable |
| an unknown, repeated or wrong key at the head of a document, a wrong column of a table | nothing usable: every row |
| | would be run otherwise than it was meant; the faults of the rows are reported all the same |
| an unknown, repeated, missing or wrong key in a row; NaN; a path outside the roots | that row is refused |
| a key without a value (null) | as if not given, but for the lists |
| a row without a name | takes the file name of its first picture, without extension |
| a name used twice among contents (or styles): YAML and JSON | the second row is refused |
| the same for tables, whose rows repeat their pictures | refused if pictures or word differ from before |
| names of up to `MAX_NAME_CHARS` characters in any script | kept, in composed form; longer ones are refused |
| one picture under two names | accepted: two names, one adapter (see `manifests.loading.pictures`) |
| a pair that names an unknown or refused content or style | refused |
| a pair that draws a sample which an earlier pair draws | refused |
| neither `grid` nor `pairs`; a table of one-sided rows | the grid: every content with every style |
| a pair with a prompt and one side only | drawn: the prompt stands for the other side (without a prompt: refused) |
| one list only, `contents` or `styles`, and a prompt | the grid: each of them with every prompt |
| `prompts`; `sweep` | one pair for each prompt; for each combination of values |
| a folder or a pattern such as `photos/*.jpg`, where a picture or a list of them could stand | one content (or style) |
| | for each of its pictures (`manifests.schema.folders`), with what else the row says |
| one without pictures | refused |
| `frames` | one content for each frame (`manifests.loading.clips`); a pair that names the clip is one with each frame |
| a mix of two clips; a clip among the styles | refused |
| `candidates: n` | n pictures for each seed: that of the seed itself, and of n - 1 seeds made of it |
| | (`manifests.ids.candidate_seed`); which is the best is decided when the run is closed |
| `{one: 0.7, other: 0.3}` or a list for a name | a mix by weight; in a table it is refused |
| rows with one side and no prompt among the pairs of a table | refused; so are strengths and seeds on rows of a grid |
| more than `MAX_PAIRS` pairs or `MAX_SAMPLES` samples | nothing usable |
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from manifests.errors import StoreError
from manifests.faults import Fault
from manifests.images.file_kind import kind_of
from manifests.loading.read import from_document
from manifests.loading.read_table import from_records
from manifests.notes import Note
from manifests.parsing.csv_text import read_csv
from manifests.parsing.fault_list import DocumentRefused, FaultList, shown
from manifests.parsing.json_lines import read_json_lines
from manifests.parsing.json_text import parse_json
from manifests.parsing.nodes import Node, decode_text, from_mapping
from manifests.parsing.parquet_file import read_parquet
from manifests.parsing.records import Record
from manifests.parsing.yaml_text import parse_yaml
from manifests.schema.addresses import AddressError, Roots, folder_of, shown_address
from manifests.schema.entries import Manifest
from manifests.schema.fields import MAX_NAME_CHARS
from manifests.schema.folders import PICTURE_EXTENSIONS, has_signs
from manifests.schema.rows import TableRow
from manifests.store.files import is_folder, read_address

MAX_MANIFEST_BYTES = 32 * 2**20
"""Bytes of one manifest file (32 MiB); Parquet says the most in them."""

Format: TypeAlias = Literal["yaml", "json", "csv", "jsonl", "parquet"]

MANIFEST_FORMATS: dict[str, Format] = {
    ".yaml": "yaml",
    ".yml": "yaml",
    ".json": "json",
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}
"""Format by file extension."""
_COLUMNS = {name: "text" for name in TableRow.model_fields} | {
    "content": "texts",
    "style": "texts",
    "content_strength": "number",
    "style_strength": "number",
    "own_style": "number",
    "colour_amount": "number",
    "samples": "number",
    "candidates": "number",
    "seeds": "integers",
    "prompts": "texts",
}
_NOTHING = Manifest(name="", contents=(), styles=(), pairs=(), source="")
_TABLES = {"csv": read_csv, "jsonl": read_json_lines, "parquet": read_parquet}


@dataclass(frozen=True)
class Loaded:
    """What came of reading a manifest.

    Attributes:
        manifest: The good rows; None where nothing usable is left.
        faults: Everything that is wrong, by row, that of the whole file first.
        notes: What there is to know of rows that are taken all the same.
        rest: What could be read where there is no manifest: to be checked, too, and never to be run.
    """

    manifest: Manifest | None
    faults: tuple[Fault, ...]
    notes: tuple[Note, ...] = ()
    rest: Manifest = _NOTHING


def load_manifest(address: str, *, allowed_roots: Sequence[str] = ()) -> Loaded:
    """Read a manifest from a local path or s3:// address. Whatever is wrong with it is a fault, never an exception.

    Args:
        address: Its extension says the format: one of `MANIFEST_FORMATS`.
        allowed_roots: Folders and prefixes that it may reach beside its own folder.
    """
    faults = FaultList(shown_address(address))
    extension = os.path.splitext(address)[1].lower()
    file_format = MANIFEST_FORMATS.get(extension)
    if extension in PICTURE_EXTENSIONS or has_signs(address) or _is_folder(address):
        received = f"{shown(faults.file)}, {'a folder' if _is_folder(address) else 'pictures'}"
        pictures = shlex.quote(faults.file)
        hint = f"write one: blora init --contents {pictures} --styles LOOKS --out night.yaml; then blora run night.yaml"
        faults.add("no manifest", received, f"a file that ends in {', '.join(MANIFEST_FORMATS)}", hint)
        return Loaded(None, faults.all())
    if file_format is None:
        faults.add(
            "unknown kind of manifest", shown(os.path.basename(faults.file)), ", ".join(MANIFEST_FORMATS), "rename it"
        )
        return Loaded(None, faults.all())
    try:
        data = read_address(address, MAX_MANIFEST_BYTES)
    except StoreError as error:
        hint = error.hint or "correct the address or the file"
        faults.add(error.what, error.received, error.accepted, hint, transient=error.transient)
        return Loaded(None, faults.all())
    return parse_manifest(data, file_format, faults.file, (folder_of(address), *allowed_roots))


def _is_folder(address: str) -> bool:
    try:
        return is_folder(address)
    except StoreError:  # told where it is read
        return False


def parse_manifest(
    data: bytes | Mapping[str, Any], file_format: Format, source: str, allowed_roots: Sequence[str] = ()
) -> Loaded:
    """Read a manifest that is at hand: the bytes of a file, or an inline mapping.

    Args:
        data: The bytes, or a mapping of the form that YAML and JSON have.
        file_format: How to read bytes; a mapping needs no reading.
        source: Where it came from, for the messages; its file name is the manifest's name unless it has one.
        allowed_roots: Folders and prefixes that it may reach; relative paths are taken from the first.
    """
    faults = FaultList(shown_address(source))
    source, rest = faults.file, _NOTHING
    name = os.path.splitext(os.path.basename(source))[0][:MAX_NAME_CHARS] or "manifest"
    try:
        roots = Roots(allowed_roots)
        if isinstance(data, Mapping):
            manifest, rest = from_document(from_mapping(data, faults), name, source, roots, faults)
        elif file_format in _TABLES:
            manifest, rest = from_records(_records(data, file_format, faults), name, source, roots, faults)
        else:
            manifest, rest = from_document(_tree(data, file_format, faults), name, source, roots, faults)
    except AddressError as error:
        faults.add(*error.args)
        manifest = None
    except DocumentRefused:
        manifest = None
    return Loaded(manifest, faults.all(), tuple(faults.notes), rest)


def _tree(data: bytes, file_format: Format, faults: FaultList) -> Node:
    _check_kind(data, file_format, faults)
    text = decode_text(data, faults)
    return parse_yaml(text, faults) if file_format == "yaml" else parse_json(text, faults)


def _records(data: bytes, file_format: Format, faults: FaultList) -> Iterator[Record]:
    _check_kind(data, file_format, faults)
    return _TABLES[file_format](data, _COLUMNS, faults)


def _check_kind(data: bytes, file_format: Format, faults: FaultList) -> None:
    """Refuse a file that is known to be of another kind than its name says."""
    kind = kind_of(data)
    if (kind or file_format).lower() != file_format:
        hint = "export it as CSV" if "Excel" in kind else "correct the file or its extension"
        raise faults.refuse(f"file is not {file_format}", f"a file of kind {kind}", file_format, hint)
