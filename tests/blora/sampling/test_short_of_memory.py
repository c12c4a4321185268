"""Drawing where memory is short: fewer pictures at once, then tiles, then an error of one picture alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from blora.adapters.adapter import Adapter
from blora.errors import BloraError, OutOfMemoryError
from blora.models.model import Base
from blora.sampling.denoise import latent_shape
from blora.sampling.draw import Draw
from blora.sampling.sample import sample, sample_each, sample_latents
from blora.sampling.scheduler import generator_of
from blora.sampling.step_report import SampleReport
from tests.blora.adapters.test_packed import random_adapter
from tests.blora.sampling.test_sample import ACROSS_BATCH_SIZES, QUICK

pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # diffusers with a newer numpy


@pytest.fixture(scope="module")
def adapters(base: Base) -> list[Adapter]:
    """Adapters of one rank."""
    return [random_adapter(base, rank=4, seed=seed) for seed in range(3)]


class Scarce:
    """A part of the model that runs out of memory as torch reports it."""

    def __init__(self, module: torch.nn.Module, fits: Callable[[torch.Tensor], bool]) -> None:
        """Let calls pass whose first tensor fits."""
        self.calls: list[int] = []  # rows of each

        def check(_: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> None:
            self.calls.append(len(args[0]))
            if not fits(args[0]):
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

        self._handle = module.register_forward_pre_hook(check)

    def __enter__(self) -> Scarce:
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.remove()


def test_a_batch_that_does_not_fit_is_drawn_in_halves(base: Base, adapters: list[Adapter]) -> None:
    draws = [Draw(adapters[seed % 3], None, "a", seed) for seed in range(5)]
    settings = QUICK.model_copy(update={"batch_size": 4, "steps": 2})
    whole, reports = sample_latents(base, draws, settings), list[SampleReport]()
    with Scarce(base.unet, lambda rows: len(rows) <= 2) as unet:  # guided: one picture
        drawn = sample_latents(base, draws, settings, on_step=reports.append)
    assert unet.calls == [8, 4, *[2] * 10], "halved until it fits, and no step is tried in vain after that"
    torch.testing.assert_close(drawn, whole, atol=ACROSS_BATCH_SIZES, rtol=0)
    assert (reports[-1].step, reports[-1].steps, reports[-1].finished) == (10, 10, 5)


def test_a_picture_that_does_not_fit_is_decoded_in_tiles(base: Base) -> None:
    settings = QUICK.model_copy(update={"steps": 1, "width_px": 512, "height_px": 288})
    draws = [Draw(None, None, "a", seed) for seed in range(2)]
    try:
        with Scarce(base.vae.decoder, lambda latents: max(latents.shape[-2:]) <= 64) as decoder:
            first, second = sample_each(base, draws, settings)
        assert not isinstance(first, BloraError) and first.shape == (288, 512, 3) and not isinstance(second, BloraError)
        assert len(decoder.calls) == 1 + 2 * 6, "once in vain; after that, three tiles by two each"
    finally:
        base.release_vae()


def test_only_a_picture_that_fits_in_no_way_is_an_error_and_only_its_own(base: Base, adapters: list[Adapter]) -> None:
    draws = [Draw(adapters[0], None, "a", seed) for seed in range(3)]
    expected = sample(base, draws, QUICK.model_copy(update={"batch_size": 1}))
    wanted = torch.randn(latent_shape(base, QUICK), generator=generator_of(1)).flatten()

    def is_another(latents: torch.Tensor) -> bool:
        return max(torch.cosine_similarity(latent.flatten(), wanted, dim=0) for latent in latents) < 0.99

    with Scarce(base.unet, is_another):
        drawn = sample_each(base, draws, QUICK)
        with pytest.raises(OutOfMemoryError, match=r"does not fit on the device: received 1 of 32 x 32 px"):
            sample(base, draws, QUICK)
    assert isinstance(drawn[1], OutOfMemoryError) and drawn[1].__context__ is None, "nothing holds the failed attempt"
    for number in (0, 2):
        assert np.abs(np.asarray(drawn[number], int) - expected[number]).max() <= 1


def test_a_picture_that_fits_not_even_in_tiles_is_an_error_and_only_its_own(base: Base) -> None:
    settings = QUICK.model_copy(update={"steps": 1, "batch_size": 3})
    draws, calls = [Draw(None, None, "a", seed) for seed in range(3)], list[int]()
    expected = sample(base, draws, settings)

    def fits(latents: torch.Tensor) -> bool:
        calls.append(len(latents))
        return len(calls) not in (2, 3)  # the second picture, as a whole and then in tiles

    try:
        with Scarce(base.vae.decoder, fits):
            drawn = sample_each(base, draws, settings)
    finally:
        base.release_vae()
    assert isinstance(drawn[1], OutOfMemoryError) and "decoding a picture" in str(drawn[1])
    assert all(np.array_equal(np.asarray(drawn[number]), expected[number]) for number in (0, 2))
