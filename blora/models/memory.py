"""What fits into a device's memory: size of packs and batches, recomputation, and what has to leave the device.

One stated model for planning, loading, training and drawing: `plan_memory`. What is alive at once was counted on SDXL's
and FLUX.1's full-size configurations (a row at 1024 px, attention without matrices of scores) and is scaled by width,
picture and number format; a share of the memory stays free for what an allocator cannot use. A wrong guess costs time,
never a result: what does not fit after all is tried in smaller parts. Imports no torch, so that a planner can ask.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Final, Literal

from blora.errors import OutOfMemoryError
from blora.models.passes.tiles import TILE_LATENTS
from blora.models.sizes import GB, SDXL, ModelSize
from blora.settings.sampling import SampleSettings
from blora.settings.training import TrainSettings

__all__ = [
    "Encoders",
    "MemoryPlan",
    "front_bytes",
    "needed_bytes",
    "pack_size",
    "plan_memory",
]

Encoders = Literal["stay", "leave", "cpu"]
"""Text encoders stay on the device; leave it once they have encoded all prompts of some work; or work on the CPU."""

_SHARE: Final = 0.92
"""Of the free memory that is planned with; the rest an allocator loses between its blocks."""
_CONTEXT: Final = 1.0 * GB
"""CUDA's context, loaded kernels and the workspaces of libraries; reckoned, not counted."""
_BYTES_PER_ADAPTER_PARAMETER: Final = 4 + 4 + 8 + 2
"""Value, gradient, AdamW's two moments, and the copy in the UNet's format."""
_DRAWN_RANK: Final = 64
"""Of the adapters that pictures are drawn with, whose own rank is not known before they are read."""
_ENCODED: Final = 2.70 * GB
_DECODED: Final = 3.23 * GB
"""What the autoencoder's activations take, fp32, 1024 px."""
_OUTPUT_PER_PIXEL: Final = 24
"""Bytes of the tiles and the picture that is put together from them."""
_MOST_ADAPTERS: Final = 16
"""Beyond, a pack gains nothing that would be worth losing it."""
_MOST_ADAPTERS_ON_A_CPU: Final = 8


@dataclass(frozen=True)
class MemoryPlan:
    """How a device's memory is used.

    Attributes:
        size: Adapters in a pack, or pictures in a batch.
        checkpointing: Whether activations of the up blocks are recomputed.
        encoders: Where the text encoders are; "cpu" takes seconds a prompt, once.
        vae_in_tiles: Whether the autoencoder works in overlapping tiles, which changes pixels slightly, and leaves the
            device when a training has encoded its pictures.
        fronts_on_host: Whether the pool of a training's fronts is in the CPU's memory, from where each step fetches its
            own.
        needed_bytes: What the model of memory says this takes, CUDA's context included.
    """

    size: int
    checkpointing: bool = False
    encoders: Encoders = "stay"
    vae_in_tiles: bool = False
    fronts_on_host: bool = False
    needed_bytes: int = 0

    @classmethod
    def leanest(cls, work: TrainSettings) -> MemoryPlan:
        """Return how one adapter is trained in the least memory that its settings allow."""
        return cls(1, work.checkpointing != "off", "cpu", True, work.front_place != "device")


def plan_memory(
    free_bytes: float, work: TrainSettings | SampleSettings, model: ModelSize = SDXL, most: int | None = None
) -> MemoryPlan:
    """Choose how some work is done: as much at once as fits, and nothing taken off the device that can stay.

    A training keeps its activations if that is possible with any size of pack: recomputing them costs a quarter of a
    step, a smaller pack next to nothing. Its pool of fronts leaves the device where no pack fits beside one.

    Args:
        free_bytes: What the device has for this process, the base model not loaded yet.
        work: A recipe, of which checkpointing "on" or "off" is kept; or how pictures are drawn.
        model: Sizes of the base model.
        most: Adapters in the pack, or pictures to draw; None: the most that makes sense.

    Raises:
        OutOfMemoryError: One adapter or picture alone does not fit; the message names the floor.
    """
    floor = float("inf")
    for way in _ways(work, most):
        needed = needed_bytes(work, way, model)
        if needed <= _SHARE * free_bytes:
            return replace(way, needed_bytes=needed)
        floor = min(floor, needed)
    raise _too_small(free_bytes, work, floor / _SHARE)


def needed_bytes(work: TrainSettings | SampleSettings, way: MemoryPlan, model: ModelSize = SDXL) -> int:
    """Return the most that is on the device at once while some work is done in a way: the largest of its stages."""
    number = 4 if work.precision == "fp32" else 2
    still = model.denoiser_bytes(number) + _CONTEXT
    encoders = 0 if way.encoders == "cpu" else model.encoder_bytes * number / 4
    if isinstance(work, SampleSettings):
        adapters = model.adapter_parameters_per_rank * _DRAWN_RANK * number
        rows = (model.guided_rows if work.guidance_scale > 1 else 1) * model.rows(work.width_px, work.height_px)
        drawn = way.size * (rows * model.drawn_per_row * number / 2 + adapters)
        decoded = _coded(_DECODED, work.width_px, work.height_px, way, model)
        still += model.vae_bytes + (encoders if way.encoders == "stay" else 0)
        return round(still + max(drawn, decoded, encoders if way.encoders == "leave" else 0))
    side = work.resolution_px
    adapters = way.size * work.rank * model.adapter_parameters_per_rank * _BYTES_PER_ADAPTER_PARAMETER
    a_row = (model.recomputed_per_row if way.checkpointing else model.kept_per_row) * number / 2
    trained = way.size * work.batch_size * model.rows(side, side) * a_row
    adapters += 0 if way.fronts_on_host else way.size * front_bytes(work, model)
    vae = 0 if way.vae_in_tiles else model.vae_bytes  # in tiles, it leaves after its work
    encoded = model.vae_bytes + _coded(_ENCODED, side, side, way, model)
    spared = model.unet_parameters * model.fp8_share * (number - 1) if work.frozen == "fp8" else 0
    return round(max(still, still - spared + max(encoded, vae + adapters + max(trained, encoders))))


def front_bytes(settings: TrainSettings, model: ModelSize = SDXL) -> int:
    """Return what one adapter's pool of fronts takes, on the device or in the CPU's memory; 0 without a pool."""
    rows = min(settings.front_pool, settings.steps) * settings.batch_size
    side, number = settings.resolution_px, 4 if settings.precision == "fp32" else 2
    return round(rows * model.pictures(side, side) * model.front_per_row * number / 2)


def pack_size(free_bytes: float | None, settings: TrainSettings, model: ModelSize = SDXL, *, on_gpu: bool) -> int:
    """Return how many adapters to train in one pass; 1 where nothing is known of the device.

    A pack that would not fit at all is none of the planner's business: the training says so where it happens.
    """
    if free_bytes is None:
        return 1
    try:
        size = plan_memory(free_bytes, settings, model).size
    except OutOfMemoryError:
        return 1
    return size if on_gpu else min(size, _MOST_ADAPTERS_ON_A_CPU)


def _ways(work: TrainSettings | SampleSettings, most: int | None) -> Iterator[MemoryPlan]:
    """Every way of doing some work, the best first and the one that takes least last."""
    if isinstance(work, SampleSettings):
        places: tuple[Encoders, ...] = ("stay", "leave", "cpu")
        for in_tiles in (False, True):
            for size in range(min(work.batch_size, most or work.batch_size), 0, -1):
                yield from (MemoryPlan(size, False, place, in_tiles) for place in places)
        return
    kept = {"auto": (False, True), "on": (True,), "off": (False,)}[work.checkpointing]
    place = work.front_place if work.front_pool else "device"
    hosts = {"auto": (False, True), "host": (True,), "device": (False,)}[place]
    for checkpointing, in_tiles, on_host in product(kept, (False, True), hosts):
        for size in range(most or _MOST_ADAPTERS, 0, -1):
            yield MemoryPlan(size, checkpointing, "leave", in_tiles, on_host)
            yield MemoryPlan(size, checkpointing, "cpu", in_tiles, on_host)


def _coded(whole: float, width_px: int, height_px: int, way: MemoryPlan, model: ModelSize) -> float:
    """Return what the autoencoder's activations take: of a picture as a whole, or of its largest tile."""
    share = model.pictures(width_px, height_px)
    if not way.vae_in_tiles:
        return whole * share
    side = TILE_LATENTS * model.factor
    tile = model.pictures(min(side, width_px), min(side, height_px))
    return whole * tile + _OUTPUT_PER_PIXEL * width_px * height_px


def _too_small(free_bytes: float, work: TrainSettings | SampleSettings, floor: float) -> OutOfMemoryError:
    """Return what to say of a device that has no room for one adapter or picture."""
    if isinstance(work, TrainSettings):
        what, where, hint = "training one adapter", "train", "lower train.resolution_px or train.batch_size"
        asked = f"rank {work.rank} at {work.resolution_px} px"
    else:
        what, where, hint = "drawing one picture", "sample", "draw smaller pictures"
        asked = f"{work.width_px} x {work.height_px} px"
    return OutOfMemoryError(
        f"{what} does not fit on the device",
        f"{free_bytes / GB:.1f} GB free for {asked}",
        f"{floor / GB:.1f} GB or more",
        where,
        f"{hint}, use precision bf16, or a device with more memory",
    )
