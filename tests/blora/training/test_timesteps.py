"""Which timesteps a training draws, against diffusers' own functions, and that earlier draws are as they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from diffusers.training_utils import compute_density_for_timestep_sampling
from numpy.typing import NDArray

from blora.errors import SettingsError
from blora.models.model import Base, load_base
from blora.settings.resolve import resolve
from blora.settings.training import TrainSettings
from blora.training.items import TrainItem
from blora.training.noise import draw_noise, seeded
from blora.training.optim import FlatFactors
from blora.training.photos import Photo, prepare_photos
from blora.training.stepper import Stepper
from blora.training.train import train
from tests.blora.small_training import distance, item, recipe
from tests.tiny import picture
from tests.tiny_flux import save_tiny_flux

DRAWS = 20_000
APART = 0.0195
"""Largest difference of two empirical distributions of `DRAWS` each that one in a thousand equal ones exceed."""


def drawn(shift: float = 1.0, **changes: Any) -> NDArray[np.float64]:
    """Timesteps of 1000 as our training draws them, as shares of noise."""
    nothing = torch.zeros(1, 1, 1, 1)
    settings = TrainSettings(batch_size=200, **changes)
    photos, generator = (Photo(nothing, nothing, nothing),), seeded("k", 0)
    rows = [draw_noise(generator, photos, step, settings, 1000, "k", [shift]) for step in range(DRAWS // 200)]
    return np.array([(noise.timestep + 1) / 1000 for step in rows for noise in step])


def apart(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """The largest difference of two empirical distributions, Kolmogorov and Smirnov's."""
    places = np.sort(np.concatenate([first, second]))
    ranks = [np.searchsorted(np.sort(one), places, side="right") / len(one) for one in (first, second)]
    return float(np.abs(ranks[0] - ranks[1]).max())


@pytest.mark.parametrize(
    ("changes", "scheme", "mean", "std"),
    [
        ({}, "none", None, None),
        ({"timestep_sampling": "logit_normal"}, "logit_normal", 0.0, 1.0),
        (
            {"timestep_sampling": "logit_normal", "timestep_mean": 0.8, "timestep_std": 0.5},
            "logit_normal",
            0.8,
            0.5,
        ),
    ],
)
@pytest.mark.parametrize("mu", [0.0, 1.15])
def test_timesteps_are_distributed_as_diffusers_draws_and_shifts_them(
    changes: dict[str, Any], scheme: str, mean: float | None, std: float | None, mu: float
) -> None:
    scheduler: Any = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    generator = torch.Generator().manual_seed(1)
    share = compute_density_for_timestep_sampling(scheme, DRAWS, mean, std, generator=generator)  # type: ignore[arg-type]
    theirs = scheduler.time_shift(mu, 1.0, share.double()).numpy()
    ours = drawn(float(np.exp(mu)), **changes)
    assert 0 < ours.min() and ours.max() <= 1
    assert apart(ours, np.ceil(theirs * 1000) / 1000) < APART
    assert apart(drawn(1.0), theirs) > 3 * APART or (scheme, mu) == ("none", 0.0), "the comparison can tell them apart"


def test_crowded_timesteps_are_moved_like_any_others() -> None:
    crowded, moved = drawn(timestep_power=4.0), drawn(3.0, timestep_power=4.0)
    assert apart(np.ceil(1000 * 3 * crowded / (1 + 2 * crowded)) / 1000, moved) < 2 * APART  # each a thousandth coarse
    assert moved.mean() > crowded.mean()


def test_a_pictures_own_size_says_how_far(flux: Base) -> None:
    settings = recipe(timestep_shift="resolution", crop="none", timestep_sampling="logit_normal")
    photos = prepare_photos(flux, (picture(0, 32, 32), picture(1, 32, 64)), settings)
    with Stepper(flux, [photos], FlatFactors({}, 1, 4), settings) as stepper:
        tokens = [photo.mean.shape[-1] * photo.mean.shape[-2] // 4 for photo in photos]
        assert tokens == [16, 32]
        assert stepper.shifts == [[pytest.approx(np.exp(calculate_shift(count))) for count in tokens]]
    plain = settings.model_copy(update={"timestep_shift": 1.0})
    shifted, bare = (train(flux, [item(0)], one)[0] for one in (settings, plain))
    assert distance(shifted, bare) > 1e-3
    sides = TrainItem((picture(0, 32, 32), picture(1, 32, 64)), "two")
    alone, beside = train(flux, [sides], settings)[0], train(flux, [sides, item(3)], settings)[0]
    assert distance(alone, beside) < 1e-3


def test_a_base_with_one_shift_for_all_sizes_has_no_other(tmp_path: Path) -> None:
    schnell = load_base(save_tiny_flux(tmp_path / "schnell", guided=False))
    settings = recipe(timestep_shift="resolution", timestep_sampling="logit_normal")
    with Stepper(
        schnell, [prepare_photos(schnell, (picture(0),), settings)], FlatFactors({}, 1, 4), settings
    ) as stepper:
        assert stepper.shifts == [[1.0]]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [158, 895, 576, 234, 516, 8, 984, 78]),
        ({"timestep_power": 4.0}, [882, 514, 999, 999, 974, 62, 384, 999]),
        ({"timestep_sampling": "logit_normal"}, [163, 275, 566, 583, 88, 843, 612, 400]),
    ],
)
def test_earlier_draws_are_as_they_were(changes: dict[str, Any], expected: list[int]) -> None:
    nothing = torch.zeros(1, 1, 1, 1)
    settings = TrainSettings(batch_size=8, **changes)
    rows = draw_noise(seeded("k", 0), (Photo(nothing, nothing, nothing),), 0, settings, 1000, "k")
    assert [row.timestep for row in rows] == expected


def test_what_does_not_go_together_is_refused_and_defaults_change_no_id(base: Base) -> None:
    for said, message in (
        ({"train.timestep_mean": 0.5}, "timestep_sampling logit_normal"),
        ({"train.timestep_shift": "far"}, 'a number above 0 to 100, or "resolution"'),
    ):
        with pytest.raises(SettingsError, match=message):
            resolve("paper", said)
    with pytest.raises(SettingsError, match=r"timestep_shift: the base does not learn by flow matching"):
        train(base, [item(0)], recipe(timestep_shift="resolution"))
    plain = TrainSettings().identity()
    assert TrainSettings(timestep_shift=1, timestep_mean=0, timestep_std=1).identity() == plain
    assert TrainSettings(timestep_shift="resolution").identity() == plain | {"timestep_shift": "resolution"}
