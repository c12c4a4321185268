"""The parts of a base model on a device: frozen modules, and SDXL's pair of text encoders."""

from __future__ import annotations

import logging
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from blora.bases.locate import Located
from blora.bases.parts import load_part
from blora.models.families.prompt_tokens import CONTEXT_TOKENS, READ_TOKENS
from blora.settings.fields import Precision

__all__ = ["DTYPES", "PromptEmbeddings", "TextEncoders", "encoder_format", "quietly", "to_pixels"]

_LOG = logging.getLogger("blora")

DTYPES: Final[dict[Precision, torch.dtype]] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
"""What torch calls our number formats."""

_PROMPTS_KEPT: Final = 512
"""Prompts whose embeddings are remembered; 0.3 MB each for SDXL in half precision."""


@dataclass(frozen=True, eq=False)
class PromptEmbeddings:
    """What the UNet is told about prompts.

    Attributes:
        hidden: (n, 77, context) in the UNet's number format: the penultimate layers of both encoders, side by side.
        pooled: (n, pooled) in the UNet's number format: the second encoder's projection.
    """

    hidden: Tensor
    pooled: Tensor


class TextEncoders:
    """SDXL's two text encoders: loaded when first needed, released at will, each prompt embedded once.

    On a GPU they run in fp16 where the UNet works in half precision, which is half of their memory (`encoder_format`);
    embeddings that come out not finite are computed anew in fp32. On a CPU they run in fp32.
    """

    def __init__(self, located: Located, device: torch.device, dtype: torch.dtype) -> None:
        """Load nothing yet.

        Args:
            located: The base model.
            device: Where they run.
            dtype: Number format of the embeddings.
        """
        self._located, self._device, self._dtype = located, device, dtype
        self._runs_on, self._exact = device, False
        self._pairs: list[tuple[Any, Any]] = []
        self._known: OrderedDict[str, PromptEmbeddings] = OrderedDict()

    def run_on(self, device: torch.device) -> None:
        """Encode elsewhere from now on, where memory is not short; embeddings go to the UNet as before."""
        if device != self._runs_on:
            self.release()
        self._runs_on = device

    @property
    def loaded(self) -> bool:
        """Whether they occupy memory now."""
        return bool(self._pairs)

    def release(self) -> None:
        """Drop the encoders; remembered prompts stay."""
        self._pairs = []

    def load(self) -> list[tuple[Any, Any]]:
        """Return both tokenizers, each with its encoder."""
        if not self._pairs:
            with quietly():
                for suffix, kind in (("", CLIPTextModel), ("_2", CLIPTextModelWithProjection)):
                    tokenizer = CLIPTokenizer.from_pretrained(self._located.tokenizers / f"tokenizer{suffix}")
                    part = f"text_encoder{suffix}"
                    encoder = load_part(kind, self._located, part, self._runs_on, dtype=self.number_format)
                    self._pairs.append((tokenizer, encoder))
        return self._pairs

    @property
    def number_format(self) -> torch.dtype:
        """What they run in."""
        return torch.float32 if self._exact else encoder_format(self._runs_on, self._dtype)

    def encode(self, prompts: Sequence[str]) -> PromptEmbeddings:
        """Embed prompts, independently of each other; on the CPU from then on where the device has no room."""
        try:
            embeddings = [self._one(prompt) for prompt in prompts]
        except torch.OutOfMemoryError:
            if self._runs_on.type == "cpu":
                raise
            embeddings = []
        if not embeddings and prompts:  # outside the handler, so that what the failed attempt held is gone
            _LOG.info("not enough memory for the text encoders: prompts are encoded on the CPU from here on")
            self.run_on(torch.device("cpu"))
            embeddings = [self._one(prompt) for prompt in prompts]
        return PromptEmbeddings(torch.cat([e.hidden for e in embeddings]), torch.cat([e.pooled for e in embeddings]))

    def _one(self, prompt: str) -> PromptEmbeddings:
        """Embed one prompt, or remember it."""
        if prompt in self._known:
            self._known.move_to_end(prompt)
            return self._known[prompt]
        hidden, pooled = self._embed(prompt)
        if self.number_format != torch.float32 and not (hidden.isfinite().all() and pooled.isfinite().all()):
            _LOG.info("prompts come out not finite in fp16: the text encoders run in fp32 from here on")
            self._exact = True
            self.release()
            hidden, pooled = self._embed(prompt)
        embeddings = PromptEmbeddings(hidden.to(self._device, self._dtype), pooled.to(self._device, self._dtype))
        self._known[prompt] = embeddings
        if len(self._known) > _PROMPTS_KEPT:
            self._known.popitem(last=False)
        return embeddings

    def _embed(self, prompt: str) -> tuple[Tensor, Tensor]:
        """Return a prompt's tokens and its pooled form as the encoders give them."""
        hidden = []
        for tokenizer, encoder in self.load():
            length = len(tokenizer(prompt).input_ids)
            if length > CONTEXT_TOKENS:
                warnings.warn(f"prompt cut to {READ_TOKENS} of {length - 2} tokens: {prompt!r}", stacklevel=5)
            ids = tokenizer(
                prompt, padding="max_length", max_length=CONTEXT_TOKENS, truncation=True, return_tensors="pt"
            ).input_ids
            with torch.no_grad():
                output = encoder(ids.to(self._runs_on), output_hidden_states=True)
            hidden.append(output.hidden_states[-2])
        pooled: Tensor = output.text_embeds
        return torch.cat(hidden, dim=-1), pooled


@contextmanager
def quietly() -> Iterator[None]:
    """While the context is open, transformers shows no bars: one for half a second would only tear up the caller's."""
    bars: Any = transformers_logging  # has no types
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            bars.enable_progress_bar()


def encoder_format(device: torch.device, dtype: torch.dtype) -> torch.dtype:
    """Return what text encoders run in: as little as is exact enough.

    Of half precision that is fp16 alone, also where the UNet's is bf16. Relative distances of embeddings from those of
    fp32, with the embedded model's encoders: run in fp16 0.0006, run in bf16 0.0054; rounded to bf16 alone 0.0017, to
    fp16 alone 0.0002.
    """
    return torch.float16 if device.type == "cuda" and dtype != torch.float32 else torch.float32


def to_pixels(picture: Tensor) -> NDArray[np.uint8]:
    """Turn what an autoencoder decodes, (3, height, width) from -1 to 1, into (height, width, 3) uint8."""
    pixels = ((picture / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
    return pixels.permute(1, 2, 0).cpu().numpy()
