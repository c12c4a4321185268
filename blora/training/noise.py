"""One adapter's random numbers: which photo, timestep, latent and noise each row has, and which of them come again."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from blora.settings.training import TrainSettings
from blora.training.photos import Photo

__all__ = ["FrontPool", "Noise", "draw_noise", "photo_of_turn", "seeded"]

_NEVER = -1
"""Stands in a checkpoint for a draw that is not there."""


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

    Photos take turns, so that each is seen equally often; see `photo_of_turn`. So do the copies that train the style's
    half alone, in their own share of the rows (`TrainSettings.style_alone_share`).

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
    turns = [_photo_of_row(first + row, photos, settings, key) for row in range(settings.batch_size)]
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


def _photo_of_row(row: int, photos: Sequence[Photo], settings: TrainSettings, key: str) -> int:
    """Return which photo a row shows, counted from the first row of the training.

    Rows of the style alone lie as evenly among the others as their share allows, whatever the batch.
    """
    own = sum(not photo.style_alone for photo in photos)
    before, until = (math.floor(count * settings.style_alone_share) for count in (row, row + 1))
    if until > before:
        return own + photo_of_turn(before, len(photos) - own, f"{key} copies", settings.seed)
    return photo_of_turn(row - before, own, key, settings.seed)


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


@dataclass(eq=False)
class _Draw:
    """The draws of one step: the how manieth of their adapter, the generator before them, and, once asked for, they."""

    turn: int
    state: Tensor
    rows: list[Noise] | None = None


class FrontPool:
    """The draws of each adapter that come again, so that the frozen front of the UNet need not be computed for them.

    Each adapter holds the draws of some steps (`TrainSettings.front_pool`). Steps go through them in rounds. In the
    first round every draw is made anew, as in a plain training; in the further ones (`TrainSettings.front_uses` in all)
    the same draws come again, each once a round, in an order drawn by lot for each round. Then all are replaced, one
    after the other. So a training sees fewer distinct timesteps and noises: one of ``front_uses`` of its steps makes a
    new one. What a reseeded adapter held is made anew when its turn comes.
    Source: data echoing behind the costly part of a pipeline, arXiv 1907.05550; here that part is the front.
    """

    def __init__(self, settings: TrainSettings) -> None:
        """Hold none; `TrainSettings.front_pool` is 1 or more."""
        self.settings = settings
        self._held: dict[torch.Generator, dict[int, _Draw]] = {}

    def draw(
        self, generator: torch.Generator, photos: Sequence[Photo], step: int, timesteps: int, key: str
    ) -> list[Noise]:
        """Return one adapter's rows of one step; the very same objects where they come again.

        Args:
            generator: The adapter's own.
            photos: Its photos.
            step: From 0.
            timesteps: Length of the diffusion.
            key: With the settings' seed, fixes the order of a round and of the photos.
        """
        held = self._held.setdefault(generator, {})
        is_new, place, turn = _visit(step, key, self.settings)
        if is_new or place not in held:
            held[place] = _Draw(turn, generator.get_state())
            held[place].rows = draw_noise(generator, photos, turn, self.settings, timesteps, key)
        draw = held[place]
        if draw.rows is None:  # of a checkpoint
            before = torch.Generator()
            before.set_state(draw.state)
            draw.rows = draw_noise(before, photos, draw.turn, self.settings, timesteps, key)
        return draw.rows

    def forget_all_but(self, generators: Sequence[torch.Generator]) -> None:
        """Let go of the draws of generators that no adapter has any more."""
        for generator in self._held.keys() - set(generators):
            del self._held[generator]

    def state(self, generators: Sequence[torch.Generator]) -> tuple[Tensor, list[list[int]]]:
        """Return what the draws can be made from again: (adapters, draws, bytes) uint8, and the turn of each."""
        blank = torch.zeros_like(generators[0].get_state())
        held = [
            [self._held.get(generator, {}).get(place) for place in range(self.settings.front_pool)]
            for generator in generators
        ]
        states = torch.stack([torch.stack([draw.state if draw else blank for draw in draws]) for draws in held])
        return states, [[draw.turn if draw else _NEVER for draw in draws] for draws in held]

    def restore(self, generators: Sequence[torch.Generator], states: Tensor, turns: Sequence[Sequence[int]]) -> None:
        """Hold what `state` returned; the fronts are computed again when their turn comes."""
        for generator, rows, own in zip(generators, states, turns, strict=True):
            self._held[generator] = {
                place: _Draw(turn, rows[place].clone()) for place, turn in enumerate(own) if turn != _NEVER
            }


def _visit(step: int, key: str, settings: TrainSettings) -> tuple[bool, int, int]:
    """Return whether a step makes its draw anew, the draw's place, and the how manieth of its adapter it is."""
    size = settings.front_pool
    round_, place = divmod(step, size)
    generation, repetition = divmod(round_, settings.front_uses)
    if repetition:
        order = torch.randperm(size, generator=seeded(f"{key} fronts", settings.seed, round_))
        place = int(order[place])
    return not repetition, place, generation * size + place
