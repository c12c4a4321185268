"""Pictures made here, and files of them, for the tests beside this file."""

from __future__ import annotations

import io
import pickle
import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from manifests.errors import ImageError
from manifests.ids import image_id
from manifests.images.normalise import NormalisedImage, normalise

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF")


def picture(width: int = 48, height: int = 32) -> Image.Image:
    """A picture without any symmetry: red grows to the right, green downwards, blue marks the top left corner."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    blue = np.zeros((height, width))
    blue[: height // 4, : width // 4] = 255
    return Image.fromarray(np.stack([x, y, blue], axis=-1).astype(np.uint8))


def patch(colour: object, side: int = 32, mode: str = "RGB") -> Image.Image:
    """A square of one colour but for its lower right corner, which is black: a picture of one colour shows nothing."""
    square = Image.new(mode, (side, side), colour)
    square.paste(0 if len(square.getbands()) == 1 else (0,) * len(square.getbands()), (side - 8, side - 8, side, side))
    return square


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def pixels(result: NormalisedImage) -> np.ndarray:
    """The pixels of a result, (height, width, 3); checks on the way that its PNG is bare 8-bit RGB and its id true."""
    opened = Image.open(io.BytesIO(result.png))
    assert (opened.format, opened.mode, opened.size) == ("PNG", "RGB", (result.width_px, result.height_px))
    chunks = [result.png[i + 4 : i + 8] for i in png_chunk_offsets(result.png)]
    assert set(chunks) == {b"IHDR", b"IDAT", b"IEND"}
    array = np.asarray(opened)
    assert result.image_id == image_id(array.tobytes(), result.width_px, result.height_px)
    return array


def png_chunk_offsets(png: bytes) -> list[int]:
    offsets, at = [], 8
    while at < len(png):
        offsets.append(at)
        at += 12 + struct.unpack(">I", png[at : at + 4])[0]
    return offsets


def png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png_claiming(width: int, height: int) -> bytes:
    """A PNG that declares a size and holds next to nothing."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(b"\0" * 1000))


def refusal(data: bytes, **options: int) -> ImageError:
    with pytest.raises(ImageError) as caught:
        normalise(data, **options)
    error = caught.value
    assert error.what and error.received and error.accepted and error.hint
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    return error


def big_endian_tiff(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    tifffile.imwrite(out, array, byteorder=">")
    return out.getvalue()
