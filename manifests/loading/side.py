"""The contents or the styles of a manifest: which names are taken, by what, and which were refused."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

from manifests.errors import ManifestsError, counted, listed, printable_name
from manifests.parsing.fault_list import shown
from manifests.parsing.records import MAX_ROWS
from manifests.parsing.row_faults import RowFaults
from manifests.schema.addresses import AddressError, Roots
from manifests.schema.entries import ImageEntry
from manifests.schema.fields import MAX_NAME_CHARS
from manifests.schema.folders import PICTURE_EXTENSIONS, files_of_folder, stands_for_files

TOKENS = {"content": "[c]", "style": "[s]"}
"""What stands for a side in a prompt."""

_FILES_TOLD = 3


def stands_for(side: str, prompt: str | None) -> bool:
    """Tell whether a prompt can stand for a side: there is one, and it does not mention that very side."""
    return bool(prompt) and TOKENS[side] not in str(prompt)


def default_name(path: object) -> str | None:
    """Return the file name in a path or address, without extension; None where there is none."""
    if not isinstance(path, str):
        return None
    name = path.rpartition("/")[2]
    if name in ("", "."):  # such as "folder/", whose name stands before
        name = PurePosixPath(path).name
    stem, dot, extension = name.rpartition(".")
    return (stem if dot and stem and extension else name) or None


def files_of(addresses: tuple[str, ...], kind: str) -> dict[str, Any]:
    """Return the fields of an `ImageEntry` that say where its pictures lie, or its adapter where that is the kind."""
    return {"images": (), "adapter": addresses[0]} if kind == "adapter" and addresses else {"images": addresses}


def _named(files: Sequence[str]) -> str:
    return listed([printable_name(file) for file in files], _FILES_TOLD)


class Side:
    """The contents or the styles of a manifest.

    Attributes:
        label: "content" or "style".
        entries: The good ones, by name.
        clips: Names of the entries that are the frames of a clip, by its name.
        refused: Names of rows that were refused.
        roots: What it may reach.
    """

    def __init__(self, label: str, roots: Roots) -> None:
        """Start without entries."""
        self.label = label
        self.entries: dict[str, ImageEntry] = {}
        self.clips: dict[str, tuple[str, ...]] = {}
        self.refused: set[str] = set()
        self.roots = roots

    def resolve(self, paths: Sequence[str], faults: RowFaults, field: str, item: str) -> tuple[str, ...] | None:
        """Return the paths of a row made absolute; None after adding a fault for each that is not allowed."""
        has_several = faults.node.find(("images",)) is not faults.node
        addresses = []
        for index, path in enumerate(paths):
            try:
                addresses.append(self.roots.resolve(path))
            except AddressError as error:
                place = ("images", index) if has_several else (field.rpartition(".")[2],)
                faults.add(*error.args, at=place, field=field, item=item)
        return tuple(addresses) if len(addresses) == len(paths) else None

    def spread(self, path: str, name: object, faults: RowFaults, field: str) -> dict[str, str]:
        """Return what a folder or a pattern stands for, names and addresses; nothing where it is the path of a file.

        Names are those of the files without extension, with it where two would be called the same.

        Args:
            path: As the row says it.
            name: What the row calls it; several pictures cannot have one name.
            faults: Takes what is wrong, such as a folder without pictures; and a note of what else lies there.
            field: The field that says the path.
        """
        at = (field.rpartition(".")[2],)
        try:
            if not stands_for_files(path, self.roots):
                return {}
            files = files_of_folder(path, self.roots)
        except AddressError:
            return {}  # told where it is resolved
        except ManifestsError as error:
            texts = (error.what, error.received, error.accepted, error.hint or "correct the path")
            faults.add(*texts, at=at, field=field, transient=error.transient)
            return {}
        count, beside = len(files.taken), f", beside {_named(files.left)}" if files.left else ""
        if not 0 < count <= MAX_ROWS:
            what, received = (
                "too many pictures" if count else "no pictures there",
                f"{count:,} in {shown(path)}{beside}",
            )
            accepted = f"1 to {MAX_ROWS:,} files that match, or end in {', '.join(PICTURE_EXTENSIONS)}"
            faults.add(what, received, accepted, "correct the path", at=at, field=field)
            return {}
        if count > 1 and name is not None:
            received, accepted = f"{shown(name)} for {counted(count, 'picture')}", "the names of the files"
            hint = "leave the name out; several photos of one object are listed one by one"
            faults.add("one name for several pictures", received, accepted, hint, at=at, field=field)
        if files.left:
            faults.note(f"{_named(files.left)} in {shown(path)}: no picture by its extension, and not taken")
        stems = Counter(map(default_name, files.taken))
        return {
            name if stems[default_name(name)] > 1 else str(default_name(name)): address
            for name, address in files.taken.items()
        }

    def refuse(self, name: object) -> None:
        """Remember the name of a row that was refused, in the form in which pairs name it."""
        self.refused.add(unicodedata.normalize("NFC", str(name)[: 2 * MAX_NAME_CHARS]))

    def admits(self, entry: ImageEntry, faults: RowFaults, field: str, *, repeats: bool) -> bool:
        """Tell whether the name of an entry is free, adding a fault if not.

        Args:
            entry: What is to be added.
            faults: Takes what is wrong with its row.
            field: The field that names it.
            repeats: Whether the very same entry may come again, as it does in tables.
        """
        known = self.entries.get(entry.name)
        if known is None and entry.name in self.clips:
            known = self.entries[self.clips[entry.name][0]]
        if known is None:
            return True
        same_images = all(getattr(known, name) == getattr(entry, name) for name in ("images", "adapter", "class_word"))
        if repeats and same_images and (known.word is None or entry.word in (None, known.word)):
            return True
        what = f"two words for one {self.label}" if repeats and same_images else f"two {self.label}s of one name"
        accepted = (
            f"what row {known.row} says of it, or another name" if repeats else f"another name than row {known.row}"
        )
        faults.add(what, shown(entry.name), accepted, "rename one of them", field=field, item=entry.name)
        return False

    def keep(self, entry: ImageEntry) -> ImageEntry | None:
        """Add an entry that was admitted; the first word given for a repeated one counts.

        Returns:
            What stood there before, for `put_back`.
        """
        known = self.entries.get(entry.name)
        if known is None:
            self.entries[entry.name] = entry
        elif known.word is None and entry.word is not None:
            self.entries[entry.name] = known.model_copy(update={"word": entry.word})
        return known

    def put_back(self, name: str, known: ImageEntry | None) -> None:
        """Undo a `keep`, which returned `known`: its row was refused after all."""
        if known is None:
            del self.entries[name]
        else:
            self.entries[name] = known
