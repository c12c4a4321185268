"""The autoencoder in the number format that it bears: in fp16 where it was made for that, else in fp32."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import Tensor

from blora.models.passes.tiles import whole_or_in_tiles

__all__ = ["decoded", "encoded", "vae_format"]

_LOG = logging.getLogger("blora")


def vae_format(device: torch.device, dtype: torch.dtype, config: Mapping[str, Any]) -> torch.dtype:
    """Return what an autoencoder runs in.

    SDXL's own overflows in fp16, and its configuration says so by ``force_upcast``; one that was made for fp16, such as
    sdxl-vae-fp16-fix, says that it need not be upcast. On a GPU that works in half precision this one works in fp16:
    half of the memory, and the GPU's fast units.

    Args:
        device: Where it runs; a CPU has nothing to gain.
        dtype: Number format of the UNet.
        config: The autoencoder's own.
    """
    bears_half = config.get("force_upcast", True) is False
    in_half = bears_half and device.type == "cuda" and dtype != torch.float32
    return torch.float16 if in_half else torch.float32


def encoded(vae: Any, pixels: Tensor) -> DiagonalGaussianDistribution:
    """Encode pictures (n, 3, height, width) from -1 to 1; the distribution of their latents, fp32."""
    return DiagonalGaussianDistribution(_finite(vae, lambda one: vae.encode(one).latent_dist.parameters, pixels))


def decoded(vae: Any, latents: Tensor) -> Tensor:
    """Decode latents (n, channels, height, width) as the autoencoder scales them; pictures from -1 to 1, fp32."""
    return _finite(vae, lambda one: vae.decode(one).sample, latents)


@torch.no_grad()
def _finite(vae: Any, work: Callable[[Tensor], Tensor], tensor: Tensor) -> Tensor:
    """Do some work in the autoencoder's number format; in fp32 from then on where that overflows."""
    result: Tensor = whole_or_in_tiles(vae, work, tensor.to(vae.dtype)).float()
    if vae.dtype == torch.float32 or bool(result.isfinite().all()):
        return result
    _LOG.info("the autoencoder overflows in fp16: it works in fp32 from here on")
    vae.float()
    exact: Tensor = whole_or_in_tiles(vae, work, tensor.float())
    return exact
