"""Colours carried over: exact in mean and covariance, on the result and in every step of the sampling."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from blora.benchmark.rows import check_rows
from blora.errors import SettingsError
from blora.metrics.palette_distance import colour_distance
from blora.models.model import Base
from blora.sampling.colour_transfer import (
    MAX_GAIN,
    Palette,
    _to_rgb,
    linear_map,
    moments,
    subject_mask,
    to_oklab,
    transfer_colours,
)
from blora.sampling.draw import Draw
from blora.sampling.palette_guidance import Steering
from blora.sampling.sample import sample, sample_latents
from blora.sampling.scheduler import make_sampler
from tests.blora.sampling.test_sample import QUICK
from tests.tiny import RESOLUTION_PX, picture


def muted(seed: int, mean: tuple[float, float, float], spread: float = 0.03) -> np.ndarray:
    """A picture whose colours lie well inside sRGB, around a mean in OKLab."""
    lab = np.array(mean) + spread * np.random.default_rng(seed).standard_normal((24, 32, 3)) * (1, 0.5, 0.3)
    return _to_rgb(lab)


def disc(ink: tuple[int, int, int], paper: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A disc on plain paper, and where it is."""
    rows, columns = np.mgrid[:48, :48]
    inside = (rows - 24) ** 2 + (columns - 24) ** 2 < 12**2
    return np.where(inside[..., None], ink, paper).astype(np.uint8), inside


def test_oklab_knows_its_published_values_and_comes_back() -> None:
    # Ottosson 2020: white is (1, 0, 0); pure red 0.628, 0.225, 0.126.
    lab = to_oklab(np.array([[[255, 255, 255], [255, 0, 0]]], np.uint8))[0]
    np.testing.assert_allclose(lab, [[1, 0, 0], [0.628, 0.2249, 0.1258]], atol=1e-3)
    rgb = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    assert np.abs(_to_rgb(to_oklab(rgb)).astype(int) - rgb).max() <= 1


def test_a_transfer_carries_mean_and_covariance_over() -> None:
    one, other = muted(0, (0.6, 0.02, 0.03)), muted(1, (0.7, -0.05, 0.04), 0.04)
    mean, covariance = moments(to_oklab(transfer_colours(one, other)))
    wanted_mean, wanted_covariance = moments(to_oklab(other))
    np.testing.assert_allclose(mean, wanted_mean, atol=1e-3)  # 8 bits round to about this
    np.testing.assert_allclose(covariance, wanted_covariance, atol=3e-5)
    before = moments(to_oklab(one))
    assert np.abs(before[0] - wanted_mean).max() > 0.05 and np.abs(before[1] - wanted_covariance).max() > 1e-4


def test_the_amount_goes_from_nothing_to_all() -> None:
    one, other = muted(0, (0.6, 0.02, 0.03)), muted(1, (0.5, -0.05, 0.04))
    apart = [colour_distance(transfer_colours(one, other, amount), other) for amount in (0.0, 0.5, 1.0)]
    assert apart[0] == pytest.approx(colour_distance(one, other), abs=0.2)
    assert apart[0] > 1.8 * apart[1] > 3 * apart[2]


def test_the_map_is_exact_until_it_would_stretch_too_much() -> None:
    draw = np.random.default_rng(0)
    source, target = (a @ a.T + 0.5 * np.eye(4) for a in draw.standard_normal((2, 4, 4)))
    mapped = linear_map(source, target)
    np.testing.assert_allclose(mapped @ source @ mapped.T, target, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(mapped, mapped.T, atol=1e-9)
    flat = linear_map(np.zeros((3, 3)), np.eye(3))
    assert np.linalg.eigvalsh(flat).max() <= MAX_GAIN + 1e-9


def test_a_mask_is_changed_inside_and_left_alone_outside() -> None:
    drawn, inside = disc((40, 60, 200), (250, 240, 200))
    target, _ = disc((200, 40, 40), (10, 10, 10))
    kept = Palette(target, "subject").applied(drawn)
    assert np.array_equal(kept[~inside], _to_rgb(to_oklab(drawn))[~inside])
    np.testing.assert_allclose(kept[24, 24].astype(int), (200, 40, 40), atol=3)
    everywhere = Palette(target, "transfer").applied(drawn)
    assert np.abs(everywhere[0, 0].astype(int) - drawn[0, 0]).max() > 50


def test_the_subject_is_what_stands_out_from_the_border() -> None:
    drawn, inside = disc((40, 60, 200), (250, 240, 200))
    mask = subject_mask(drawn)
    assert (mask[inside] == 1).all() and (mask[~inside] == 0).all()
    assert (subject_mask(np.full((16, 16, 3), 90, np.uint8)) == 1).all(), "nothing stands out: all is subject"


def test_masks_that_fit_nothing_are_refused() -> None:
    for mask in (np.zeros((24, 32)), np.ones((4, 4))):
        with pytest.raises(ValueError, match="mask"):
            transfer_colours(muted(0, (0.6, 0, 0)), muted(1, (0.5, 0, 0)), mask=mask)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_a_steered_prediction_says_a_picture_with_the_targets_moments(kind: str) -> None:
    torch.manual_seed(0)
    clean, noise, signal = torch.randn(2, 4, 16, 16) * 0.7, torch.randn(2, 4, 16, 16), 0.3
    seen = signal**0.5 * clean + (1 - signal) ** 0.5 * noise
    said = {"epsilon": noise, "v_prediction": signal**0.5 * noise - (1 - signal) ** 0.5 * clean, "sample": clean}[kind]
    draw = np.random.default_rng(1)
    root = draw.standard_normal((4, 4))
    mean, covariance = draw.standard_normal(4), root @ root.T * 0.2 + 0.3 * np.eye(4)
    steered = Steering([(mean, covariance, 1.0), None], kind)(said, seen, signal)
    assert torch.equal(steered[1], said[1])
    back = {
        "epsilon": (seen - (1 - signal) ** 0.5 * steered) / signal**0.5,
        "v_prediction": signal**0.5 * seen - (1 - signal) ** 0.5 * steered,
        "sample": steered,
    }[kind]
    found = moments(back[0].permute(1, 2, 0).double().numpy())
    np.testing.assert_allclose(found[0], mean, atol=1e-4)
    np.testing.assert_allclose(found[1], covariance, atol=1e-3)


@pytest.mark.parametrize("name", ["euler", "ddim", "dpm++"])
def test_the_share_of_signal_is_that_of_what_the_unet_sees(base: Base, name: str) -> None:
    sampler = make_sampler(base.scheduler_config, name, 10)
    noise = torch.randn(1, 4, 64, 64, generator=torch.Generator().manual_seed(0))
    latents = sampler.first(noise)
    for timestep in sampler.timesteps:
        signal = sampler.signal(timestep)
        scaled = sampler.scale(latents, timestep)
        # Told that the picture is empty (x0 = 0), what the UNet sees is noise alone.
        assert float(scaled.var()) == pytest.approx(1 - signal, rel=0.05)
        latents = sampler.step(scaled / (1 - signal) ** 0.5, timestep, latents, [torch.Generator()])


def test_guidance_leads_to_the_palette_and_leaves_the_neighbours_alone(base: Base) -> None:
    target = picture(5)
    plain = [Draw(None, None, "a", seed) for seed in (1, 2)]
    guided = [replace(plain[0], palette=Palette(target, "guidance", 0.5)), plain[1]]
    settings = QUICK.model_copy(update={"batch_size": 2, "steps": 6})
    before, after = sample_latents(base, plain, settings), sample_latents(base, guided, settings)
    assert torch.equal(before[1], after[1])
    wanted = base.encode_image_moments(target)[0][0].mean(dim=(1, 2))
    gaps = [float((latents[0].mean(dim=(1, 2)) - wanted).norm()) for latents in (before, after)]
    assert gaps[1] < 0.2 * gaps[0]


def test_a_palette_of_no_amount_changes_no_bit_and_one_out_of_range_is_refused(base: Base) -> None:
    plain = Draw(None, None, "a", 1)
    off = replace(plain, palette=Palette(picture(5), "guidance", 0.0))
    assert torch.equal(sample_latents(base, [plain], QUICK), sample_latents(base, [off], QUICK))
    with pytest.raises(SettingsError, match=r"palette\.amount"):
        sample_latents(base, [replace(plain, palette=Palette(picture(5), "transfer", 1.5))], QUICK)


def test_a_drawn_picture_gets_the_colours_of_another(base: Base) -> None:
    plain, target = Draw(None, None, "a", 1), picture(5)
    drawn, kept = sample(base, [plain, replace(plain, palette=Palette(target))], QUICK)
    assert kept.shape == (RESOLUTION_PX, RESOLUTION_PX, 3)
    assert colour_distance(kept, target) < 0.7 * colour_distance(drawn, target)


def test_rows_of_colour_are_asked_for_with_an_amount() -> None:
    assert check_rows(["own_style:0.3", "blora", "transfer", "own_style:0.45"]) == (
        *("blora", "own_style:0.3", "transfer", "own_style:0.45", "real"),
    )
    for bad in ("own_style:2", "transfer:x", "blora:0.5", "colour"):
        with pytest.raises(SettingsError, match="unknown row"):
            check_rows([bad])
