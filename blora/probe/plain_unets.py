"""A base of Stable Diffusion 1.5's or 2.1's shape: one text encoder, and nothing but its tokens told to the UNet.

B-LoRA's two blocks are SDXL's, so such a base is neither trained nor sampled here; the block probe looks for the blocks
that would take their place. Read from a folder in the layout of diffusers' ``StableDiffusionPipeline``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from numpy.typing import NDArray
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from blora.bases.parts import load_frozen
from blora.errors import TopologyError
from blora.models.families.text_encoders import DTYPES, PromptEmbeddings, to_pixels
from blora.models.passes.tiles import whole_or_in_tiles
from blora.settings.fields import Precision

__all__ = ["PlainBase"]

_PARTS: Final = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")


class PlainBase:
    """A text-to-picture model with one text encoder, on one device.

    Attributes:
        device: Where it runs.
        precision: Number format of the UNet, "fp32", "bf16" or "fp16".
        dtype: The same as torch names it.
        unet: The frozen UNet.
        scheduler_config: The folder's scheduler configuration.
        latent_channels: Channels of a latent.
        vae_scale_factor: Pixels per latent, along a side.
    """

    def __init__(self, folder: Path, device: str | torch.device = "cpu", precision: Precision = "fp32") -> None:
        """Load everything; the VAE and the text encoder stay in fp32.

        Args:
            folder: With ``unet``, ``vae``, ``text_encoder``, ``tokenizer`` and ``scheduler``.
            device: "cpu", "cuda", "cuda:1", …
            precision: Number format of the UNet.

        Raises:
            TopologyError: A part is missing, or the UNet wants to be told more than a prompt.
            BaseModelError: A component cannot be loaded.
        """
        missing = [f"{part}/" for part in _PARTS if not (folder / part).is_dir()]
        if missing:
            accepted = "all of " + ", ".join(_PARTS)
            raise TopologyError("not a StableDiffusionPipeline folder", f"without {', '.join(missing)}", accepted)
        self.device = torch.device(device)
        self.precision = precision
        self.dtype: torch.dtype = DTYPES[precision]
        self.unet = load_frozen(UNet2DConditionModel, folder, "unet", self.device, torch_dtype=self.dtype)
        wanted = [name for name in ("addition_embed_type", "class_embed_type") if self.unet.config.get(name)]
        if wanted:
            raise TopologyError("the UNet wants to be told more than a prompt", ", ".join(wanted), "neither of them")
        self.scheduler_config: dict[str, Any] = json.loads((folder / "scheduler/scheduler_config.json").read_text())
        self.latent_channels: int = self.unet.config.in_channels
        self._vae = load_frozen(AutoencoderKL, folder, "vae", self.device, torch_dtype=torch.float32)
        self.vae_scale_factor: int = 2 ** (len(self._vae.config.block_out_channels) - 1)
        self._tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
        self._encoder = load_frozen(CLIPTextModel, folder, "text_encoder", self.device, dtype=torch.float32)
        self._known: dict[str, Tensor] = {}

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> PromptEmbeddings:
        """Embed prompts by the encoder's last layer; `pooled` is (n, 0). Prompts beyond its length are cut."""
        for prompt in dict.fromkeys(prompts):
            if prompt not in self._known:
                ids = self._tokenizer(prompt, padding="max_length", truncation=True, return_tensors="pt").input_ids
                hidden: Tensor = self._encoder(ids.to(self.device)).last_hidden_state
                self._known[prompt] = hidden.to(self.dtype)
        hidden = torch.cat([self._known[prompt] for prompt in prompts])
        return PromptEmbeddings(hidden, hidden.new_zeros(len(prompts), 0))

    def encode_negative_prompts(self, prompts: Sequence[str]) -> PromptEmbeddings:
        """Embed what guidance leads away from: the empty prompt is a prompt like any other."""
        return self.encode_prompts(prompts)

    @property
    def guides_by_rows(self) -> bool:
        """Return True: classifier-free guidance."""
        return True

    @property
    def drawn_multiple_px(self) -> int:
        """Return the pixels of a latent."""
        return self.vae_scale_factor

    def conditions(self, pooled: Tensor, height_px: int, width_px: int, guidance_scale: float = 1.0) -> None:
        """Return None: the UNet is told nothing but the prompt."""
        return

    def predict(self, noisy: Tensor, told: Tensor, hidden: Tensor, conditions: Mapping[str, Tensor] | None) -> Tensor:
        """Call the UNet once."""
        predicted: Tensor = self.unet(noisy, told, hidden, return_dict=False)[0]
        return predicted

    def timing(self, steps: int, height_px: int, width_px: int) -> dict[str, Any]:
        """Return nothing: the timesteps are the same for every size."""
        return {}

    @torch.no_grad()
    def decode(self, latents: Tensor) -> NDArray[np.uint8]:
        """Decode latents (n, c, h, w) one at a time to pictures (n, h * factor, w * factor, 3) uint8."""
        scaled = latents.float() / self._vae.config.scaling_factor
        decoded = (whole_or_in_tiles(self._vae, self._vae.decode, latent[None]).sample[0] for latent in scaled)
        return np.stack([to_pixels(picture) for picture in decoded])
