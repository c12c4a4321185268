"""Folders and patterns that stand for the files in them: the frames of a clip, the contents or styles of a manifest.

| what is written | outcome |
|---|---|
| `walk`, a folder | its pictures by extension, in natural order: 2 before 10; what else lies there is named in a note |
| `walk/*.png` (`*`, `?`, `[0-9]` in the last name alone) | the files that match, in natural order |
| `shots [final]`, `what*.gif` where there is a folder or file of that very name | that one: its signs are letters |
| a hidden file, a folder in a folder | never taken |
| a folder, file or link outside the allowed roots | refused |

A folder in a bucket is written with a slash at its end.
"""

from __future__ import annotations

import fnmatch
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from manifests.errors import ImageError, Missing
from manifests.parsing.fault_list import shown
from manifests.schema.addresses import Roots
from manifests.store.files import is_folder, is_there, list_address

PICTURE_EXTENSIONS: Final = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif")
"""By which the pictures of a folder are told from what else lies there."""

_WILD = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class FolderFiles:
    """What lies in a folder.

    Attributes:
        taken: Names and addresses of the files that are meant, in natural order.
        left: Names of those that are not, because a folder was named and they are no pictures by their extension.
    """

    taken: Mapping[str, str]
    left: tuple[str, ...]


def has_signs(text: str) -> bool:
    """Whether the last name of a path has the signs of a pattern."""
    return bool(_WILD.search(text.rpartition("/")[2]))


def is_pattern(text: str, roots: Roots) -> bool:
    """Whether the last name is a pattern: it has the signs of one, and nothing has that very name.

    Raises:
        AddressError: It is not allowed.
        StoreError: It cannot be looked for.
    """
    return has_signs(text) and not is_there(roots.resolve(text))


def stands_for_files(text: str, roots: Roots) -> bool:
    """Whether a path is that of a folder, or a pattern; a name with the extension of a picture is a file's.

    Raises:
        AddressError: It is not allowed.
        StoreError: It cannot be looked for.
    """
    if text.endswith("/") or is_pattern(text, roots):
        return True
    return not text.lower().endswith(PICTURE_EXTENSIONS) and is_folder(roots.resolve(text))


def files_of_folder(text: str, roots: Roots) -> FolderFiles:
    """Look up what a folder or a pattern stands for; each file's real place is checked.

    Args:
        text: As it is written.
        roots: What it may reach.

    Raises:
        AddressError: It, or a file in it, is not allowed.
        StoreError: There is no such folder, or it cannot be listed.
        ImageError: There are the signs of a pattern in a folder's name.
    """
    folder, slash, pattern = text.rpartition("/")
    if not is_pattern(text, roots):
        folder, pattern = text.rstrip("/"), ""
    folder = folder or ("/" if slash else ".")
    address = roots.resolve(folder)
    names = sorted(_listed(address, folder, pattern), key=_natural)
    if pattern:
        taken = [name for name in names if fnmatch.fnmatchcase(_composed(name), _composed(pattern))]
    else:
        taken = [name for name in names if name.lower().endswith(PICTURE_EXTENSIONS)]
    left = [] if pattern else [name for name in names if not name.lower().endswith(PICTURE_EXTENSIONS)]
    return FolderFiles({name: roots.resolve(f"{address.rstrip('/')}/{name}") for name in taken}, tuple(left))


def _listed(address: str, folder: str, pattern: str) -> list[str]:
    """The names in a folder, less the hidden ones."""
    try:
        listed = list_address(address)
    except Missing:
        if not _WILD.search(folder):
            raise
        listed = []
    if not listed and _WILD.search(folder):
        accepted = "*, ? and [...] in the last name alone, such as walk/*.png"
        raise ImageError("pattern in a folder's name", shown(f"{folder}/{pattern}"), accepted, "name the folder")
    return [name for name in listed if not name.startswith(".")]


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _natural(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Sort key in which numbers count as numbers, whatever stands around them."""
    parts = re.findall(r"[0-9]+|[^0-9]+", name)
    return [(0, int(part), "") if part[0] in "0123456789" else (1, 0, part) for part in parts], name
