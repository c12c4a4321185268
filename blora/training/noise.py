"""One adapter's random numbers: which photo, timestep, latent and noise each row of a step has."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from blora.settings.training import TrainSettings
from blora.training.photos import Photo

__all__ = ["Noise", "draw_noise", "photo_of_turn", "seeded"]


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


def draw_noise(
    generator: torch.Generator,
    photos: Sequence[Photo],
    step: int,
    settings: TrainSettings,
    timesteps: int,
    key: str,
    shifts: Sequence[float] = (),
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
        shifts: How far timesteps of each photo are moved towards noise; empty for nowhere.
    """
    first = step * settings.batch_size
    turns = [photo_of_turn(first + row, len(photos), key, settings.seed) for row in range(settings.batch_size)]
    drawn = _draw_timesteps(generator, settings, timesteps, [shifts[photo] if shifts else 1.0 for photo in turns])
    rows = []
    for photo, timestep in zip(turns, drawn, strict=True):
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


def _draw_timesteps(
    generator: torch.Generator, settings: TrainSettings, timesteps: int, shifts: Sequence[float]
) -> list[int]:
    """Draw the timesteps of one step: uniform, crowded at the noisy end, or in the middle; then moved towards noise."""
    shifted = any(shift != 1 for shift in shifts)
    if settings.timestep_sampling == "logit_normal":
        normal = torch.randn(settings.batch_size, generator=generator, dtype=torch.float64)
        share = (settings.timestep_mean + settings.timestep_std * normal).sigmoid()
    elif settings.timestep_power == 1 and not shifted:
        return torch.randint(timesteps, (settings.batch_size,), generator=generator).tolist()
    else:
        uniform = torch.rand(settings.batch_size, generator=generator, dtype=torch.float64)
        if not shifted:
            return (timesteps - 1 - (uniform**settings.timestep_power * timesteps).long()).tolist()
        share = 1 - uniform**settings.timestep_power
    if shifted:
        by = torch.tensor(shifts, dtype=torch.float64)
        share = by * share / (1 + (by - 1) * share)
    return (share * timesteps).long().clamp(max=timesteps - 1).tolist()


def seeded(key: str, seed: int, attempt: int = 0) -> torch.Generator:
    """Return an adapter's own CPU generator: fixed by its key, the settings' seed and the number of reseeds."""
    digest = hashlib.sha256(f"{key}\0{seed}\0{attempt}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
