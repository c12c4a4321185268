"""What a plan will cost, before anything is spent: counts, slot seconds and bytes of what is missing.

Seconds come from this store's own past where it has a finished run of the same base and settings; else from operation
counts and an assumed speed, and the estimate says so. Operation counts: SDXL at 1024 px needs 11.0 TFLOP a training
step (latent moments cached, no checkpointing) and 2 x 6.8 TFLOP a sampling step with guidance, plus 10.5 to decode;
they scale with the number of pixels.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from blora.bases.spec import parse_base
from blora.models import memory
from blora.settings.training import TrainSettings
from manifests.store.store import Store
from tasks.devices import free_device_bytes
from tasks.run.inventory import Holdings
from tasks.run.outcome import read_records
from tasks.run.plan import Plan

TRAIN_TFLOP_PER_STEP, SAMPLE_TFLOP_PER_STEP, DECODE_TFLOP = 11.0, 13.6, 10.5  # SDXL, 1024 px, one picture
ASSUMED_TFLOPS = 31.0  # what the published times mean on an A100 (10 minutes an adapter); a tuned machine is faster
EMBEDDED_SHARE = 1 / 13_000  # operations of the embedded model at 64 px, relative to SDXL's at 1024 px
EMBEDDED_TFLOPS = 0.07  # two cores of a laptop
PARAMETERS_PER_RANK = {"attention": 440_320, "crossattn_kv": 133_120}  # SDXL: both blocks, sum of (in + out)
BYTES_PER_PARAMETER, BYTES_PER_PIXEL = 2, 1.6  # fp16 halves; a PNG of a drawn picture


@dataclass(frozen=True)
class Estimate:
    """What is there, what is to do, and what that takes.

    Attributes:
        adapters: adapters planned.
        adapters_missing: adapters to train.
        samples: pictures planned.
        samples_missing: pictures to draw.
        train_seconds: slot seconds of training.
        sample_seconds: slot seconds of drawing.
        bytes: what will be written to the store, roughly.
        basis: where the seconds come from.
    """

    adapters: int
    adapters_missing: int
    samples: int
    samples_missing: int
    train_seconds: float
    sample_seconds: float
    bytes: int
    basis: str


def estimate(store: Store, plan: Plan, held: Holdings) -> Estimate:
    """Price a plan against what the store holds of it."""
    settings = plan.run.settings
    adapters = [a for a in plan.adapters if a.adapter_id not in held.adapters]
    samples = [s for s in plan.samples if s.sample_id not in held.pictures]
    per_adapter, per_sample, basis = _measured(store, plan) or _assumed(plan)
    adapter_bytes = (
        parameters_per_rank(plan.run.base, settings.train.layers) * settings.train.rank * BYTES_PER_PARAMETER
    )
    sample_bytes = settings.sample.width_px * settings.sample.height_px * BYTES_PER_PIXEL
    return Estimate(
        len(plan.adapters),
        len(adapters),
        len(plan.samples),
        len(samples),
        per_adapter * len(adapters),
        per_sample * len(samples),
        round(adapter_bytes * len(adapters) + sample_bytes * len(samples)),
        basis,
    )


def parameters_per_rank(base: str, layers: Literal["attention", "crossattn_kv"] = "attention") -> int:
    """LoRA parameters of both blocks for each unit of rank: the sum of (in + out) over every adapted layer."""
    path = unet_config(base)
    if path is None:
        return PARAMETERS_PER_RANK[layers]
    config = json.loads(path.read_text())
    width, context = config["block_out_channels"][-1], config["cross_attention_dim"]
    depths = config.get("reverse_transformer_layers_per_block") or config["transformer_layers_per_block"][::-1]
    depth = depths[0] if isinstance(depths, list) else depths
    attentions = depth * 2 if isinstance(depth, int) else sum(depth[:2])
    # attn1: four layers of width + width; attn2: q and out likewise, k and v of context + width.
    others = 8 * width + 4 * width if layers == "attention" else 0
    return int(attentions * (others + 2 * (context + width)))


def auto_pack_size(base: str, settings: TrainSettings, devices: Sequence[str]) -> int:
    """How many adapters fit into one pass on the smallest of the `devices`; 1 where that cannot be known."""
    free_bytes, on_gpu = free_device_bytes(devices)
    return memory.pack_size(free_bytes, settings, memory_model(base), on_gpu=on_gpu)


def memory_model(base: str) -> memory.ModelSize:
    """The sizes that the model of memory works with; SDXL's where the base does not lie on this machine."""
    path = unet_config(base)
    if path is None:
        return memory.SDXL
    vae = json.loads((path.parents[1] / "vae" / "config.json").read_text())
    factor = 2 ** (len(vae["block_out_channels"]) - 1)
    return memory.ModelSize.like_sdxl(json.loads(path.read_text()), factor, parameters_per_rank(base))


def unet_config(base: str) -> Path | None:
    """The UNet's configuration, where the base lies on this machine; None for SDXL's."""
    model = parse_base(base).model
    if model == "embedded":
        from blora.embedded import MODEL_DIR

        return MODEL_DIR / "unet" / "config.json"
    path = Path(model) / "unet" / "config.json"
    return path if path.is_file() else None


def _measured(store: Store, plan: Plan) -> tuple[float, float, str] | None:
    """Seconds an adapter and a picture took in the newest run of the same base and settings."""
    wanted = plan.run.settings.model_dump(mode="json")
    measured: list[tuple[str, float, float, str]] = []
    for record in read_records(store):
        same = record.base_revision == plan.run.base_revision and all(
            record.settings[part] == wanted[part] for part in ("train", "sample")
        )
        timings = record.timings
        if same and timings.get("trained") and timings.get("drawn"):
            per_adapter = timings["train_seconds"] / timings["trained"]
            per_sample = timings["sample_seconds"] / timings["drawn"]
            measured.append((record.created_at, per_adapter, per_sample, record.run_id))
    if not measured:
        return None
    _, per_adapter, per_sample, run_id = max(measured)
    return per_adapter, per_sample, f"measured in run {run_id}"


def _assumed(plan: Plan) -> tuple[float, float, str]:
    train, sample = plan.run.settings.train, plan.run.settings.sample
    embedded = plan.run.base == "embedded"
    native_px = 64 if embedded else 1024
    share, speed = (EMBEDDED_SHARE, EMBEDDED_TFLOPS) if embedded else (1.0, ASSUMED_TFLOPS)
    train_pictures = (train.resolution_px / native_px) ** 2 * train.batch_size
    sample_pictures = sample.width_px * sample.height_px / native_px**2
    per_adapter = share * TRAIN_TFLOP_PER_STEP * train.steps * train_pictures / speed
    per_sample = share * (SAMPLE_TFLOP_PER_STEP * sample.steps + DECODE_TFLOP) * sample_pictures / speed
    return per_adapter, per_sample, f"operation counts at an assumed {speed:g} TFLOP/s; the first run measures"
