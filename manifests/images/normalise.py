"""Safe decoding of untrusted pictures: every picture ends as upright 8-bit RGB in a bare PNG, or as one `ImageError`.

| what arrives | outcome |
|---|---|
| PNG, JPEG (MPO included), WebP, TIFF, BMP, GIF | taken; told by its bytes, so a wrong extension does not matter |
| zero bytes; cut off; damaged; another kind of file (HEIC, SVG, PDF, HTML, ...) | refused, the kind named where known |
| more than `MAX_FILE_BYTES`, `MAX_PIXELS` or `MAX_JPEG_SCANS` | refused from size and header, nothing decoded |
| a side longer than `max_side_px` (20,000 px by 3,000, say) | reduced to fit, noted; never enlarged |
| a side shorter than `MIN_SIDE_PX` once reduced to fit | refused |
| EXIF orientation | applied, noted; unreadable EXIF is ignored |
| transparency (alpha, palette entry, colour key) | laid on white, noted |
| a colour profile other than sRGB, CMYK, CIELAB, gamma of a PNG | converted to sRGB, noted (`colour`) |
| 16 bits a channel | the high byte is kept, noted |
| palette, grey, black and white, YCbCr | converted |
| 32-bit integers, floating point | refused: their range has no agreed meaning |
| camera raw (DNG, NEF, CR3, ...) | refused: its first picture is a preview |
| a TIFF of several pages, or with pictures below them | the largest (the first of those) is taken, noted |
| animation, several pictures | the first is taken, noted; the others are never decoded here |
| one colour all over once it is on white, within `ONE_COLOUR_LEVELS` | refused |
| metadata (EXIF, GPS, XMP, comments, profiles) | dropped: the PNG holds pixels alone |

`normalise` is a pure function of the bytes, and normalising its own PNG again changes nothing. The id is that of the
normalised pixels, so the same picture under two names, or in two lossless files, is one image. `identify` finds it
without making the PNG, which takes longer than all the rest.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np
from PIL import Image

from manifests.errors import ImageError
from manifests.ids import image_id
from manifests.images.colour import colours_of
from manifests.images.decode import SIXTEEN_BIT_GREY, has_more_frames, open_untrusted
from manifests.images.tiff_pages import at_largest

MAX_SIDE_PX = 2048
"""Longest side after normalisation, in pixels: twice what the full-size base model looks at."""

MIN_SIDE_PX = 16
"""Shortest side after normalisation, in pixels."""

ONE_COLOUR_LEVELS = 2
"""Of 255: a picture whose channels vary by no more shows nothing."""

TRANSPARENT = "transparency laid on white"

# EXIF tag 274 -> what makes the picture upright (CIPA DC-008, 4.6.4 A)
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class IdentifiedImage:
    """What is known of an upright 8-bit RGB picture without the picture.

    Attributes:
        image_id: The id of its pixels.
        width_px: Width in pixels.
        height_px: Height in pixels.
        notes: What normalisation did that a person may want to know, in words.
    """

    image_id: str
    width_px: int
    height_px: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class NormalisedImage(IdentifiedImage):
    """An upright 8-bit RGB picture.

    Attributes:
        png: The picture as PNG bytes without metadata.
    """

    png: bytes = field(kw_only=True)


def identify(data: bytes, *, max_side_px: int = MAX_SIDE_PX) -> IdentifiedImage:
    """Find out which picture the bytes of an untrusted file are, as `normalise` would.

    Raises:
        ImageError: The picture cannot be used; the table of this module says when.
        ValueError: `max_side_px` is too small.
    """
    return identified(*_first(data, max_side_px))


def normalise(data: bytes, *, max_side_px: int = MAX_SIDE_PX) -> NormalisedImage:
    """Turn the bytes of an untrusted picture file into an upright 8-bit RGB picture.

    Args:
        data: The whole file.
        max_side_px: The longest side to keep, in pixels, at least `MIN_SIDE_PX`; longer pictures are reduced.

    Raises:
        ImageError: The picture cannot be used; the table of this module says when.
        ValueError: `max_side_px` is too small.
    """
    return normalised(*_first(data, max_side_px))


def identified(picture: Image.Image, notes: Sequence[str]) -> IdentifiedImage:
    """Return what is known of an upright picture, with what was done to it."""
    name = image_id(picture.tobytes(), picture.width, picture.height)
    return IdentifiedImage(name, picture.width, picture.height, tuple(notes))


def normalised(picture: Image.Image, notes: Sequence[str]) -> NormalisedImage:
    """Return an upright picture as a PNG, with what was done to it."""
    return NormalisedImage(**vars(identified(picture, notes)), png=_png(picture))


def _first(data: bytes, max_side_px: int) -> tuple[Image.Image, list[str]]:
    """The only or the first picture of a file, and what was done to it."""
    if max_side_px < MIN_SIDE_PX:
        raise ValueError(f"max_side_px: received {max_side_px}; accepted {MIN_SIDE_PX} or more")
    whole, taken = at_largest(data)
    with open_untrusted(whole) as opened:
        picture, notes = upright(opened, max_side_px, of_many=False)
        return picture, [*notes, taken] if taken else notes


def upright(opened: Image.Image, max_side_px: int, *, of_many: bool) -> tuple[Image.Image, list[str]]:
    """Decode the frame that an open file stands at, and say what was done to it.

    Args:
        opened: The file.
        max_side_px: The longest side to keep, in pixels.
        of_many: Whether other frames of the file are used, too.

    Raises:
        ImageError: The picture is too small, or shows nothing.
    """
    notes: list[str] = []
    picture = _decode(opened, max_side_px, notes, of_many=of_many)
    if min(picture.size) < MIN_SIDE_PX:
        raise ImageError(
            "picture too small",
            f"{picture.width} x {picture.height} px once its longest side fits {max_side_px} px",
            f"at least {MIN_SIDE_PX} px a side",
            "give a larger or less elongated picture",
        )
    _check_shows_something(picture, TRANSPARENT in notes)
    return picture, notes


def _check_shows_something(picture: Image.Image, was_transparent: bool) -> None:
    """Refuse a picture of one colour, such as a white drawing that has been laid on white."""
    extrema = cast("tuple[tuple[int, int], ...]", picture.getextrema())
    if any(highest - lowest > ONE_COLOUR_LEVELS for lowest, highest in extrema):
        return
    colour = "#" + "".join(f"{lowest:02x}" for lowest, _ in extrema)
    received = f"{picture.width} x {picture.height} px, all {colour}"
    hint = "check that this is the picture you mean"
    if was_transparent:
        received += " once it is laid on white"
        hint = "lay it on a ground of another colour and save it"
    raise ImageError("picture of one colour", received, "a picture that shows something", hint)


def _decode(opened: Image.Image, max_side_px: int, notes: list[str], *, of_many: bool) -> Image.Image:
    """Decode the frame at hand to RGB within `max_side_px`, upright, on white; append to `notes` what was done."""
    # Both are looked up before `load`, which forgets the stored layout and turns a TIFF upright on its own.
    tiles = getattr(opened, "tile", ())
    sixteen_bit = opened.mode in SIXTEEN_BIT_GREY or any(";16" in str(tile.args) for tile in tiles)
    stored_orientation = _orientation(opened)
    opened.load()
    if sixteen_bit:
        notes.append("16 bits a channel reduced to 8")
    colours = colours_of(opened)
    if colours.note:
        notes.append(colours.note)
    picture = colours.to_srgb(_reduced(opened if colours.keeps_channels else _direct_colour(opened), max_side_px))
    if picture.size != opened.size:
        notes.append(f"reduced from {opened.width} x {opened.height} px to {picture.width} x {picture.height} px")
    orientation = _orientation(opened)
    if orientation in _UPRIGHT:
        picture = picture.transpose(_UPRIGHT[orientation])
    if orientation in _UPRIGHT or stored_orientation in _UPRIGHT:
        notes.append("turned upright as its EXIF orientation says")
    if picture.mode == "RGBA":
        if picture.getchannel("A").getextrema() != (255, 255):
            notes.append(TRANSPARENT)
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    if not of_many and opened.format != "TIFF" and has_more_frames(opened):
        notes.append("animation or several pictures in one file: the first one taken")
    return picture


def _direct_colour(opened: Image.Image) -> Image.Image:
    """Return the decoded picture as RGB, or as RGBA where it has any transparency."""
    if opened.mode in SIXTEEN_BIT_GREY:
        # Pillow clips 16-bit grey at 255 when it converts, but keeps the high byte of 16-bit RGB: do the same for grey.
        grey = np.asarray(opened).astype(np.uint16) >> 8
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    return opened.convert("RGBA" if opened.has_transparency_data else "RGB")


def _reduced(picture: Image.Image, max_side_px: int) -> Image.Image:
    """Return the picture with its longest side at most `max_side_px`; alpha weighs the colours it belongs to."""
    longest = max(picture.size)
    if longest <= max_side_px:
        return picture
    width, height = (max(1, round(side * max_side_px / longest)) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)


def _orientation(opened: Image.Image) -> int:
    """Return the EXIF orientation, 1 (upright) where there is none or EXIF is damaged."""
    try:
        return int(opened.getexif().get(0x0112, 1))
    except Exception:  # damaged EXIF fails in as many ways as damaged pixels; the pixels are fine without it
        return 1


def _png(picture: Image.Image) -> bytes:
    """Return the picture as PNG bytes, with nothing in it but pixels."""
    bare = Image.frombytes("RGB", picture.size, picture.tobytes())
    out = io.BytesIO()
    bare.save(out, "PNG")
    return out.getvalue()
