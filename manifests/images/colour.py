"""What the numbers of a picture mean as colours, and how they become sRGB.

| what the file says | outcome |
|---|---|
| nothing; a profile, or gamma and primaries of a PNG, that mean sRGB within `_SEEN_LEVELS` | pixels stay as they are |
| another ICC profile: of RGB, grey or CMYK | converted by it, noted |
| CIELAB | converted, by its profile where it has one, noted |
| a profile that is damaged, or of another kind than the pixels | ignored, noted |
| another gamma or other primaries in a PNG | converted by them, noted |
| Adobe RGB in the EXIF of a JPEG (as cameras write it, without a profile) | converted, noted |
| CMYK without a profile | converted by the plain rule, noted |

Whether a profile means sRGB is found by converting colours with it; what it calls itself proves nothing.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image, ImageCms

_SEEN_LEVELS: Final = 3
"""Of 255; profiles of sRGB by different makers are apart by 1 or 2."""

MAX_PROFILE_BYTES: Final = 8 * 2**20
"""Of one ICC profile; those of printing presses have 1 to 3 MB."""

_INTENT, _FLAGS = ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION
_TAKES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab": "LAB"}
_COLOURED = ("RGB", "RGBA", "RGBa", "RGBX", "YCbCr", "P", "PA")
_D50: Final = np.array([0.9642, 1.0, 0.8249])
_BRADFORD: Final = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_SRGB_PRIMARIES: Final = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)  # x and y of white, red, green, blue
_ADOBE_PRIMARIES: Final = (0.3127, 0.329, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
_ADOBE_GAMMA, _USUAL_GAMMA, _MOST_GAMMA = 563 / 256, 2.2, 10
_COLOUR_SPACE, _UNCALIBRATED, _INTEROPERABILITY, _EXIF = 0xA001, 0xFFFF, 0xA005, 0x8769


@dataclass(frozen=True)
class Colours:
    """How the pixels of a picture become sRGB.

    Attributes:
        transform: What is done to them; None for nothing.
        takes: The mode of pixels that it takes.
        note: What to say of it; empty for nothing.
    """

    transform: ImageCms.ImageCmsTransform | None = None
    takes: str = "RGB"
    note: str = ""

    @property
    def keeps_channels(self) -> bool:
        """Whether pixels must stay as the file has them until they are converted."""
        return self.takes in ("CMYK", "LAB")

    def to_srgb(self, picture: Image.Image) -> Image.Image:
        """Convert a picture in the mode that is taken, or in RGB or RGBA; transparency stays."""
        if self.transform is None:
            return picture
        alpha = picture.getchannel("A") if picture.mode == "RGBA" else None
        base = picture.getchannel("R") if self.takes == "L" else picture.convert(self.takes)
        made = ImageCms.applyTransform(base, self.transform)
        assert made is not None  # it is given no picture to work on in place
        if alpha is not None:
            made.putalpha(alpha)
        return made


def colours_of(opened: Image.Image) -> Colours:
    """Find out what the pixels of an open file mean; it has been decoded, as some formats say it at their end."""
    if "icc_profile" in opened.info:
        found = _by_profile(opened.info["icc_profile"], opened.mode)
    elif opened.mode == "LAB":
        found = _by_transform(ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")), "LAB", "CIELAB")
    elif opened.mode == "CMYK":
        found = Colours(note="CMYK without a colour profile converted to RGB")
    elif opened.format == "PNG":
        found = _by_gamma(opened.info)
    elif opened.format in ("JPEG", "MPO") and _is_adobe_rgb(opened):
        found = _by_transform(_made_profile(_ADOBE_GAMMA, _ADOBE_PRIMARIES), "RGB", "Adobe RGB of its EXIF")
    else:
        found = Colours()
    return found


def _by_profile(data: bytes | None, mode: str) -> Colours:
    """By an ICC profile; where it is of no use, as if there were none."""
    without = Colours()
    if mode == "LAB":
        without = _by_transform(ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")), "LAB", "CIELAB")
    if not data or len(data) > MAX_PROFILE_BYTES:
        return _with_note(without, f"its colour profile of {len(data or b''):,} bytes cannot be read and was ignored")
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(data))
        space = profile.profile.xcolor_space.strip()
        name = f"colour profile {' '.join(ImageCms.getProfileDescription(profile).split())[:60]!r}"
        if _TAKES.get(space) not in _fitting(mode):
            return _with_note(without, f"{name} is for {space}, not for its {mode} pixels, and was ignored")
        return _by_transform(profile, _TAKES[space], name)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return _with_note(without, "its colour profile is damaged and was ignored")


def _fitting(mode: str) -> tuple[str, ...]:
    """What a profile for pixels of a mode may take; grey pixels may have one of RGB."""
    if mode in ("CMYK", "LAB"):
        return (mode,)
    return ("RGB",) if mode in _COLOURED else ("L", "RGB")


def _with_note(colours: Colours, note: str) -> Colours:
    return Colours(colours.transform, colours.takes, "; ".join(filter(None, (note, colours.note))))


def _by_transform(profile: ImageCms.ImageCmsProfile, takes: str, name: str) -> Colours:
    """By a profile that can be read; nothing where it means sRGB.

    Raises:
        ImageCms.PyCMSError: It cannot be used.
    """
    srgb = ImageCms.createProfile("sRGB")
    transform = ImageCms.buildTransform(profile, srgb, takes, "RGB", renderingIntent=_INTENT, flags=_FLAGS)
    if takes in ("RGB", "L") and _is_srgb(transform, takes):
        return Colours()
    return Colours(transform, takes, f"{name} converted to sRGB")


def _is_srgb(transform: ImageCms.ImageCmsTransform, takes: str) -> bool:
    """Whether a transform leaves colours as they are, but for what nobody sees."""
    levels = np.linspace(0, 255, 18).astype(np.uint8)
    colours = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(18, -1, 3)
    if takes == "L":
        colours = np.repeat(np.arange(256, dtype=np.uint8).reshape(1, -1, 1), 3, axis=2)
    made = Colours(transform, takes).to_srgb(Image.fromarray(colours))
    return int(np.abs(np.asarray(made).astype(int) - colours).max()) <= _SEEN_LEVELS


def _by_gamma(info: dict[str | tuple[int, int], object]) -> Colours:
    """By what a PNG without a profile says of its gamma and primaries; what says sRGB, or makes no sense, is sRGB."""
    encoding, primaries = info.get("gamma"), info.get("chromaticity")
    if "srgb" in info or (encoding is None and primaries is None):
        return Colours()
    gamma = 1 / encoding if isinstance(encoding, float) and encoding > 0 else _USUAL_GAMMA
    corners = primaries if isinstance(primaries, Sequence) and len(primaries) == 8 else _SRGB_PRIMARIES
    usual = abs(gamma / _USUAL_GAMMA - 1) < 0.05
    if usual and np.allclose(corners, _SRGB_PRIMARIES, atol=0.01):
        return Colours()
    name = "primaries" if usual else f"gamma of 1/{gamma:.3g}"
    try:
        if not 1 / _MOST_GAMMA <= gamma <= _MOST_GAMMA:
            raise ValueError("gamma")
        return _by_transform(_made_profile(gamma, corners), "RGB", f"{name} that the PNG tells of")
    except (ImageCms.PyCMSError, ArithmeticError, ValueError, OSError, struct.error):
        return Colours(note="gamma and primaries that the PNG tells of make no sense and were ignored")


def _is_adobe_rgb(opened: Image.Image) -> bool:
    """Whether a camera says in EXIF that colours are Adobe RGB (DCF 2.0: uncalibrated, interoperability R03)."""
    try:
        exif = opened.getexif()
        space, index = exif.get_ifd(_EXIF).get(_COLOUR_SPACE), exif.get_ifd(_INTEROPERABILITY).get(1)
    except Exception:  # damaged EXIF fails in as many ways as damaged pixels; the pixels are fine without it
        return False
    return space == _UNCALIBRATED and str(index).strip("\0 ") == "R03"


def _made_profile(gamma: float, corners: Sequence[float]) -> ImageCms.ImageCmsProfile:
    """An ICC profile (ICC.1:2010) of a gamma, and of x and y of white, red, green and blue.

    Raises:
        ArithmeticError, ValueError, numpy.linalg.LinAlgError: They make no sense.
    """
    points = zip(corners[::2], corners[1::2], strict=True)
    white, *primaries = (np.array([x / y, 1.0, (1 - x - y) / y]) for x, y in points)
    columns = np.stack(primaries, axis=1)
    columns = columns * np.linalg.solve(columns, white)  # so that all three together are white
    cones = (_BRADFORD @ _D50) / (_BRADFORD @ white)
    columns = np.linalg.inv(_BRADFORD) @ np.diag(cones) @ _BRADFORD @ columns
    curve = b"para" + struct.pack(">IHHi", 0, 0, 0, round(gamma * 65536))
    bodies = {b"wtpt": _xyz(_D50), b"rTRC": curve, b"gTRC": curve, b"bTRC": curve}
    bodies |= {tag: _xyz(columns[:, number]) for number, tag in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))}
    table, data, start = b"", b"", 128 + 4 + 12 * len(bodies)
    for tag, body in bodies.items():
        table += tag + struct.pack(">II", start + len(data), len(body))
        data += body
    size = start + len(data)
    header = struct.pack(">I4xI4s4s4s12x4s", size, 0x04200000, b"mntr", b"RGB ", b"XYZ ", b"acsp") + b"\0" * 28
    header += struct.pack(">3i", *_fixed(_D50)) + b"\0" * 48
    return ImageCms.ImageCmsProfile(io.BytesIO(header + struct.pack(">I", len(bodies)) + table + data))


def _xyz(values: np.ndarray) -> bytes:
    return b"XYZ " + struct.pack(">I3i", 0, *_fixed(values))


def _fixed(values: np.ndarray) -> list[int]:
    """Numbers as ICC has them, with 16 bits after the point."""
    return [round(float(value) * 65536) for value in values]
