"""Pictures as bytes and back: encoded for the store, decoded from it, made small for a page."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

from PIL import Image

THUMBNAIL_QUALITY = 80
"""Of WebP, from 0 to 100."""


def encoded(picture: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    """The bytes of a picture.

    Args:
        picture: the picture.
        form: PNG, WEBP, GIF: a name that Pillow knows.
        options: what Pillow's writer of that form takes.
    """
    file = io.BytesIO()
    picture.save(file, format=form, **options)
    return file.getvalue()


def decoded(data: bytes) -> Image.Image:
    """A picture of the store, which this pipeline wrote, in RGB.

    Raises:
        OSError: it cannot be read.
    """
    try:
        with Image.open(io.BytesIO(data)) as picture:
            return picture.convert("RGB")
    except (ValueError, SyntaxError, EOFError, struct.error, zlib.error, Image.DecompressionBombError) as error:
        raise OSError(f"no picture: {error}") from error


def problem_of(data: bytes) -> str:
    """What is wrong with the bytes of a picture of the store; nothing where it is well."""
    if not data:
        return "an empty file"
    try:
        decoded(data)
    except OSError:
        return f"{len(data)} bytes that no picture can be read from"
    return ""


def thumbnail(picture: Image.Image, side_px: int) -> bytes:
    """A small WebP of a picture, for a page; smaller pictures keep their size."""
    small = picture.convert("RGB")
    small.thumbnail((side_px, side_px), Image.Resampling.LANCZOS)
    return encoded(small, "WEBP", quality=THUMBNAIL_QUALITY)
