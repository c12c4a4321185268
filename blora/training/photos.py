"""From pictures to what a training step needs of them: latent moments and true sizes.

The reference resizes the shorter side, does not crop, and yet tells the UNet that it sees a full square. Here the
square is cut, and the UNet is told either the picture's own size, where the cut is, and what it sees; or, as published,
that the picture is a whole square of the resolution, which is also what pictures are drawn as.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from blora.models.model import Base
from blora.settings.training import TrainSettings

__all__ = ["Framing", "Photo", "cut", "frame_of", "pixel_digest", "prepare_photos", "read_pixels", "turned_copies"]

_LONGEST_SIDE = 4
"""Without cropping, the longer side is kept up to so many times the shorter one."""


@dataclass(frozen=True)
class Framing:
    """What of a picture is seen, in pixels; heights before widths, top before left.

    Attributes:
        original: Size of the picture as it came.
        resized: Size after resizing, before the cut.
        crop: Top and left of the cut in the resized picture.
        target: Size of the cut.
    """

    original: tuple[int, int]
    resized: tuple[int, int]
    crop: tuple[int, int]
    target: tuple[int, int]


@dataclass(frozen=True, eq=False)
class Photo:
    """One picture, encoded once.

    Attributes:
        mean: (1, channels, height, width) fp32 latent mean, scaled.
        std: The same shape: standard deviation.
        time_ids: (1, 6) size and crop.
        style_alone: Whether it is a turned copy, which the style's half is trained on without the content's.
    """

    mean: Tensor
    std: Tensor
    time_ids: Tensor
    style_alone: bool = False


def read_pixels(image: str | Path | Image.Image) -> NDArray[np.uint8]:
    """Return a picture upright, on white, as (height, width, 3) uint8."""
    if not isinstance(image, Image.Image):
        with Image.open(image) as opened:
            opened.load()
            image = opened
    upright = ImageOps.exif_transpose(image).convert("RGBA")
    white = Image.new("RGBA", upright.size, "white")
    return np.asarray(Image.alpha_composite(white, upright).convert("RGB"))


def frame_of(height_px: int, width_px: int, settings: TrainSettings, multiple_px: int) -> Framing:
    """Decide what is seen of a picture of a given size.

    Args:
        height_px: Height of the picture.
        width_px: Width of the picture.
        settings: Resolution and crop.
        multiple_px: Both target sides are multiples of this many pixels.
    """
    short = settings.resolution_px // multiple_px * multiple_px
    ratio = max(height_px, width_px) / min(height_px, width_px)
    resized_long = max(short, round(short * ratio))
    long = short
    if settings.crop == "none":
        long = min(resized_long, _LONGEST_SIDE * short) // multiple_px * multiple_px
    upright = height_px >= width_px
    resized = (resized_long, short) if upright else (short, resized_long)
    target = (long, short) if upright else (short, long)
    crop = ((resized[0] - target[0]) // 2, (resized[1] - target[1]) // 2)
    return Framing((height_px, width_px), resized, crop, target)


def cut(rgb: NDArray[np.uint8], frame: Framing) -> Image.Image:
    """Resize a picture (height, width, 3) and cut its frame out.

    Very long pictures are cut first, so that no more is resized than is seen.
    """
    (top, left), (height, width) = frame.crop, frame.target
    per_px = (frame.original[1] / frame.resized[1], frame.original[0] / frame.resized[0])
    box = (left * per_px[0], top * per_px[1], (left + width) * per_px[0], (top + height) * per_px[1])
    return Image.fromarray(rgb).resize((width, height), Image.Resampling.LANCZOS, box=box)


def prepare_photos(base: Base, images: Sequence[NDArray[np.uint8]], settings: TrainSettings) -> tuple[Photo, ...]:
    """Encode an item's pictures once, in an order that depends on their content alone; then their copies, if any."""
    ordered = sorted(images, key=pixel_digest)
    copies = [copy for rgb in ordered for copy in turned_copies(rgb)] if settings.style_alone_share else []
    photos = []
    for rgb, is_copy in [*((rgb, False) for rgb in ordered), *((copy, True) for copy in copies)]:
        frame = frame_of(rgb.shape[0], rgb.shape[1], settings, base.trained_multiple_px)
        mean, std = base.encode_image_moments(cut(rgb, frame))
        photos.append(Photo(mean, std, base.time_ids(*_told(frame, settings)), is_copy))
    return tuple(photos)


def turned_copies(rgb: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """Return a picture (height, width, 3) in all eight ways to turn it by quarters and mirror it, as it is the first.

    What is the same in all of them is no layout: colours, strokes, textures. Nothing is resampled, so none is blurred.
    """
    return [np.ascontiguousarray(np.rot90(way, turns)) for way in (rgb, rgb[:, ::-1]) for turns in range(4)]


def _told(frame: Framing, settings: TrainSettings) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """Return the original size, the place of the cut and the target size that the UNet is told."""
    if settings.size_conditioning == "published":
        square = (settings.resolution_px, settings.resolution_px)
        return square, (0, 0), square
    return frame.original, frame.crop, frame.target


def pixel_digest(rgb: NDArray[np.uint8]) -> str:
    """Return the sha256 of a picture's shape and pixels."""
    return hashlib.sha256(repr(rgb.shape).encode() + np.ascontiguousarray(rgb).tobytes()).hexdigest()
