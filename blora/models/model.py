"""What the method needs of a base model, loaded once per device.

The denoiser is frozen and stays. The VAE and the text encoders come when first used and can be released. Whatever one
kind of model does otherwise than another, its family says (`blora.models.families`). Importing this module loads no
torch, so that a planner can ask for `base_revision`.
"""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from blora.adapters.blocks import target_layers
from blora.bases.locate import Located, locate_base
from blora.bases.spec import Quantization
from blora.models.memory import Encoders
from blora.models.tiles import set_tiles
from blora.settings.fields import Precision

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from PIL import Image
    from torch import Tensor

    from blora.models.families.family import Family, Objective
    from blora.models.families.text_encoders import PromptEmbeddings

__all__ = ["Base", "load_base"]


class Base:
    """A base model on one device.

    Attributes:
        spec: How it was asked for.
        name: The same as it may be shown to others: of a folder or file only its last part.
        revision: What fixes its content.
        device: Where it runs.
        precision: Number format of the UNet, "fp32", "bf16" or "fp16".
        dtype: The same as torch names it.
        family: What kind of model it is.
        unet: The frozen denoiser, a UNet or a transformer.
        text_encoders: Both text encoders, loaded when first needed.
        scheduler_config: The folder's scheduler configuration, for diffusers' ``from_config``.
        prediction_type: "epsilon", "v_prediction" or "flow".
        latent_channels: Channels of a latent.
        vae_scale_factor: Pixels per latent, along a side.
        vae_in_tiles: Whether the autoencoder works in tiles.
        quantize: What the weights of the denoiser's blocks are kept in; empty for its own precision.
    """

    quantize: Quantization | Literal[""] = ""

    def __init__(self, located: Located, device: str | torch.device = "cpu", precision: Precision = "fp32") -> None:
        """Load the denoiser; use `load_base`, which locates the model first."""
        import torch

        from blora.bases.parts import load_part, vae_config
        from blora.models.families.known import FAMILIES
        from blora.models.families.text_encoders import DTYPES

        self.spec, self.revision, self._located = located.spec, located.revision, located
        self.name, self.quantize = located.label, located.quantize
        self.family: Family = FAMILIES[located.family]
        self.device = torch.device(device)
        self.precision = precision
        self.dtype: torch.dtype = DTYPES[precision]
        self.scheduler_config: dict[str, Any] = self._json("scheduler/scheduler_config.json") | dict(located.scheduler)
        self.prediction_type: Objective = self.family.objective(self.scheduler_config)
        kind = self.family.denoiser_class()
        lands_on = torch.device("cpu") if self.quantize else self.device  # whole, a quantised one may not fit there
        self.unet = load_part(kind, located, self.family.part, lands_on, torch_dtype=self.dtype)
        if self.quantize:
            from blora.models.quantize import quantize_blocks

            quantize_blocks(self.unet, self.quantize, self.device)
            self.unet.to(self.device)
        self.latent_channels: int = self.family.latent_channels(self.unet.config)
        self.vae_scale_factor: int = 2 ** (len(vae_config(located)["block_out_channels"]) - 1)
        self._vae: Any = None
        self.vae_in_tiles = self._encoders_leave = False
        self.text_encoders = self.family.encoders(located, self.device, self.dtype)
        for half in ("content", "style"):
            target_layers(self.unet, half)  # raises TopologyError by name

    @property
    def vae(self) -> Any:
        """The autoencoder, in the number format that `vae_format` says."""
        if self._vae is None:
            from diffusers import AutoencoderKL

            from blora.bases.parts import load_part, vae_config
            from blora.models.autoencoder import vae_format

            number_format = vae_format(self.device, self.dtype, vae_config(self._located))
            self._vae = load_part(AutoencoderKL, self._located, "vae", self.device, torch_dtype=number_format)
            set_tiles(self._vae, self.vae_in_tiles)
        return self._vae

    def save_memory(self, *, encoders: Encoders, vae_in_tiles: bool) -> None:
        """Use the device's memory as `blora.models.memory.plan_memory` says.

        Args:
            encoders: "leave": prompts are best encoded all at once (`remember_prompts`); "cpu": seconds each, once.
            vae_in_tiles: Encode and decode in overlapping tiles, blended: pictures differ slightly from whole ones.
        """
        import torch

        self.text_encoders.run_on(torch.device("cpu") if encoders == "cpu" else self.device)
        self._encoders_leave, self.vae_in_tiles = encoders == "leave", vae_in_tiles
        if self._encoders_leave:
            self.release_encoders()
        if self._vae is not None:
            set_tiles(self._vae, vae_in_tiles)

    def make_room(self) -> bool:
        """Take off the device what comes back when it is needed; encoders leave after their work from now on.

        Returns:
            Whether anything was there.
        """
        held = self._vae is not None or self.text_encoders.loaded
        self._encoders_leave = True
        self.release_encoders()
        self.release_vae()
        return held

    def release_vae(self) -> None:
        """Give the autoencoder's memory back; it returns when next needed."""
        self._vae = None
        self._collect()

    def release_encoders(self) -> None:
        """Give the text encoders' memory back; remembered prompts stay, and new ones load the encoders again."""
        self.text_encoders.release()
        self._collect()

    def encode_prompts(self, prompts: Sequence[str]) -> PromptEmbeddings:
        """Embed prompts as SDXL does; each once, and independently of the others.

        Prompts beyond 75 tokens are cut, with a warning.
        """
        embeddings = self.text_encoders.encode(prompts)
        if self._encoders_leave and self.text_encoders.loaded:
            self.release_encoders()
        return embeddings

    def remember_prompts(self, prompts: Iterable[str]) -> None:
        """Embed prompts ahead of their use, all at once: encoders that leave after their work then come only once."""
        if distinct := list(dict.fromkeys(prompts)):
            self.encode_prompts(distinct)

    def encode_negative_prompts(self, prompts: Sequence[str]) -> PromptEmbeddings:
        """Embed what guidance leads away from: zeros for an empty prompt where the base says so, as SDXL base does."""
        import torch

        from blora.models.families.text_encoders import PromptEmbeddings

        embeddings = self.encode_prompts(prompts)
        if not self._json("model_index.json").get("force_zeros_for_empty_prompt", True):
            return embeddings
        given = torch.tensor([bool(prompt) for prompt in prompts], device=self.device)
        hidden = torch.where(given[:, None, None], embeddings.hidden, 0.0)
        return PromptEmbeddings(hidden, torch.where(given[:, None], embeddings.pooled, 0.0))

    @property
    def guides_by_rows(self) -> bool:
        """Whether a guided picture has a negative row beside its own."""
        return self.family.guides_by_rows(self.unet.config)

    @property
    def drawn_multiple_px(self) -> int:
        """Sides of drawn pictures are multiples of so many pixels."""
        return self.vae_scale_factor * self.family.drawn_multiple

    @property
    def trained_multiple_px(self) -> int:
        """Pixels of one latent at the denoiser's coarsest level; sides of trained pictures are multiples of it."""
        return self.vae_scale_factor * self.family.trained_multiple(self.unet.config)

    def time_ids(self, original_px: tuple[int, int], crop_px: tuple[int, int], target_px: tuple[int, int]) -> Tensor:
        """Return what the denoiser is told of a picture's size, (1, numbers): SDXL's six of size and crop, or none."""
        import torch

        told = self.family.size_told(original_px, crop_px, target_px)
        return torch.tensor([told], dtype=torch.float32, device=self.device)

    def conditions(
        self, pooled: Tensor, height_px: int, width_px: int, guidance_scale: float = 1.0
    ) -> dict[str, Tensor]:
        """Return what the denoiser is told beside the tokens, for uncropped pictures of this size.

        Args:
            pooled: Pooled prompts (n, pooled).
            height_px: Height of the pictures.
            width_px: Their width.
            guidance_scale: Of guidance that the denoiser is told of; others ignore it.
        """
        size = (height_px, width_px)
        sizes = self.time_ids(size, (0, 0), size).expand(len(pooled), -1)
        return self.family.conditions(self.unet.config, pooled, sizes, guidance_scale)

    def predict(self, noisy: Tensor, told: Tensor, hidden: Tensor, conditions: Mapping[str, Tensor] | None) -> Tensor:
        """Call the denoiser once: see `Family.predict`."""
        return self.family.predict(self.unet, noisy, told, hidden, conditions or {})

    def timing(self, steps: int, height_px: int, width_px: int) -> dict[str, Any]:
        """Return what a scheduler is told beside the steps, for pictures of a size."""
        factor = self.vae_scale_factor
        return self.family.timing(self.scheduler_config, steps, height_px // factor, width_px // factor)

    def encode_image_moments(self, rgb: NDArray[np.uint8] | Image.Image) -> tuple[Tensor, Tensor]:
        """Encode one picture; its latents are ``mean + std * noise``, scaled as the UNet expects.

        Args:
            rgb: (height, width, 3) uint8, sides a multiple of `vae_scale_factor`.

        Returns:
            Mean and standard deviation, each (1, channels, height / factor, width / factor) fp32.
        """
        import numpy as np
        import torch

        from blora.models.autoencoder import encoded

        pixels = torch.from_numpy(np.array(rgb, dtype=np.uint8)).to(self.device)
        scaled = pixels.permute(2, 0, 1)[None].float() / 127.5 - 1.0
        moments = encoded(self.vae, scaled)
        shift, scale = self._latent_affine
        return (moments.mean - shift) * scale, moments.std * scale

    def decode(self, latents: Tensor) -> NDArray[np.uint8]:
        """Decode latents to pictures, one at a time, so that a picture does not depend on its neighbours.

        A picture that does not fit on the device as a whole is decoded in tiles, as are all that follow.

        Args:
            latents: (n, channels, height, width) of any number format.

        Returns:
            (n, height * factor, width * factor, 3) uint8.
        """
        import numpy as np

        from blora.models.autoencoder import decoded
        from blora.models.families.text_encoders import to_pixels

        shift, scale = self._latent_affine
        return np.stack([to_pixels(decoded(self.vae, one[None] / scale + shift)[0]) for one in latents.float()])

    @cached_property
    def _latent_affine(self) -> tuple[Tensor, Tensor]:
        """Shift and scale, each (1, channels, 1, 1): a UNet latent is (VAE latent - shift) * scale."""
        import torch

        config = self.vae.config
        shift = config.latents_mean or [config.shift_factor or 0.0] * self.latent_channels
        spread = config.latents_std or [1.0] * self.latent_channels
        scale = [config.scaling_factor / value for value in spread]
        affine = torch.tensor([shift, scale], dtype=torch.float32, device=self.device)[:, None, :, None, None]
        return affine[0], affine[1]

    def _json(self, name: str) -> dict[str, Any]:
        path = self._located.folder / name
        return dict(json.loads(path.read_text("utf-8"))) if path.is_file() else {}

    def _collect(self) -> None:
        if self.device.type == "cuda":
            import torch

            gc.collect()
            torch.cuda.empty_cache()


def load_base(spec: str | os.PathLike[str], device: str | torch.device = "cpu", precision: Precision = "fp32") -> Base:
    """Load a base model.

    Args:
        spec: "embedded", "sdxl", ``org/model@<40 hex digits>``, a folder in diffusers' layout, a .safetensors file, or
            several parts; `blora.bases.spec` has all forms.
        device: "cpu", "cuda", "cuda:1", …
        precision: Number format of the UNet.

    Raises:
        BaseModelError: Unknown spec, or a component that cannot be loaded.
        BaseUnreachableError: The hub did not answer and the model is not in its cache.
        TopologyError: The model is not built as SDXL is.
    """
    return Base(locate_base(spec, half=precision != "fp32"), device, precision)
