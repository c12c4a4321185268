"""What a picture was drawn with, in the text that AUTOMATIC1111's web UI began and image browsers read.

It stands in a PNG under the key ``parameters``: the prompt, a line with the negative prompt, a line of settings.

    A [v] in [v] style
    Negative prompt: blurry
    Steps: 30, Sampler: Euler, CFG scale: 5, Seed: 7, Size: 1024x1024, Model: stable-diffusion-xl-base-1.0, ...

Readers part it at the words "Negative prompt:" and at line ends, and settings at every comma and colon.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from blora.bases.spec import parse_base
from blora.sampling.scheduler import SHORT_NAMES
from blora.settings.sampling import SampleSettings

__all__ = ["KEY", "generation_text"]

KEY: Final = "parameters"
"""Where the text stands in a PNG."""

_NEGATIVE: Final = "Negative prompt:"

_SAMPLERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "DDIMScheduler": "DDIM",
        "DPMSolverMultistepScheduler": "DPM++ 2M",
        "DPMSolverSinglestepScheduler": "DPM++ 2S",
        "EulerAncestralDiscreteScheduler": "Euler a",
        "EulerDiscreteScheduler": "Euler",
        "HeunDiscreteScheduler": "Heun",
        "KDPM2AncestralDiscreteScheduler": "DPM2 a",
        "KDPM2DiscreteScheduler": "DPM2",
        "LCMScheduler": "LCM",
        "LMSDiscreteScheduler": "LMS",
        "PNDMScheduler": "PLMS",
        "UniPCMultistepScheduler": "UniPC",
    }
)
"""What readers call the schedulers of diffusers; others keep the name of their class."""


def generation_text(
    prompt: str,
    negative_prompt: str,
    seed: int,
    settings: SampleSettings,
    *,
    base: str,
    base_scheduler: str,
    more: Mapping[str, object] = MappingProxyType({}),
) -> str:
    """Return the text of one picture.

    Args:
        prompt: As it was drawn.
        negative_prompt: What guidance led away from; empty for nothing.
        seed: The user's seed.
        settings: How it was drawn.
        base: The base model as it was asked for; of its parts the model is told, of a path the last name alone.
        base_scheduler: The class of the base's own scheduler.
        more: Further settings by their names, which readers pass on as they are.
    """
    scheduler = base_scheduler if settings.scheduler == "base" else SHORT_NAMES.get(settings.scheduler)
    scheduler = scheduler or settings.scheduler
    told: dict[str, object] = {
        "Steps": settings.steps,
        "Sampler": _SAMPLERS.get(scheduler, scheduler),
        **({"Schedule type": "Karras"} if settings.scheduler_options.get("use_karras_sigmas") else {}),
        "CFG scale": f"{settings.guidance_scale:g}",
        "Seed": seed,
        "Size": f"{settings.width_px}x{settings.height_px}",
        "Model": _model_name(base),
        **more,
        "Version": "blora",
    }
    settings_line = ", ".join(f"{name}: {_value(value)}" for name, value in told.items())
    # ComfyUI makes nothing of a text without the negative prompt's line, even where it says nothing.
    return "\n".join([_plain(prompt), f"{_NEGATIVE} {_plain(negative_prompt)}", settings_line])


def _plain(text: str) -> str:
    """A prompt on one line, in which nobody finds the words that part it from the next."""
    return " ".join(text.split()).replace(_NEGATIVE, "Negative prompt :")


def _value(value: object) -> str:
    """A setting in which nobody finds the end of it."""
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return re.sub(r"[\s,:]+", " ", text).strip()


def _model_name(base: str) -> str:
    """What programs call the model: a repository without its owner, a file without its extension."""
    place = parse_base(base).model.partition("#")[0].partition("@")[0]
    return place.rstrip("/").rpartition("/")[2].removesuffix(".safetensors")
