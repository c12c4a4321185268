"""Untrusted picture files opened: refused by their size and header before any pixel is decoded.

Whatever goes wrong with the bytes, then or later, is an `ImageError` that says what the file seems to be.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image, UnidentifiedImageError

from manifests.errors import ImageError
from manifests.images.file_kind import CAMERA_RAW, advice_for, kind_of

MAX_FILE_BYTES = 64 * 2**20
"""Bytes of one picture file (64 MiB)."""

MAX_PIXELS = 2**26
"""Width times height as the header declares them (67 megapixels); decoding takes up to 12 bytes a pixel."""

MAX_JPEG_SCANS = 100
"""Passes over the pixels in one JPEG; usual files have 1 to 12, thousands are a way to burn hours from a few bytes."""

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF")
"""Decoders that may touch untrusted bytes; Pillow has dozens more, which stay shut."""

_ACCEPTED = "PNG, JPEG, WebP, TIFF, BMP or GIF"
SIXTEEN_BIT_GREY = ("I;16", "I;16L", "I;16B", "I;16N")
"""Pillow's modes of grey with 16 bits."""

_CONVERTIBLE = (
    "1",
    "L",
    "LA",
    "La",
    "P",
    "PA",
    "RGB",
    "RGBA",
    "RGBa",
    "RGBX",
    "CMYK",
    "YCbCr",
    "LAB",
    *SIXTEEN_BIT_GREY,
)


@contextmanager
def open_untrusted(data: bytes) -> Iterator[Image.Image]:
    """Open untrusted bytes, refused by size and header first; whatever goes wrong with them is an `ImageError`."""
    _check_bytes(data)
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
            _check_header(opened)
            yield opened
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        pixels = re.search(r"\d+", str(error))
        raise _too_many_pixels(f"{int(pixels[0]) if pixels else 0:,} pixels") from error
    except Exception as error:
        # Decoders answer damaged bytes with nearly every exception there is; whichever it is, the bytes are to blame.
        raise _unreadable(data, error) from error


def _check_bytes(data: bytes) -> None:
    """Refuse by what can be told without a decoder."""
    if not data:
        raise ImageError("empty picture file", "0 bytes", _ACCEPTED, "copy or download the picture again")
    if len(data) > MAX_FILE_BYTES:
        raise ImageError(
            "picture file too large",
            f"{len(data):,} bytes",
            f"at most {MAX_FILE_BYTES:,} bytes",
            "save it smaller or as JPEG",
        )
    if kind_of(data).startswith(CAMERA_RAW):  # a decoder of TIFF would take the preview in it for the picture
        raise _unreadable(data)
    # In JPEG data a byte FF is followed by 00 unless it starts a marker, so counting FF DA counts the scans.
    scans = data.count(b"\xff\xda") if data.startswith(b"\xff\xd8") else 0
    if scans > MAX_JPEG_SCANS:
        raise ImageError(
            "JPEG with too many scans",
            f"{scans:,} scans",
            f"at most {MAX_JPEG_SCANS} scans",
            "save the picture again with an ordinary program",
        )


def _check_header(opened: Image.Image) -> None:
    """Refuse by size and pixel format, before any pixel is decoded."""
    if opened.width * opened.height > MAX_PIXELS:
        raise _too_many_pixels(f"{opened.width:,} x {opened.height:,} px")
    if opened.mode not in _CONVERTIBLE:
        raise ImageError(
            "unsupported kind of pixels",
            f"{opened.format} of mode {opened.mode}",
            "8 or 16 bits a channel: grey, RGB, CMYK, CIELAB or palette",
            "save it as 8-bit RGB",
        )


def has_more_frames(opened: Image.Image) -> bool:
    """Tell whether the file goes on after the first frame, without decoding what follows."""
    try:
        return bool(getattr(opened, "is_animated", False))
    except Exception:  # a damaged second frame is one frame more, and nobody needs it
        return True


def _too_many_pixels(received: str) -> ImageError:
    return ImageError(
        "picture too large", received, f"at most {MAX_PIXELS:,} pixels", "reduce it; 2048 px a side lose nothing here"
    )


def _unreadable(data: bytes, error: Exception | None = None) -> ImageError:
    """Say what the file seems to be, from its first bytes, and why it does not open."""
    kind = kind_of(data)
    if hint := advice_for(data):
        received = f"a file of kind {kind}"
    elif kind:
        # Of a file whose very beginning is wrong, Pillow says which object in memory it did not recognise.
        why = "" if error is None or isinstance(error, UnidentifiedImageError) else f" ({error})"
        received, hint = f"a cut-off or damaged {kind}{why}", "copy or download the picture again"
    else:
        received, hint = f"{len(data):,} bytes that are no picture", "check that this is the file you mean"
    return ImageError("picture cannot be read", received, _ACCEPTED, hint)
