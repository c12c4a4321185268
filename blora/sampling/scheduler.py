"""The sampler: any scheduler of diffusers that fits the base model; where it draws noise, each row has its generator.

A scheduler is built from the base's own configuration, so that prediction type, noise schedule and zero terminal
signal-to-noise ratio are the base's. A class that would silently ignore one of them is refused.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import diffusers
import numpy as np
import torch
from torch import Tensor

from blora.errors import SettingFault, SettingsError

__all__ = ["SHORT_NAMES", "Sampler", "generator_of", "make_sampler"]

SHORT_NAMES: Final[Mapping[str, str]] = MappingProxyType(
    {"euler": "EulerDiscreteScheduler", "ddim": "DDIMScheduler", "dpm++": "DPMSolverMultistepScheduler"}
)
"""Names for people; every other name is that of a class in diffusers."""

_ONE_NOISE_FOR_ALL: Final = ("CosineDPMSolverMultistepScheduler", "DPMSolverSDEScheduler")
"""These draw from a Brownian tree seeded once a batch, so that a picture depends on its neighbours."""

_OPTIONS: Final = "sample.scheduler_options"
_THE_BASES: Final = ("prediction_type", "num_train_timesteps", "trained_betas")
"""What the UNet was trained with."""

_FLOW: Final = "FlowMatch"
"""How diffusers' schedulers of flow matching begin."""

_SEED_BITS: Final = 32
"""What torch's CPU generator keeps of a seed; it drops the rest without a word."""


class Sampler:
    """One scheduler in the course of one batch; it has state, so a batch needs a fresh one."""

    def __init__(
        self,
        scheduler: Any,
        steps: int,
        device: torch.device,
        eta: float | None = None,
        timing: Mapping[str, Any] | None = None,
    ) -> None:
        """Set the timesteps of ``steps`` denoising steps (second-order schedulers visit some of them twice).

        Args:
            scheduler: Of diffusers.
            steps: Denoising steps.
            device: Where the latents are.
            eta: How much of the noise is drawn anew in each step, 0 to 1; None for the scheduler's own default.
            timing: What else its ``set_timesteps`` is told.
        """
        scheduler.set_timesteps(steps, device=device, **(timing or {}))
        self._scheduler = scheduler
        self._eta: dict[str, Any] = {} if eta is None else {"eta": eta}
        self._takes_generators = "generator" in inspect.signature(scheduler.step).parameters
        self.timesteps: Tensor = scheduler.timesteps

    def first(self, noise: Tensor) -> Tensor:
        """Scale standard normal noise (rows, c, h, w) to what the first step expects."""
        return noise * float(self._scheduler.init_noise_sigma)

    def scale(self, latents: Tensor, timestep: Tensor) -> Tensor:
        """Scale latents to what the UNet expects at this timestep."""
        scaled: Tensor = self._scheduler.scale_model_input(latents, timestep)
        return scaled

    def signal(self, timestep: Tensor) -> float:
        """Share of signal in what the UNet sees at this timestep, 0 to 1; between two timesteps, by their sigmas."""
        return 1 / (1 + self.sigma(timestep) ** 2)

    def sigma(self, timestep: Tensor) -> float:
        """Noise level at this timestep: standard deviation of the noise over that of the picture."""
        shares = self._scheduler.alphas_cumprod.double().cpu().numpy()
        sigmas = np.sqrt((1 - shares) / np.maximum(shares, 1e-12))
        return float(np.interp(float(timestep), np.arange(len(sigmas)), sigmas))

    def step(
        self, prediction: Tensor, timestep: Tensor, latents: Tensor, generators: Sequence[torch.Generator]
    ) -> Tensor:
        """Take one step; noise of stochastic schedulers comes from each row's own generator."""
        extra = self._eta | ({"generator": list(generators)} if self._takes_generators else {})
        stepped: Tensor = self._scheduler.step(prediction, timestep, latents, return_dict=False, **extra)[0]
        return stepped


class FlowSampler(Sampler):
    """One scheduler of flow matching: its timesteps are the share of noise, 0 to 1, times their number."""

    def first(self, noise: Tensor) -> Tensor:
        """Return the noise itself: the first step begins with nothing else."""
        return noise

    def scale(self, latents: Tensor, timestep: Tensor) -> Tensor:
        """Return the latents as they are."""
        return latents

    def sigma(self, timestep: Tensor) -> float:
        """Noise level at this timestep: the share of noise over that of the picture."""
        share = float(timestep) / float(self._scheduler.config.num_train_timesteps)
        return share / max(1 - share, 1e-6)


def make_sampler(
    config: Mapping[str, Any],
    name: str,
    steps: int,
    device: torch.device | str = "cpu",
    options: Mapping[str, Any] | None = None,
    timing: Mapping[str, Any] | None = None,
) -> Sampler:
    """Build a scheduler from a base's scheduler configuration.

    Args:
        config: The base's scheduler configuration, with its class under ``_class_name``.
        name: "base", a short name, or a scheduler class of diffusers.
        steps: Denoising steps.
        device: Where the latents are.
        options: Laid over the configuration, by the names of diffusers; also ``eta``, which its pipelines take.
        timing: What the family tells the scheduler beside the steps; see `Family.timing`.

    Raises:
        SettingsError: No such scheduler or option, or one that does not fit the base, or one whose noise cannot be
            drawn row by row (a picture would then depend on the rest of its batch).
    """
    class_name = str(config["_class_name"]) if name == "base" else SHORT_NAMES.get(name, name)
    if class_name in _ONE_NOISE_FOR_ALL:
        _refuse("draws one noise for the whole batch", class_name, "use EulerAncestralDiscreteScheduler or another")
    kind: Any = getattr(diffusers, class_name, None)
    if not (isinstance(kind, type) and issubclass(kind, diffusers.SchedulerMixin)):
        known = [*SHORT_NAMES, *(word for word in dir(diffusers) if word.endswith("Scheduler"))]
        near = difflib.get_close_matches(name, known, n=2)
        _refuse("unknown scheduler", name, f"did you mean {' or '.join(near)}?" if near else "use euler, ddim or dpm++")
    takes = inspect.signature(kind.__init__).parameters
    flows = str(config["_class_name"]).startswith(_FLOW)
    if flows and not (class_name.startswith(_FLOW) and {"sigmas", "mu"} <= _timing_of(kind)):
        _refuse(
            "does not know flow matching at the base's own noise levels", class_name, "leave sample.scheduler at base"
        )
    if not flows and not {"beta_schedule", "prediction_type"} <= takes.keys():
        _refuse(
            "works on another noise schedule than the base", class_name, "use a scheduler with betas, such as euler"
        )
    if config.get("rescale_betas_zero_snr") and "rescale_betas_zero_snr" not in takes:
        _refuse("ignores the base's zero terminal signal-to-noise ratio", class_name, "use euler, ddim or dpm++")
    chosen = dict(options or {})
    eta = chosen.pop("eta", None)
    _check_options(chosen, takes, class_name)
    _check_eta(eta, kind)
    try:
        built: Any = FlowSampler if flows else Sampler
        sampler: Sampler = built(kind.from_config({**config, **chosen}), steps, torch.device(device), eta, timing)
        return sampler
    except (ValueError, TypeError, NotImplementedError, ImportError) as error:
        received = f"{steps} steps{f', {chosen}' if chosen else ''}: {str(error)[:200]}"
        where = _OPTIONS if chosen else "sample.scheduler"
        raise SettingsError(
            [SettingFault(where, "not accepted", received, f"what {class_name} of diffusers accepts")]
        ) from error


def _timing_of(kind: Any) -> set[str]:
    """What a scheduler's ``set_timesteps`` takes."""
    return set(inspect.signature(kind.set_timesteps).parameters)


def _check_options(options: Mapping[str, Any], takes: Mapping[str, Any], class_name: str) -> None:
    """Refuse options that the scheduler would ignore, and those that are the base's to say."""
    faults = []
    for option, value in options.items():
        if option in _THE_BASES:
            hint = "take another base"
            faults.append(SettingFault(f"{_OPTIONS}.{option}", "is the base's own", repr(value), hint=hint))
        elif option in ("timesteps", "sigmas"):
            hint = "LCMScheduler with original_inference_steps as many as sample.steps takes 999, 749, 499, 249 of four"
            faults.append(SettingFault(f"{_OPTIONS}.{option}", "cannot be listed here", repr(value), hint=hint))
        elif option not in takes:
            near = difflib.get_close_matches(option, list(takes), n=1)
            hint = f"did you mean {near[0]}?" if near else ""
            accepted = ", ".join(sorted(takes.keys() - {"self", *_THE_BASES}))
            faults.append(
                SettingFault(f"{_OPTIONS}.{option}", f"no option of {class_name}", repr(value), accepted, hint)
            )
    if faults:
        raise SettingsError(faults)


def _check_eta(eta: Any, kind: Any) -> None:
    """Refuse an ``eta`` that is none, or that the scheduler would not ask for."""
    if eta is None:
        return
    if "eta" not in inspect.signature(kind.step).parameters:
        hint = "DDIMScheduler and TCDScheduler have one"
        raise SettingsError([SettingFault(f"{_OPTIONS}.eta", f"no option of {kind.__name__}", repr(eta), hint=hint)])
    if isinstance(eta, bool) or not isinstance(eta, int | float) or not 0 <= eta <= 1:
        raise SettingsError([SettingFault(f"{_OPTIONS}.eta", "out of range", repr(eta), "0 to 1")])


def generator_of(seed: int) -> torch.Generator:
    """Return a picture's own CPU generator: ``manual_seed(seed)``, as one would write it for diffusers.

    torch keeps 32 bits of a seed. Larger seeds are folded, so that 0 and 2**32 do not give one picture.
    """
    high, low = divmod(seed, 2**_SEED_BITS)
    return torch.Generator().manual_seed(low ^ (high * 0x9E3779B1 % 2**_SEED_BITS))


def _refuse(what: str, received: str, hint: str) -> None:
    accepted = f'"base", {", ".join(SHORT_NAMES)}, or a class of diffusers with betas and noise by row'
    raise SettingsError([SettingFault("sample.scheduler", what, received, accepted, hint)])
