"""What fits into a device's memory: size of packs and batches, recomputation, and what has to leave the device.

A stated model, not a trial: bytes of frozen weights, of adapters with their optimizer state, and of activations kept
for the backward pass, which were counted on SDXL's full-size configuration (saved tensors of one row at 1024 px in
half precision, without the score matrices that fused attention does not keep) and are scaled by width, picture and
number format. Everything else is one allowance. A wrong guess costs time, never a result: a pack that does not fit
after all recomputes its activations, and then is trained in halves. Imports no torch, so that a planner can ask.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from blora.errors import OutOfMemoryError
from blora.settings.sampling import SampleSettings
from blora.settings.training import TrainSettings

__all__ = ["SDXL", "MemoryPlan", "ModelSize", "pack_size", "plan_sampling", "plan_training", "room", "training_bytes"]

GB: Final = 10**9
_ALLOWANCE: Final = 1.0 * GB
"""CUDA's context, workspaces of libraries, and what the allocator cannot use."""
_BYTES_PER_ADAPTER_PARAMETER: Final = 4 + 4 + 8 + 2
"""Value, gradient, AdamW's two moments, and the copy in the UNet's format."""
_KEPT_PER_ROW: Final = 3.26 * GB
_RECOMPUTED_PER_ROW: Final = 0.85 * GB
"""0.45 GB counted, and the block that is being recomputed."""
_DRAWN_PER_ROW: Final = 0.35 * GB
"""Two rows a picture with guidance: live activations, adapter and remembered keys; reckoned, not counted."""
_DECODED: Final = 4.5 * GB
"""The autoencoder's largest activations and copies, fp32, 1024 px; reckoned, not counted."""
_TILED: Final = 1.3 * GB
_MOST_ADAPTERS: Final = 16
"""Beyond, a pack gains nothing that would be worth losing it."""
_MOST_ADAPTERS_ON_A_CPU: Final = 8


@dataclass(frozen=True)
class ModelSize:
    """The sizes of a base model that memory depends on.

    Attributes:
        unet_parameters: Of the UNet.
        encoder_bytes: Both text encoders, fp32.
        vae_bytes: The autoencoder, fp32.
        adapter_parameters_per_rank: Of both halves.
        width: Channels of the UNet's first level.
        factor: Pixels per latent, along a side.
    """

    unet_parameters: int
    encoder_bytes: float
    vae_bytes: float
    adapter_parameters_per_rank: int
    width: int
    factor: int

    @classmethod
    def like_sdxl(cls, config: Mapping[str, Any], factor: int, adapter_parameters_per_rank: int) -> ModelSize:
        """Reckon a smaller model's sizes from SDXL's by its width; its UNet's configuration says how wide it is."""
        width = int(config["block_out_channels"][0])
        share = (width / SDXL.width) ** 2
        return cls(
            round(SDXL.unet_parameters * share),
            SDXL.encoder_bytes * share,
            SDXL.vae_bytes * share,
            adapter_parameters_per_rank,
            width,
            factor,
        )

    def rows(self, width_px: int, height_px: int) -> float:
        """Return how many of SDXL's rows at 1024 px a row of this model is."""
        return self.width / SDXL.width * width_px * height_px / self.factor**2 / (1024 / SDXL.factor) ** 2


SDXL: Final = ModelSize(2_567_463_684, 3.27 * GB, 0.335 * GB, 440_320, 320, 8)


@dataclass(frozen=True)
class MemoryPlan:
    """How a device's memory is used.

    Attributes:
        size: Adapters in a pack, or pictures in a batch.
        checkpointing: Whether activations of the up blocks are recomputed.
        encoders_on_cpu: Whether the text encoders stay on the CPU; each prompt takes seconds, once.
        vae_in_tiles: Whether the autoencoder works in overlapping tiles, which changes pixels slightly.
        needed_bytes: What the model of memory says this takes.
    """

    size: int
    checkpointing: bool
    encoders_on_cpu: bool
    vae_in_tiles: bool
    needed_bytes: int


def training_bytes(settings: TrainSettings, size: int, *, checkpointing: bool, model: ModelSize = SDXL) -> int:
    """Return what a pack of so many adapters takes while it trains, the frozen UNet included."""
    per_number = 4 if settings.precision == "fp32" else 2
    adapters = size * settings.rank * model.adapter_parameters_per_rank * _BYTES_PER_ADAPTER_PARAMETER
    row = (_RECOMPUTED_PER_ROW if checkpointing else _KEPT_PER_ROW) * per_number / 2
    rows = size * settings.batch_size * model.rows(settings.resolution_px, settings.resolution_px)
    return round(model.unet_parameters * per_number + adapters + rows * row + _ALLOWANCE)


def plan_training(free_bytes: float, settings: TrainSettings, model: ModelSize = SDXL) -> MemoryPlan:
    """Choose the largest pack that fits while keeping its activations; if none does, one adapter recomputing them.

    Args:
        free_bytes: What the device has for this process, the base model not loaded yet.
        settings: The recipe; checkpointing "on" or "off" is kept.
        model: Sizes of the base model.

    Raises:
        OutOfMemoryError: One adapter alone does not fit; the message names the floor.
    """
    beside = room(free_bytes, settings.precision, model)
    ways = {"auto": (False, True), "on": (True,), "off": (False,)}[settings.checkpointing]
    for checkpointing in ways:
        for size in range(_MOST_ADAPTERS if checkpointing is ways[0] else 1, 0, -1):
            needed = training_bytes(settings, size, checkpointing=checkpointing, model=model)
            if needed <= free_bytes:
                return MemoryPlan(size, checkpointing, needed_bytes=needed, **beside)
    floor = training_bytes(settings, 1, checkpointing=ways[-1], model=model)
    raise OutOfMemoryError(
        "training one adapter does not fit on the device",
        f"{free_bytes / GB:.1f} GB free for rank {settings.rank} at {settings.resolution_px} px",
        f"{floor / GB:.1f} GB or more",
        "train",
        "lower train.resolution_px or train.batch_size, use precision bf16, or a device with more memory",
    )


def plan_sampling(free_bytes: float, settings: SampleSettings, model: ModelSize = SDXL) -> MemoryPlan:
    """Choose how many pictures, up to the settings' own number, are drawn at once, and what stays off the device.

    Raises:
        OutOfMemoryError: One picture alone does not fit; the message names the floor.
    """
    encoders_on_cpu = room(free_bytes, settings.precision, model)["encoders_on_cpu"]
    per_number = 4 if settings.precision == "fp32" else 2
    share = model.rows(settings.width_px, settings.height_px)
    picture = _DRAWN_PER_ROW * (2 if settings.guidance_scale > 1 else 1) * share * per_number / 2
    still = model.unet_parameters * per_number + model.vae_bytes + _ALLOWANCE
    in_tiles = still + _DECODED * share > free_bytes
    decoding = still + (_TILED if in_tiles else _DECODED) * share
    size = min(settings.batch_size, int((free_bytes - still) / picture))
    if size < 1 or decoding > free_bytes:
        floor = still + max(picture, _TILED * share)
        raise OutOfMemoryError(
            "drawing one picture does not fit on the device",
            f"{free_bytes / GB:.1f} GB free for {settings.width_px} x {settings.height_px} px",
            f"{floor / GB:.1f} GB or more",
            "sample",
            "draw smaller pictures, use precision bf16, or a device with more memory",
        )
    return MemoryPlan(size, False, encoders_on_cpu, in_tiles, round(max(decoding, still + size * picture)))


def room(free_bytes: float, precision: str, model: ModelSize = SDXL) -> dict[str, bool]:
    """Return what `blora.models.model.Base.save_memory` should be told on a device with so much free memory.

    That is whether the encoders, and whether the whole autoencoder at work, do not fit beside the UNet.
    """
    unet = model.unet_parameters * (4 if precision == "fp32" else 2) + _ALLOWANCE
    return {
        "encoders_on_cpu": unet + model.encoder_bytes > free_bytes,
        "vae_in_tiles": unet + model.vae_bytes + _DECODED > free_bytes,
    }


def pack_size(free_bytes: float | None, settings: TrainSettings, model: ModelSize = SDXL, *, on_gpu: bool) -> int:
    """Return how many adapters to train in one pass; 1 where nothing is known of the device.

    A pack that would not fit at all is none of the planner's business: the training says so where it happens.
    """
    if free_bytes is None:
        return 1
    try:
        size = plan_training(free_bytes, settings, model).size
    except OutOfMemoryError:
        return 1
    return size if on_gpu else min(size, _MOST_ADAPTERS_ON_A_CPU)
