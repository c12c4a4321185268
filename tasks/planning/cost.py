"""What a plan will cost, before anything is spent: counts, slot seconds and bytes of what is missing.

Seconds come from this store's own past where a run of the same base and precision has ended: from one with the same
settings, else from the rate that the newest one reached, by its operations. Without such a run the rate is a share of
what the data sheet of the GPU says, and the estimate says so. Operation counts: SDXL at 1024 px needs 11.0 TFLOP a
training step (latent moments cached, no checkpointing) and 2 x 6.8 TFLOP a sampling step with guidance, plus 10.5 to
decode; they scale with the number of pixels.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from blora.bases.spec import parse_base
from blora.errors import OutOfMemoryError
from blora.models import memory
from blora.settings.fields import TrainedLayers
from blora.settings.presets import Settings
from blora.settings.training import TrainSettings
from manifests.store.store import Store
from tasks.devices import free_device_bytes
from tasks.run.inventory import Holdings
from tasks.run.outcome import read_records
from tasks.run.plan import Plan

TRAIN_TFLOP_PER_STEP, FORWARD_TFLOP, DECODE_TFLOP = 11.0, 6.8, 10.5  # SDXL, 1024 px, one picture
PEAK_TFLOPS = {
    "B200": 2250, "H200": 989, "H100": 989, "A100": 312, "L40": 362, "L4": 121, "A10": 125, "RTX 5090": 209,
    "RTX 4090": 165, "RTX 3090": 71, "V100": 125, "T4": 65,
}  # fmt: skip
"""Dense products in half precision a second by the data sheets, by a part of the GPU's name; the first that fits."""
USUAL_GPU = "A100"
SHARE_OF_PEAK = 0.22  # assumed, until a run has measured it
SHARE_OF_FP32 = 1 / 8  # assumed likewise: what fp32 reaches of half precision's rate
EMBEDDED_SHARE = 1 / 4_800  # operations of the embedded model at 128 px, relative to SDXL's at 1024 px
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


def estimate(store: Store, plan: Plan, held: Holdings, gpu: str = "") -> Estimate:
    """Price a plan against what the store holds of it.

    Args:
        store: with its past runs.
        plan: of the run.
        held: what the store has of it.
        gpu: the name of the GPU that is to work, if known.
    """
    settings = plan.run.settings
    adapters = [a for a in plan.adapters if a.adapter_id not in held.adapters]
    samples = [s for s in plan.samples if s.sample_id not in held.pictures]
    per_adapter, per_sample, basis = _measured(store, plan) or _assumed(plan, gpu)
    per_rank = parameters_per_rank(plan.run.base, settings.train.layers)
    adapter_bytes = per_rank * settings.train.rank * BYTES_PER_PARAMETER
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


def parameters_per_rank(base: str, layers: TrainedLayers = "attention") -> int:
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
        }
        told.append(", ".join([f"{noun} of up to {plan.size}", *(way for way, done in ways.items() if done)]))
    return f"{free_bytes / memory.GB:.1f} GB free: {'; '.join(told)}"


def _operations(base: str, settings: Settings) -> tuple[float, float]:
    """TFLOP of training an adapter and of drawing a picture."""
    train, sample = settings.train, settings.sample
    native_px, share = (128, EMBEDDED_SHARE) if base == "embedded" else (1024, 1.0)
    trained = (train.resolution_px / native_px) ** 2 * train.batch_size * train.steps
    passes = (2 if sample.guidance_scale > 1 else 1) * sample.steps
    drawn = sample.width_px * sample.height_px / native_px**2
    return share * TRAIN_TFLOP_PER_STEP * trained, share * drawn * (FORWARD_TFLOP * passes + DECODE_TFLOP)


def _measured(store: Store, plan: Plan) -> tuple[float, float, str] | None:
    """Seconds of an adapter and a picture by the best of past runs: one with the same settings, else the newest."""
    now = plan.run.settings
    found: list[tuple[bool, str, float, float, str]] = []
    for record in read_records(store):
        timings = record.timings
        if record.base_revision != plan.run.base_revision or not (timings.get("trained") and timings.get("drawn")):
            continue
        try:
            past = Settings.model_validate(record.settings)
        except ValueError:  # of another version of this package
            continue
        if (past.train.precision, past.sample.precision) != (now.train.precision, now.sample.precision):
            continue
        same = all(a.identity() == b.identity() for a, b in ((past.train, now.train), (past.sample, now.sample)))
        ours, theirs = _operations(plan.run.base, now), _operations(plan.run.base, past)
        per_adapter = timings["train_seconds"] / timings["trained"] * ours[0] / theirs[0]
        per_sample = timings["sample_seconds"] / timings["drawn"] * ours[1] / theirs[1]
        found.append((same, record.created_at, per_adapter, per_sample, record.run_id))
    if not found:
        return None
    same, _, per_adapter, per_sample, run_id = max(found)
    return per_adapter, per_sample, f"measured in run {run_id}" + ("" if same else ", by operation counts")


def _assumed(plan: Plan, gpu: str) -> tuple[float, float, str]:
    """Seconds of an adapter and a picture by operation counts and what the GPU may reach of its data sheet."""
    trained, drawn = _operations(plan.run.base, plan.run.settings)
    if plan.run.base == "embedded":
        speed, where = EMBEDDED_TFLOPS, ""
    else:
        name = next((part for part in PEAK_TFLOPS if part in gpu), USUAL_GPU)
        speed, where = PEAK_TFLOPS[name] * SHARE_OF_PEAK, f" of an {name}" if name[0] in "AHLR" else f" of a {name}"
        speed *= SHARE_OF_FP32 if plan.run.settings.train.precision == "fp32" else 1
    basis = f"operation counts at an assumed {speed:.3g} TFLOP/s{where}; the first run measures"
    return trained / speed, drawn / speed, basis
