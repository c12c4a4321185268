"""The autoencoder at work in overlapping tiles: what a device takes that has no room for whole pictures."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

__all__ = ["TILE_LATENTS", "set_tiles", "whole_or_in_tiles"]

_LOG = logging.getLogger("blora")

TILE_LATENTS: Final = 64
"""Side of a tile in latents: 512 px for SDXL, a quarter of the memory that a picture of 1024 px takes as a whole."""


def set_tiles(vae: Any, in_tiles: bool) -> None:
    """Have an autoencoder of diffusers work in tiles, or on whole pictures.

    Its own tile is as large as the picture that it was made for (1024 px for SDXL), and only what is larger than a tile
    is cut at all: ``use_tiling`` alone changes nothing there.
    """
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    vae.use_tiling = in_tiles
    vae.tile_latent_min_size, vae.tile_sample_min_size = TILE_LATENTS, TILE_LATENTS * factor


def whole_or_in_tiles(vae: Any, work: Callable[[Any], Any], tensor: Any) -> Any:
    """Have an autoencoder do some work, from then on in tiles where a whole picture does not fit.

    Args:
        vae: Of diffusers.
        work: Its ``encode`` or ``decode``.
        tensor: What that is given.

    Raises:
        torch.OutOfMemoryError: Not even tiles fit.
    """
    import torch  # not at the top: a planner asks how large a tile is

    try:
        return work(tensor)
    except torch.OutOfMemoryError:
        if vae.use_tiling:
            raise
    # Outside the handler, so that what the failed attempt held is gone.
    _LOG.info("not enough memory for whole pictures: the autoencoder works in tiles from here on")
    set_tiles(vae, True)
    return work(tensor)
