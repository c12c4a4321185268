"""The pictures of a TIFF file: its pages, and what lies below them, told by the directories alone.

A file may hold a small picture before the large one (a preview, a page of thumbnails); which one is meant, their sizes
and the tag that says "reduced" tell. Only the directories are read, within limits; damage ends the reading there.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

MAX_DIRECTORIES: Final = 1000
"""Pages and pictures below them that are looked at in one file."""

_MAX_ENTRIES = 512  # of one directory; usual ones have 10 to 60
_SUBFILE, _WIDTH, _HEIGHT, _PHOTOMETRIC, _CHILDREN, _DNG_VERSION = 254, 256, 257, 262, 330, 50706
_REDUCED, _MASK = 1, 4  # bits of the subfile's type
_SENSOR = (32803, 34892)  # photometric: what a sensor saw, before and after it was made linear
_SIZES = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}


@dataclass(frozen=True)
class Page:
    """What one directory says.

    Attributes:
        offset: Where it lies in the file.
        number: Of the page, from 1; 0 for a picture below a page.
        pixels: Width times height.
        is_reduced: Whether it says of itself to be a smaller copy of another one.
        is_mask: Whether it says of itself to be the transparency of another one.
        is_raw: Whether it is what a sensor saw, or that of a DNG.
    """

    offset: int
    number: int
    pixels: int
    is_reduced: bool
    is_mask: bool
    is_raw: bool


def is_camera_raw(data: bytes) -> bool:
    """Tell whether a TIFF is a camera raw file (DNG, NEF, ARW, PEF, ...), whose first picture is a preview."""
    return any(page.is_raw for page in read_pages(data))


def at_largest(data: bytes) -> tuple[bytes, str]:
    """Return a TIFF so that it begins with its largest picture, the first of those, and what to say of that.

    Args:
        data: A whole file; camera raw, and one of another kind, is returned as it is.

    Returns:
        The file, and a note; empty where it has one picture, but for smaller copies and masks.
    """
    pages = [page for page in read_pages(data) if not page.is_mask]
    if not pages or any(page.is_raw for page in pages):
        return data, ""
    largest = max(pages, key=lambda page: page.pixels)
    whole = [page for page in pages if not page.is_reduced and page.number]
    count = max(len(whole), largest.number)
    if largest.offset == pages[0].offset:
        return data, f"page 1 of {count} taken" if len(whole) > 1 else ""
    where = f"page {largest.number} of {count}" if largest.number else "the picture below its first page"
    return _beginning_at(data, largest.offset), f"{where} taken, the largest"


def read_pages(data: bytes) -> Iterator[Page]:
    """Yield what the directories of a TIFF say: pages in order, each with those below it; nothing of other files."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2], "")
    if not order or data[2:4] not in (struct.pack(f"{order}H", 42), struct.pack(f"{order}H", 43)):
        return
    big = data[2:4] == struct.pack(f"{order}H", 43)
    seen: set[int] = set()
    number = 1
    try:
        (offset,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
        while offset and offset not in seen and len(seen) < MAX_DIRECTORIES:
            seen.add(offset)
            tags, following = _directory(data, offset, order, big)
            yield _page(offset, number, tags)
            for child in tags.get(_CHILDREN, ()):
                if child not in seen and len(seen) < MAX_DIRECTORIES:
                    seen.add(child)
                    yield _page(child, 0, _directory(data, child, order, big)[0])
            offset, number = following, number + 1
    except struct.error:  # it points beyond its end
        return


def _page(offset: int, number: int, tags: dict[int, tuple[int, ...]]) -> Page:
    width, height, kind, photometric = ((tags.get(tag) or (0,))[0] for tag in (_WIDTH, _HEIGHT, _SUBFILE, _PHOTOMETRIC))
    is_raw = photometric in _SENSOR or _DNG_VERSION in tags
    return Page(offset, number, width * height, bool(kind & _REDUCED), bool(kind & _MASK), is_raw)


def _directory(data: bytes, offset: int, order: str, big: bool) -> tuple[dict[int, tuple[int, ...]], int]:
    """The whole numbers that a directory says, by tag, and where the next one lies; 0 for nowhere.

    Raises:
        struct.error: It lies beyond the end of the file.
    """
    word = "Q" if big else "I"
    (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, offset)
    first, length, room = offset + (8 if big else 2), 20 if big else 12, 8 if big else 4
    tags = {}
    for place in range(first, first + length * min(count, _MAX_ENTRIES), length):
        tag, kind, values = struct.unpack_from(f"{order}HH{word}", data, place)
        if kind not in _SIZES or tag not in (_SUBFILE, _WIDTH, _HEIGHT, _PHOTOMETRIC, _CHILDREN, _DNG_VERSION):
            continue
        form = f"{order}{min(values, MAX_DIRECTORIES)}{_SIZES[kind]}"
        place += length - room
        if struct.calcsize(form) > room:
            (place,) = struct.unpack_from(order + word, data, place)
        tags[tag] = struct.unpack_from(form, data, place)
    (following,) = struct.unpack_from(order + word, data, first + length * count)
    return tags, following


def _beginning_at(data: bytes, offset: int) -> bytes:
    """The file with another directory as its first."""
    order = "<" if data[:2] == b"II" else ">"
    if data[2:4] in (b"+\0", b"\0+"):
        return data[:8] + struct.pack(f"{order}Q", offset) + data[16:]
    return data[:4] + struct.pack(f"{order}I", offset) + data[8:]
