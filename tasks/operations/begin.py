"""`blora init`: from folders of pictures to a manifest that validates, with a line for each picture."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from blora.bases.spec import parse_base
from manifests.errors import ManifestsError, counted, listed, printable_name
from manifests.faults import Fault
from manifests.loading.load import Loaded, parse_manifest
from manifests.loading.pictures import check_images
from manifests.loading.side import default_name
from manifests.notes import Note
from manifests.parsing.fault_list import shown
from manifests.schema.addresses import Roots
from manifests.schema.fields import BASE_NAMES
from manifests.schema.folders import files_of_folder, is_pattern, stands_for_files
from manifests.store.address import is_bucket, local_path, split_address
from tasks.downloads import base_family
from tasks.errors import RunRefused

_HEAD = "# Every content in every style. Pictures may also have a word: what it shows, and a name: how it is called.\n"
_DEMO = "  # a small model on any machine, 128 px; for SDXL: draft, fast or paper"
_PLAIN = re.compile(r"[A-Za-z/][\w./-]*[./][\w./-]*", re.ASCII)


@dataclass(frozen=True)
class Begun:
    """A manifest, and what there is to say of it.

    Attributes:
        text: The manifest, YAML.
        contents: Pictures among its contents.
        styles: Pictures among its styles.
        left_out: Why pictures were left out.
        notes: What else there is to know.
        outside: Folders and prefixes, not below that of the manifest, that its pictures lie in.
    """

    text: str
    contents: int
    styles: int
    left_out: tuple[Fault, ...]
    notes: tuple[Note, ...]
    outside: tuple[str, ...]


@dataclass(frozen=True)
class _Picture:
    """A picture as the manifest writes it, and where it really lies."""

    path: str
    name: str
    address: str


def begin(contents: Sequence[str], styles: Sequence[str], folder: str, base: str = "", preset: str = "") -> Begun:
    """Write a manifest of pictures, less those that cannot be used and those that are there already.

    Args:
        contents: Files, folders and patterns, relative to the folder of the process.
        styles: The same.
        folder: Where the manifest will lie; paths are written relative to it.
        base: In one line; empty for what the preset says.
        preset: Empty: demo without a base, flux for one of FLUX.1, else paper.

    Raises:
        BaseModelError: The base is of no known form.
        RunRefused: What would be written is refused, or no content or no style is left.
        ManifestsError: A source is a folder without pictures, or is not there.
    """
    folder = os.path.abspath(folder)
    notes: list[Note] = []
    sides = {"contents": _pictures(contents, notes), "styles": _pictures(styles, notes)}
    preset = preset or _preset_for(base)
    head = f"{_HEAD}preset: {preset}{_DEMO if preset == 'demo' and not base else ''}\n"
    head += f"base: {_base_text(base, folder)}\n" if base else ""
    outside = _outside(sides, base, folder)
    source = os.path.join(folder, "manifest.yaml")
    loaded = parse_manifest((head + _lists(sides, folder)).encode(), "yaml", source, (folder, *outside))
    left_out, same = _unusable(loaded, sides)
    if left := [label for label, pictures in sides.items() if not pictures]:
        raise RunRefused(f"no manifest: no {' and no '.join(left)} left", left_out)
    text = head + _lists(sides, folder)
    return Begun(
        text, len(sides["contents"]), len(sides["styles"]), left_out, (*notes, *same), _outside(sides, base, folder)
    )


def _preset_for(base: str) -> str:
    if base in ("", "embedded"):
        return "demo"
    return "flux" if base_family(base) == "flux" else "paper"


def _outside(sides: Mapping[str, Sequence[_Picture]], base: str, folder: str) -> tuple[str, ...]:
    """The folders of what does not lie below that of the manifest, links followed."""
    places = parse_base(base).below(os.getcwd()).places if base else ()
    addresses = [os.path.realpath(one) for one in places if one.startswith("/")]
    addresses += [one for one in places if is_bucket(one)]
    addresses += [picture.address for pictures in sides.values() for picture in pictures]
    below = f"{os.path.realpath(folder)}/"
    return tuple(dict.fromkeys(os.path.dirname(one) for one in addresses if not one.startswith(below)))


def _pictures(sources: Sequence[str], notes: list[Note]) -> list[_Picture]:
    """The pictures of one side, each once, with names that differ."""
    found: dict[str, str] = {}
    for source in sources:
        for path, address in _files(source, notes):
            found.setdefault(address, path)
    stems = Counter(default_name(path) for path in found.values())
    files = Counter(os.path.basename(path) for path in found.values())
    pictures = []
    for address, path in found.items():
        name, file = str(default_name(path)), os.path.basename(path)
        pictures.append(_Picture(path, name if stems[name] == 1 else file if files[file] == 1 else path, address))
    return pictures


def _files(source: str, notes: list[Note]) -> Iterator[tuple[str, str]]:
    """The path as it is written, absolute, and the address of each file that a source stands for.

    Raises:
        ManifestsError: It stands for nothing.
    """
    split = split_address(source, "list a folder")
    roots = Roots([split[0]] if split else ["/"])
    path = source if split else os.path.abspath(local_path(source)) + "/" * source.endswith("/")
    if not stands_for_files(path, roots):
        yield path, roots.resolve(path)
        return
    files = files_of_folder(path, roots)
    if not files.taken:
        received = f"{counted(len(files.left), 'other file')} in {shown(source)}"
        accepted = "a folder that holds PNG, JPEG, WebP, TIFF, BMP or GIF files, or a pattern such as 'photos/*.jpg'"
        raise ManifestsError("no pictures there", received, accepted, "name the folder of your pictures")
    if files.left:
        left = listed([printable_name(name) for name in files.left], 3)
        notes.append(Note(f"{left} in {shown(source)}: no picture by its extension, and not taken"))
    parent = os.path.dirname(path) if is_pattern(path, roots) else path.rstrip("/")
    for name, address in files.taken.items():
        yield f"{parent}/{name}", address


def _unusable(loaded: Loaded, sides: dict[str, list[_Picture]]) -> tuple[tuple[Fault, ...], list[Note]]:
    """Take pictures out of both sides that cannot be used, or are there under another name.

    Raises:
        RunRefused: The manifest as a whole is refused, for its base, say.
    """
    if loaded.manifest is None or loaded.faults:
        raise RunRefused("no manifest: what it would say is refused", _unplaced(loaded.faults))
    known, faults = check_images(loaded.manifest)
    notes: list[Note] = []
    for label, pictures in sides.items():
        first: dict[str, _Picture] = {}
        for picture in pictures:
            image = known.get(picture.address)
            if image and first.setdefault(image.image_id, picture) is not picture:
                same = first[image.image_id].path
                notes.append(Note(f"the same picture as {printable_name(same)}, and not taken again", picture.path))
        sides[label] = list(first.values())
    return _unplaced(faults), notes


def _unplaced(faults: Sequence[Fault]) -> tuple[Fault, ...]:
    """The faults without their places in a manifest that nobody has seen."""
    return tuple(
        replace(fault, file="", row=None, item="" if fault.kind == "image" else fault.item) for fault in faults
    )


def _lists(sides: dict[str, list[_Picture]], folder: str) -> str:
    lines = []
    for label, pictures in sides.items():
        lines.append(f"{label}:")
        for picture in pictures:
            name = "" if picture.name == default_name(picture.path) else f"\n    name: {_scalar(picture.name)}"
            lines.append(f"  - image: {_scalar(_below(picture.path, folder))}{name}")
    return "\n".join(lines) + "\n"


def _below(path: str, folder: str) -> str:
    """A path relative to the folder of the manifest, if it lies below that."""
    return path.removeprefix(f"{folder}/")


def _base_text(base: str, folder: str) -> str:
    """A base as it was typed; its paths as the manifest has to write them."""
    typed = parse_base(base)
    absolute = typed.below(os.getcwd())
    if absolute == typed:
        return base if base.startswith("{") else _scalar(base)
    return _scalar(_below(absolute.text, folder)) if absolute.is_plain else absolute.text


def _scalar(text: str) -> str:
    """A text as YAML has it: in quotes, unless no reader can take it for anything else."""
    return text if _PLAIN.fullmatch(text) or text in BASE_NAMES else json.dumps(text, ensure_ascii=False)
