"""FLUX.1: a transformer of double- and single-stream blocks over packed latents and T5's tokens, by flow matching.

Guidance is distilled: FLUX.1-dev is told its scale as a number and has no negative row, and FLUX.1-schnell is told
nothing. Latents stay (channels, height, width) everywhere; squares of 2 x 2 become tokens in the call alone.

Source: diffusers 0.42.1, ``pipeline_flux.py`` (prompts, packing, positions, shift of timesteps, guidance) and its
``train_dreambooth_lora_flux.py`` @ 0050dea (noisy latents, target, numbers that the transformer is told).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from blora.bases.locate import Located
from blora.bases.parts import load_part
from blora.bases.topology import read_config
from blora.models.families.family import Course, Objective
from blora.models.families.text_encoders import TextEncoders, quietly

__all__ = ["FLUX_FAMILY", "Flux", "FluxTextEncoders"]

_TIMESTEPS: Final = 1000
"""What diffusers multiplies and divides times by, whatever a scheduler's configuration says."""
_PATCH: Final = 2
"""Latents of a token, along a side."""
_TOKENS: Final = 512
_TOKENS_OF_FEW_STEPS: Final = 256
"""What T5 reads of a prompt where its tokenizer allows as much: of FLUX.1-dev, and of -schnell, which was made for few
steps. Source: black-forest-labs/flux @ 05e2378, ``cli.py``, and the page of FluxPipeline in diffusers' documentation
("max_sequence_length cannot be more than 256"); the pipeline itself does not know which of the two it draws with, and
takes 512 where nobody says otherwise."""


class FluxTextEncoders(TextEncoders):
    """CLIP's text model for one vector a prompt, and T5's encoder for its tokens."""

    def load(self) -> list[tuple[Any, Any]]:
        """Return both tokenizers, each with its encoder: CLIP, then T5, which in half precision runs in bf16 alone.

        T5 overflows in fp16.
        """
        from transformers import AutoTokenizer, CLIPTextModel, CLIPTokenizer, T5EncoderModel

        if not self._pairs:
            exact = self.number_format == torch.float32
            kinds = (
                ("", CLIPTokenizer, CLIPTextModel, self.number_format),
                ("_2", AutoTokenizer, T5EncoderModel, torch.float32 if exact else torch.bfloat16),
            )
            with quietly():
                for suffix, tokenizers, kind, number_format in kinds:
                    tokenizer = tokenizers.from_pretrained(self._located.folder / f"tokenizer{suffix}")
                    part = f"text_encoder{suffix}"
                    encoder = load_part(kind, self._located, part, self._runs_on, dtype=number_format)
                    self._pairs.append((tokenizer, encoder))
        return self._pairs

    def _embed(self, prompt: str) -> tuple[Tensor, Tensor]:
        """Return T5's tokens (1, tokens, context) and CLIP's vector (1, pooled), as FluxPipeline makes them."""
        (clip_words, clip), (t5_words, t5) = self.load()
        length, tokens = len(t5_words(prompt).input_ids), min(self._tokens, int(t5_words.model_max_length))
        if length > tokens:
            warnings.warn(f"prompt cut to {tokens - 1} of {length - 1} tokens: {prompt!r}", stacklevel=6)
        ids = [
            words(prompt, padding="max_length", max_length=most, truncation=True, return_tensors="pt").input_ids
            for words, most in ((clip_words, int(clip_words.model_max_length)), (t5_words, tokens))
        ]
        with torch.no_grad():
            pooled: Tensor = clip(ids[0].to(self._runs_on)).pooler_output
            hidden: Tensor = t5(ids[1].to(self._runs_on))[0]
        return hidden, pooled

    @property
    def _tokens(self) -> int:
        """Told by two facts of schnell's repository: no guidance, and no shift of timesteps by a picture's size.

        One alone is no schnell: dev without its distilled guidance, as fine-tunes have it, keeps dev's scheduler.
        """
        folder, spec = self._located.folder, self._located.spec
        guided = read_config(folder / "transformer" / "config.json", spec).get("guidance_embeds")
        shifted = read_config(folder / "scheduler" / "scheduler_config.json", spec).get("use_dynamic_shifting")
        return _TOKENS if guided or shifted else _TOKENS_OF_FEW_STEPS


@dataclass(frozen=True)
class Flux:
    """What FLUX.1 answers; see `Family`."""

    part: str = "transformer"
    drawn_multiple: int = _PATCH
    shares_front: bool = False
    hears_by_block: bool = False

    def denoiser_class(self) -> Any:
        """Return diffusers' transformer."""
        from diffusers import FluxTransformer2DModel

        return FluxTransformer2DModel

    def encoders(self, located: Located, device: torch.device, dtype: torch.dtype) -> TextEncoders:
        """Return CLIP and T5."""
        return FluxTextEncoders(located, device, dtype)

    def latent_channels(self, config: Any) -> int:
        """Return what a token holds of each of its four latents."""
        return int(config.in_channels) // _PATCH**2

    def trained_multiple(self, config: Any) -> int:
        """Return a token's latents along a side."""
        return _PATCH

    def guides_by_rows(self, config: Any) -> bool:
        """Return False: guidance is a number that the transformer is told, if anything."""
        return False

    def objective(self, scheduler: Mapping[str, Any]) -> Objective:
        """Return "flow"."""
        return "flow"

    def course(self, scheduler: Mapping[str, Any]) -> Course:
        """Return straight lines from latents to noise, at the scheduler's own shares of noise for training.

        These are evenly spaced, and shifted where the scheduler has a shift for all sizes (FLUX.1-schnell's is 1).
        """
        from diffusers import FlowMatchEulerDiscreteScheduler

        schedulers: Any = FlowMatchEulerDiscreteScheduler  # diffusers' configuration mixin has no types
        sigma: Tensor = schedulers.from_config(scheduler).sigmas.flip(0)
        return Course(1 - sigma, sigma, sigma * _TIMESTEPS)

    def timing(self, scheduler: Mapping[str, Any], steps: int, height: int, width: int) -> dict[str, Any]:
        """Return evenly spaced shares of noise, and the shift that FLUX.1-dev's scheduler wants for a size."""
        import numpy as np
        from diffusers.pipelines.flux.pipeline_flux import calculate_shift

        names = ("base_image_seq_len", "max_image_seq_len", "base_shift", "max_shift")
        said = [scheduler.get(name, usual) for name, usual in zip(names, (256, 4096, 0.5, 1.15), strict=True)]
        shift = calculate_shift(height // _PATCH * (width // _PATCH), *said)
        return {"sigmas": np.linspace(1.0, 1 / steps, steps), "mu": shift}

    def noise_shift(self, scheduler: Mapping[str, Any], height: int, width: int) -> float:
        """Return what FLUX.1-dev's scheduler makes of a size; 1 for FLUX.1-schnell's, whose shift is one for all."""
        if not scheduler.get("use_dynamic_shifting"):
            return 1.0
        return float(math.exp(self.timing(scheduler, 1, height, width)["mu"]))

    def size_told(
        self, original_px: tuple[int, int], crop_px: tuple[int, int], target_px: tuple[int, int]
    ) -> list[float]:
        """Return nothing."""
        return []

    def conditions(self, config: Any, pooled: Tensor, sizes: Tensor, guidance_scale: float) -> dict[str, Tensor]:
        """Return the pooled prompt, and the scale of guidance where the transformer takes one."""
        told = {"pooled_projections": pooled}
        if config.guidance_embeds:
            told["guidance"] = torch.full((len(pooled),), guidance_scale, device=pooled.device)
        return told

    def predict(
        self, denoiser: Any, noisy: Tensor, told: Tensor, hidden: Tensor, conditions: Mapping[str, Tensor]
    ) -> Tensor:
        """Pack latents into tokens, call the transformer, unpack what it says."""
        rows, channels, height, width = noisy.shape
        down, across = height // _PATCH, width // _PATCH
        squares = noisy.view(rows, channels, down, _PATCH, across, _PATCH).permute(0, 2, 4, 1, 3, 5)
        output = denoiser(
            hidden_states=squares.reshape(rows, down * across, channels * _PATCH**2),
            timestep=told.expand(rows).to(noisy.dtype) / _TIMESTEPS,
            encoder_hidden_states=hidden,
            txt_ids=torch.zeros(hidden.shape[1], 3, device=noisy.device, dtype=noisy.dtype),
            img_ids=_places(down, across, noisy),
            return_dict=False,
            **conditions,
        )
        squares = output[0].view(rows, down, across, channels, _PATCH, _PATCH).permute(0, 3, 1, 4, 2, 5)
        return squares.reshape(noisy.shape)


def _places(down: int, across: int, like: Tensor) -> Tensor:
    """Return each token's place, (tokens, 3): nothing, row, column."""
    places = torch.zeros(down, across, 3, device=like.device, dtype=like.dtype)
    places[..., 1] += torch.arange(down, device=like.device)[:, None]
    places[..., 2] += torch.arange(across, device=like.device)[None, :]
    return places.reshape(down * across, 3)


FLUX_FAMILY: Final = Flux()
"""FLUX.1."""
