"""From pictures to what a training step needs: latent moments and true sizes, and one adapter's random draws.

The reference resizes the shorter side, does not crop, and yet tells the UNet that it sees a full square. Here the
square is cut, and the UNet is told the picture's own size, where the cut is, and what it sees.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from blora.models.model import Base
from blora.settings.training import TrainSettings

__all__ = [
    "Frame",
    "Noise",
    "Photo",
    "draw_noise",
    "frame_of",
    "photo_of_turn",
    "pixel_digest",
    "prepare_photos",
    "read_pixels",
    "seeded",
]

_LONGEST_SIDE = 4
"""Without cropping, the longer side is kept up to so many times the shorter one."""


@dataclass(frozen=True)
class Frame:
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
    """

    mean: Tensor
    std: Tensor
    time_ids: Tensor


@dataclass(frozen=True, eq=False)
class Noise:
    """One adapter's random numbers for one row of one step, on the CPU.

    Attributes:
        photo: Index of the photo.
        timestep: Diffusion timestep, from 0.
        posterior: (channels, height, width) standard normal: which latent of the picture's distribution.
        noise: (channels, height, width) standard normal: what is added.
    """

    photo: int
    timestep: int
    posterior: Tensor
    noise: Tensor


def read_pixels(image: str | Path | Image.Image) -> NDArray[np.uint8]:
    """Return a picture upright, on white, as (height, width, 3) uint8."""
    if not isinstance(image, Image.Image):
        with Image.open(image) as opened:
            opened.load()
            image = opened
    upright = ImageOps.exif_transpose(image).convert("RGBA")
    white = Image.new("RGBA", upright.size, "white")
    return np.asarray(Image.alpha_composite(white, upright).convert("RGB"))


def frame_of(height_px: int, width_px: int, settings: TrainSettings, multiple_px: int) -> Frame:
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
    return Frame((height_px, width_px), resized, crop, target)


def cut(rgb: NDArray[np.uint8], frame: Frame) -> Image.Image:
    """Resize a picture (height, width, 3) and cut its frame out.

    Very long pictures are cut first, so that no more is resized than is seen.
    """
    (top, left), (height, width) = frame.crop, frame.target
    per_px = (frame.original[1] / frame.resized[1], frame.original[0] / frame.resized[0])
    box = (left * per_px[0], top * per_px[1], (left + width) * per_px[0], (top + height) * per_px[1])
    return Image.fromarray(rgb).resize((width, height), Image.Resampling.LANCZOS, box=box)


def latent_multiple_px(base: Base) -> int:
    """Return the pixels of one latent at the UNet's lowest level; sides of pictures are multiples of it."""
    halvings = len(base.unet.config.block_out_channels) - 1
    return base.vae_scale_factor * int(2**halvings)


def prepare_photos(base: Base, images: Sequence[NDArray[np.uint8]], settings: TrainSettings) -> tuple[Photo, ...]:
    """Encode an item's pictures once, in an order that depends on their content alone."""
    multiple_px = latent_multiple_px(base)
    photos = []
    for rgb in sorted(images, key=pixel_digest):
        frame = frame_of(rgb.shape[0], rgb.shape[1], settings, multiple_px)
        mean, std = base.encode_image_moments(cut(rgb, frame))
        photos.append(Photo(mean, std, base.time_ids(frame.original, frame.crop, frame.target)))
    return tuple(photos)


def draw_noise(
    generator: torch.Generator, photos: Sequence[Photo], step: int, settings: TrainSettings, timesteps: int, key: str
) -> list[Noise]:
    """Draw one adapter's rows of one step; the order of numbers depends on nothing but this adapter.

    Photos take turns, so that each is seen equally often; see `photo_of_turn`.

    Args:
        generator: The adapter's own.
        photos: The adapter's photos.
        step: From 0.
        settings: Number of rows, and how timesteps are drawn.
        timesteps: Length of the diffusion.
        key: With the settings' seed, fixes the order of the photos.
    """
    drawn = _draw_timesteps(generator, settings, timesteps)
    rows = []
    for row, timestep in enumerate(drawn):
        photo = photo_of_turn(step * settings.batch_size + row, len(photos), key, settings.seed)
        posterior, noise = torch.randn((2, *photos[photo].mean.shape[1:]), generator=generator)
        rows.append(Noise(photo, timestep, posterior, noise))
    return rows


def photo_of_turn(turn: int, photos: int, key: str, seed: int) -> int:
    """Return which of some photos has its turn.

    Each round shows every photo once, in an order drawn by lot, so that no photo always meets the same neighbours in a
    batch. The order follows from the arguments alone: packing, resuming and reseeding do not change it.

    Args:
        turn: From 0.
        photos: How many there are.
        key: Names the adapter.
        seed: Of the settings.
    """
    if photos == 1:
        return 0
    round_, place = divmod(turn, photos)
    return int(torch.randperm(photos, generator=seeded(f"{key} photos", seed, round_))[place])


def _draw_timesteps(generator: torch.Generator, settings: TrainSettings, timesteps: int) -> list[int]:
    """Draw the timesteps of one step, uniform or crowded at the noisy end."""
    if settings.timestep_power == 1:
        return torch.randint(timesteps, (settings.batch_size,), generator=generator).tolist()
    uniform = torch.rand(settings.batch_size, generator=generator, dtype=torch.float64)
    below_last = (uniform**settings.timestep_power * timesteps).long()
    return (timesteps - 1 - below_last).tolist()


def pixel_digest(rgb: NDArray[np.uint8]) -> str:
    """Return the sha256 of a picture's shape and pixels."""
    return hashlib.sha256(repr(rgb.shape).encode() + np.ascontiguousarray(rgb).tobytes()).hexdigest()


def seeded(key: str, seed: int, attempt: int = 0) -> torch.Generator:
    """Return an adapter's own CPU generator: fixed by its key, the settings' seed and the number of reseeds."""
    digest = hashlib.sha256(f"{key}\0{seed}\0{attempt}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
