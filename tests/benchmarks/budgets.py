"""What small GPUs do, on a large one whose allocator is given no more: a part of `tests.benchmarks.sdxl`.

On a CPU nothing limits anything: the same plans are worked off, and no peak is known.
"""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch

from blora.errors import BloraError
from blora.models.memory import plan_memory
from blora.models.sizes import ModelSize
from tests.benchmarks.operations import both_halves
from tests.benchmarks.sampling import ours, write_halves
from tests.benchmarks.versus import GB, Bench

CONTEXT_GB: Final = 0.5
"""Of a card's memory that CUDA's context and loaded kernels take; torch's allocator never sees it."""
SAMPLE_STEPS: Final = 4


def budgets(bench: Bench) -> None:
    """Train and draw under the limits of small GPUs, as the planner would."""
    for limit_gb in bench.given.budgets_gb:
        bench.base.release_encoders()
        bench.base.release_vae()
        found: dict[str, Any] = {"budget_gb": limit_gb}
        try:
            with _limited(bench, limit_gb):
                for part in (_trained, _drawn):
                    found |= part(bench, limit_gb)
        except (BloraError, ValueError, torch.OutOfMemoryError) as error:
            found["fault"] = str(error)
        finally:
            bench.base.save_memory(encoders="stay", vae_in_tiles=False)
        bench.budgets.append(found)
        bench.note(", ".join(f"{name} {_shown(value)}" for name, value in found.items()))


def allocator_share(limit_gb: float, total_bytes: int) -> float:
    """Return the share of a card that torch's allocator may take so that all in all it is as on a card of `limit_gb`.

    Raises:
        ValueError: The card has less than the limit, so that nothing would be limited.
    """
    if limit_gb * GB > total_bytes:
        raise ValueError(f"budget: received {limit_gb:g} GB; accepted: up to the card's {total_bytes / GB:.1f} GB")
    return (limit_gb - CONTEXT_GB) * GB / total_bytes


@contextmanager
def _limited(bench: Bench, limit_gb: float) -> Iterator[None]:
    if not bench.on_gpu:
        yield
        return
    gc.collect()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(bench.device).total_memory
    torch.cuda.set_per_process_memory_fraction(allocator_share(limit_gb, total), bench.device)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, bench.device)


def _trained(bench: Bench, limit_gb: float) -> dict[str, Any]:
    plan = plan_memory(limit_gb * GB, bench.settings.train, _size(bench))
    bench.base.save_memory(encoders=plan.encoders, vae_in_tiles=plan.vae_in_tiles)
    checkpointing = "on" if plan.checkpointing else "off"
    (a_step, _), peak_gb = bench.peak(lambda: bench.train_seconds(plan.size, checkpointing=checkpointing))
    return {
        "pack": plan.size,
        "checkpointing": checkpointing,
        "train_s_a_step": a_step / plan.size,
        "train_peak_gb": peak_gb,
        "train_planned_gb": plan.needed_bytes / GB,
    }


def _drawn(bench: Bench, limit_gb: float) -> dict[str, Any]:
    plan = plan_memory(limit_gb * GB, bench.settings.sample, _size(bench))
    bench.base.save_memory(encoders=plan.encoders, vae_in_tiles=plan.vae_in_tiles)
    settings = bench.settings.sample.model_copy(update={"steps": SAMPLE_STEPS, "batch_size": plan.size})
    with tempfile.TemporaryDirectory() as name:
        write_halves(bench.base, Path(name), plan.size, bench.settings.train.rank)
        _, peak_gb = bench.peak(lambda: ours(bench.base, Path(name), plan.size, settings))
    return {
        "batch": plan.size,
        "encoders": plan.encoders,
        "tiles": plan.vae_in_tiles,
        "sample_peak_gb": peak_gb,
        "sample_planned_gb": plan.needed_bytes / GB,
    }


def _size(bench: Bench) -> ModelSize:
    base = bench.base
    per_rank = sum(map(sum, both_halves(base).values()))
    return ModelSize.like_sdxl(base.unet.config, base.vae_scale_factor, per_rank)


def _shown(value: Any) -> str:
    """A figure for people; a peak that no CPU knows is a dash."""
    return "-" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)
