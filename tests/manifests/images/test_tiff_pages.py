"""Which picture of a TIFF is taken: the largest, wherever it lies, and never the preview of a camera raw file."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import tifffile

from manifests.images.normalise import normalise
from manifests.images.tiff_pages import MAX_DIRECTORIES, at_largest, read_pages
from tests.manifests.images.made import encode, patch, pixels, refusal

SIDES = {"small": 32, "large": 64}


def tiff(*pages: str, below: str = "", **options: object) -> bytes:
    """Pages by their names: a side, and "reduced" or "mask" where they say so of themselves; one below the first."""
    kinds, out = {"reduced": 1, "mask": 4}, io.BytesIO()
    with tifffile.TiffWriter(out, bigtiff=bool(options.pop("big", False)), byteorder=options.pop("order", "<")) as file:
        for number, page in enumerate(pages):
            side, _, kind = page.partition(" ")
            square = np.asarray(patch((200, 20 * number, 40), SIDES[side]))
            extra = {"subifds": 1} if below and not number else {}
            file.write(square, subfiletype=kinds.get(kind, 0), photometric="rgb", metadata=None, **extra, **options)
            if extra:
                file.write(np.asarray(patch((10, 250, 10), SIDES[below])), photometric="rgb", metadata=None)
    return out.getvalue()


@pytest.mark.parametrize("options", [{}, {"big": True}, {"order": ">"}])
@pytest.mark.parametrize(
    ("pages", "below", "side", "green", "notes"),
    [
        (("large", "large"), "", 64, 0, ("page 1 of 2 taken",)),
        (("large", "small"), "", 64, 0, ("page 1 of 2 taken",)),
        (("small", "large", "large"), "", 64, 20, ("page 2 of 3 taken, the largest",)),
        (("small reduced", "large"), "", 64, 20, ("page 2 of 2 taken, the largest",)),
        (("large", "small reduced"), "", 64, 0, ()),
        (("small reduced",), "large", 64, 250, ("the picture below its first page taken, the largest",)),
        (("large",), "small", 64, 0, ()),
    ],
)
def test_the_largest_picture_is_taken_and_told(
    pages: tuple[str, ...], below: str, side: int, green: int, notes: tuple[str, ...], options: dict[str, object]
) -> None:
    result = normalise(tiff(*pages, below=below, **options))
    assert (result.width_px, pixels(result)[4, 4, 1], result.notes) == (side, green, notes)


def retagged(data: bytes, number: int, tag: int, value: int, new_tag: int | None = None) -> bytes:
    """A TIFF (little-endian) with another value of a tag in its page of that number, or another tag in its place."""
    changed = bytearray(data)
    (start,) = struct.unpack_from("<I", data, 4)
    for _ in range(number):
        (count,) = struct.unpack_from("<H", data, start)
        (start,) = struct.unpack_from("<I", data, start + 2 + 12 * count)
    (count,) = struct.unpack_from("<H", data, start)
    entries = range(start + 2, start + 2 + 12 * count, 12)
    (place,) = (at for at in entries if struct.unpack_from("<H", data, at)[0] == tag)
    struct.pack_into("<H", changed, place, new_tag or tag)
    struct.pack_into("<I", changed, place + 8, value)
    if new_tag:
        struct.pack_into("<HI", changed, place + 2, 1, 4)
    return bytes(changed)


def test_a_mask_is_no_picture() -> None:
    data = retagged(tiff("small", "large"), 1, 254, 4)
    assert (normalise(data).width_px, normalise(data).notes) == (32, ())


@pytest.mark.parametrize("tag", ["DNG", "sensor", "linear sensor", "CR2"])
def test_camera_raw_is_refused_by_name(tag: str) -> None:
    preview = tiff("small reduced", "large")
    raw = {
        "DNG": retagged(preview, 0, 305, 0x00000401, 50706),
        "sensor": retagged(preview, 1, 262, 32803),
        "linear sensor": retagged(preview, 1, 262, 34892),
        "CR2": preview[:8] + b"CR\2\0" + preview[12:],
    }[tag]
    error = refusal(raw)
    assert "camera raw" in error.received and "develop" in error.hint


def test_a_preview_with_the_sensor_below_it_is_camera_raw() -> None:
    """As NEF, ARW and DNG lie: a small picture first, what the sensor saw below it."""
    out = io.BytesIO()
    with tifffile.TiffWriter(out) as file:
        file.write(np.asarray(patch("red")), subifds=1, subfiletype=1, photometric="rgb")
        file.write(np.zeros((64, 64), np.uint16), photometric="cfa")
    assert "camera raw" in refusal(out.getvalue()).received


def test_damaged_and_endless_directories_end() -> None:
    data = tiff("small", "large", "large")
    for end in range(8, len(data), 97):
        list(read_pages(data[:end]))
    (start,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, start)
    circle = bytearray(data)
    struct.pack_into("<I", circle, start + 2 + 12 * count, start)
    assert len(list(read_pages(bytes(circle)))) == 1
    # Directories of no entries, each leading to the next byte pair: as many as fit.
    chain = b"II*\0\x08\0\0\0" + b"".join(
        struct.pack("<HI", 0, 14 + 6 * number) for number in range(3 * MAX_DIRECTORIES)
    )
    assert len(list(read_pages(chain))) == MAX_DIRECTORIES
    assert at_largest(encode(patch("red")))[1] == ""
