"""Schedulers: any of diffusers whose rows stay apart, their options, and those that cannot be right."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from blora.bases.locate import SDXL_FOLDER
from blora.errors import SettingsError
from blora.models.model import Base
from blora.sampling.draw import Draw
from blora.sampling.sample import sample, sample_latents
from blora.sampling.scheduler import generator_of, make_sampler
from tests.blora.sampling.test_sample import ACROSS_BATCH_SIZES, QUICK

pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # diffusers with a newer numpy


@pytest.mark.parametrize(
    "name",
    [
        "DDPMScheduler",
        "EulerAncestralDiscreteScheduler",
        "KDPM2AncestralDiscreteScheduler",
        "LCMScheduler",
        "TCDScheduler",
        "SASolverScheduler",
        "HeunDiscreteScheduler",
        "LMSDiscreteScheduler",
        "PNDMScheduler",
        "UniPCMultistepScheduler",
        "DEISMultistepScheduler",
        "DPMSolverSinglestepScheduler",
    ],
)
def test_any_scheduler_keeps_rows_apart_even_one_that_draws_noise(name: str, base: Base) -> None:
    chosen = QUICK.model_copy(update={"scheduler": name, "steps": 4})
    draws = [Draw(None, None, "a", seed) for seed in (7, 8, 9)]
    together = sample_latents(base, draws, chosen)
    torch.manual_seed(99)
    last_alone = sample_latents(base, [draws[2]], chosen)
    torch.testing.assert_close(together[2:], last_alone, atol=ACROSS_BATCH_SIZES, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("DPMSolverSDEScheduler", "one noise for the whole batch"),
        ("FlowMatchEulerDiscreteScheduler", "another noise schedule"),
        ("EDMEulerScheduler", "another noise schedule"),
        ("EulerDiscretScheduler", "did you mean .*EulerDiscreteScheduler"),
        ("StableDiffusionXLPipeline", "unknown scheduler"),
    ],
)
def test_schedulers_that_cannot_be_right_are_refused(name: str, message: str, base: Base) -> None:
    with pytest.raises(SettingsError, match=message):
        sample(base, [Draw(None, None, "a", 1)], QUICK.model_copy(update={"scheduler": name}))


def test_scheduler_options_are_laid_over_the_bases_configuration(base: Base) -> None:
    plain = make_sampler(base.scheduler_config, "euler", 4)
    karras = make_sampler(base.scheduler_config, "euler", 4, options={"use_karras_sigmas": True})
    trailing = make_sampler(base.scheduler_config, "euler", 4, options={"timestep_spacing": "trailing"})
    assert not torch.equal(plain._scheduler.sigmas, karras._scheduler.sigmas)
    assert plain.timesteps[0] < 999 and trailing.timesteps.tolist() == [999, 749, 499, 249]
    fast = QUICK.model_copy(update={"scheduler_options": {"timestep_spacing": "trailing"}, "scheduler": "euler"})
    draws = [Draw(None, None, "a", 1)]
    assert not np.array_equal(sample(base, draws, fast)[0], sample(base, draws, QUICK)[0])
    assert "scheduler_options" in fast.identity() and "scheduler_options" not in QUICK.identity()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("euler", {"use_karas_sigmas": True}, "no option of EulerDiscreteScheduler.*did you mean use_karras_sigmas"),
        ("LCMScheduler", {"use_karras_sigmas": True}, "no option of LCMScheduler"),
        ("euler", {"prediction_type": "sample"}, "is the base's own"),
        ("euler", {"timestep_spacing": "widely"}, r"not accepted.*widely"),
        ("euler", {"timestep_spacing": 3}, "not accepted"),
        ("euler", {"eta": 1.0}, "no option of EulerDiscreteScheduler.*DDIMScheduler and TCDScheduler"),
        ("TCDScheduler", {"eta": 2}, "eta: out of range"),
        ("LCMScheduler", {"timesteps": "999,749"}, "cannot be listed here.*original_inference_steps"),
    ],
)
def test_scheduler_options_that_would_be_ignored_are_refused(
    base: Base, name: str, options: dict[str, object], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        make_sampler(base.scheduler_config, name, 4, options=options)


@pytest.mark.parametrize("name", ["LCMScheduler", "TCDScheduler"])
def test_more_steps_than_a_scheduler_has_are_refused_as_settings_are(base: Base, name: str) -> None:
    with pytest.raises(SettingsError, match=r"sample\.scheduler: not accepted: received 60 steps"):
        make_sampler(base.scheduler_config, name, 60)


def test_few_step_loras_get_the_timesteps_and_noise_that_their_cards_ask_for() -> None:
    """On SDXL's own scheduler configuration, against what the cards of DMD2, Hyper-SDXL and LCM-LoRA say."""
    sdxl = json.loads((SDXL_FOLDER / "scheduler" / "scheduler_config.json").read_text())
    trained = [999, 749, 499, 249]
    assert make_sampler(sdxl, "LCMScheduler", 4, options={"original_inference_steps": 4}).timesteps.tolist() == trained
    assert make_sampler(sdxl, "LCMScheduler", 4).timesteps.tolist() == [999, 759, 499, 259], "not those of DMD2"
    trailing = {"timestep_spacing": "trailing"}
    assert make_sampler(sdxl, "ddim", 4, options=trailing).timesteps.tolist() == trained
    assert make_sampler(sdxl, "euler", 8, options=trailing).timesteps.tolist() == list(range(999, 0, -125))
    some = torch.ones(1, 4, 2, 2)
    for eta, count in ((1.0, 1), (0.0, 0)):  # all of the noise anew, or none
        sampler = make_sampler(sdxl, "TCDScheduler", 4, options={"eta": eta})
        drawn = {float(sampler.step(some, sampler.timesteps[0], some, [generator_of(7)])[0, 0, 0, 0])}
        sampler = make_sampler(sdxl, "TCDScheduler", 4, options={"eta": eta})
        drawn.add(float(sampler.step(some, sampler.timesteps[0], some, [generator_of(8)])[0, 0, 0, 0]))
        assert len(drawn) == 1 + count


def test_zero_terminal_snr_is_respected_or_refused(v_base: Base) -> None:
    with pytest.raises(SettingsError, match="zero terminal signal-to-noise"):
        make_sampler(v_base.scheduler_config, "HeunDiscreteScheduler", 4)
    for name in ("base", "euler", "ddim", "dpm++"):
        scheduler = make_sampler(v_base.scheduler_config, name, 4)._scheduler
        assert scheduler.config.prediction_type == "v_prediction"
        assert scheduler.config.timestep_spacing == "trailing"
        assert scheduler.timesteps[0] == 999
        assert scheduler.alphas_cumprod[-1] < 1e-6
