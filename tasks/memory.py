"""How much memory and how many parameters a base's work takes, by the base's own configuration where it lies here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from blora.bases.places import DENOISERS
from blora.bases.spec import parse_base
from blora.bases.topology import blocks_there
from blora.errors import OutOfMemoryError
from blora.models import memory, sizes
from blora.settings.block_split import BlockSplit, Half, Stretch, own_split
from blora.settings.fields import TrainedLayers
from blora.settings.presets import Settings
from blora.settings.training import TrainSettings
from tasks.devices import free_device_bytes
from tasks.downloads import base_config, base_family

PARAMETERS_PER_RANK = {"attention": 440_320, "crossattn_kv": 133_120}  # SDXL: both blocks, sum of (in + out)


def parameters_per_rank(base: str, layers: TrainedLayers = "attention", split: BlockSplit | None = None) -> int:
    """LoRA parameters of both halves for each unit of rank: the sum of (in + out) over every adapted layer."""
    path = denoiser_config(base)
    config = base_config(base) if split else json.loads(path.read_text()) if path else None
    if config is None:
        return PARAMETERS_PER_RANK[layers] if base_family(base) == "sdxl" else sizes.FLUX.adapter_parameters_per_rank
    split = split or own_split(flux="num_single_layers" in config)
    return sum(_of_stretch(config, stretch, layers) for half in get_args(Half) for stretch in split.of(half))


def _of_stretch(config: Mapping[str, Any], stretch: Stretch, layers: TrainedLayers) -> int:
    """The same of some blocks, by the denoiser's configuration."""
    there = [one for one in map(Stretch.read, blocks_there(config)) if one.stem == stretch.stem]
    numbers = [number for one in there for number in range((one.last or 0) + 1) if stretch.holds_number(number)]
    if "num_single_layers" in config:  # three layers of a single-stream block, eight of one with two streams
        width = config["num_attention_heads"] * config["attention_head_dim"]
        return int(len(numbers) * 2 * width * (3 if stretch.stem.startswith("single") else 8))
    way, *level = stretch.stem.removesuffix(".attentions").split(".")
    at = int(level[0]) if level else -1  # the middle block is as the lowest level
    widths, depths = list(config["block_out_channels"]), config["transformer_layers_per_block"]
    depths = list(depths) if isinstance(depths, list | tuple) else [depths] * len(widths)
    if way == "up_blocks":
        widths, depths = widths[::-1], config.get("reverse_transformer_layers_per_block") or depths[::-1]
    deep = sum(depths[at][number] if isinstance(depths[at], list | tuple) else depths[at] for number in numbers)
    # attn1: four layers of width + width; attn2: q and out likewise, k and v of context + width.
    others = 8 * widths[at] + 4 * widths[at] if layers == "attention" else 0
    return int(deep * (others + 2 * (config["cross_attention_dim"] + widths[at])))


def auto_pack_size(base: str, settings: TrainSettings, devices: Sequence[str]) -> int:
    """How many adapters fit into one pass on the smallest of the `devices`; 1 where that cannot be known."""
    free_bytes, on_gpu = free_device_bytes(devices)
    return memory.pack_size(free_bytes, settings, memory_model(base), on_gpu=on_gpu)


def memory_model(base: str) -> sizes.ModelSize:
    """The sizes that the model of memory works with; its family's where the base does not lie on this machine."""
    path, quantize = denoiser_config(base), parse_base(base).quantize
    if path is None:
        usual = sizes.SDXL if base_family(base) == "sdxl" else sizes.FLUX
        return replace(usual, quantize=quantize)
    vae = json.loads((path.parents[1] / "vae" / "config.json").read_text())
    factor = 2 ** (len(vae["block_out_channels"]) - 1)
    like = sizes.ModelSize.like(json.loads(path.read_text()), factor, parameters_per_rank(base))
    return replace(like, quantize=quantize)


def denoiser_config(base: str) -> Path | None:
    """The denoiser's configuration, where the base lies on this machine."""
    model = parse_base(base).told_by
    if model == "embedded":
        from blora.embedded import MODEL_DIR

        return MODEL_DIR / "unet" / "config.json"
    paths = (Path(model) / part / "config.json" for part in DENOISERS)
    return next((path for path in paths if path.is_file()), None)


def memory_told(base: str, settings: Settings, devices: Sequence[str]) -> str:
    """What is done on the smallest GPU among the `devices`, by its free memory; empty where there is no GPU to ask."""
    free_bytes, on_gpu = free_device_bytes(devices)
    if free_bytes is None or not on_gpu:
        return ""
    told = []
    for noun, work in (("packs", settings.train), ("batches", settings.sample)):
        try:
            plan = memory.plan_memory(free_bytes, work, memory_model(base))
        except OutOfMemoryError as error:
            return str(error)
        ways = {
            "activations recomputed": plan.checkpointing,
            "text encoders on the CPU": plan.encoders == "cpu",
            "text encoders leave after their work": plan.encoders == "leave" and noun == "batches",
            "the autoencoder in tiles": plan.vae_in_tiles,
            "frozen weights in eight bits": noun == "packs" and settings.train.frozen == "fp8",
            "the pool of fronts in the CPU's memory": plan.fronts_on_host,
        }
        told.append(", ".join([f"{noun} of up to {plan.size}", *(way for way, done in ways.items() if done)]))
    return f"{free_bytes / sizes.GB:.1f} GB free: {'; '.join(told)}"


def front_pool_told(base: str, settings: TrainSettings) -> str:
    """How much of the training a pool of fronts spares, and what memory it takes; empty without one."""
    if not settings.front_pool:
        return ""
    each = memory.front_bytes(settings, memory_model(base)) / sizes.GB
    return (
        f"{settings.front_share:.0%} of the steps make a new draw and compute the UNet's front; "
        f"{each:.2f} GB of memory an adapter of a pack"
    )
