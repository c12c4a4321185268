"""Train K adapters in one pass through the base model.

The pictures are encoded once and the prompt is embedded once. Each adapter has its own random numbers, clipping and
optimizer state, so that a pack gives what training one by one gives, up to rounding (stated in
test_train.py); a resumed training ends bit-equal to an undisturbed one on the CPU, and on
a GPU with `TrainSettings.deterministic`.

    results = train(base, [TrainItem((pixels,), key="pepper")], settings.train)
    results[0].adapter.content.save_half("content.safetensors")

Source: arXiv 2403.14572, section 4.2 (what is trained), and the recipe of the reference implementation.
"""

from __future__ import annotations

import json
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import diffusers
import torch

from blora.adapters.adapter import Adapter
from blora.adapters.blocks import SPLIT_KEY, Half, front_is_frozen, target_layers
from blora.adapters.factors import Factors
from blora.bases.topology import split_faults
from blora.errors import OutOfMemoryError, SettingFault, SettingsError
from blora.models.fp8 import held_in_fp8
from blora.models.memory import MemoryPlan, needed_bytes
from blora.models.model import Base
from blora.models.passes.execution import current, same_bits
from blora.models.sizes import ModelSize
from blora.settings.training import TrainSettings, recipe_version
from blora.training.checkpoint import Checkpoint, checkpoint_identity, read_checkpoint
from blora.training.items import StepReport, TrainItem, TrainResult
from blora.training.nan_policy import Progress
from blora.training.noise import FrontPool, seeded
from blora.training.optim import FlatFactors, PackedAdamW
from blora.training.photos import pixel_digest, prepare_photos
from blora.training.step_queue import QueuedStep, queue_step, settle
from blora.training.stepper import Stepper

__all__ = ["train"]

_LOG = logging.getLogger("blora")


def train(
    base: Base,
    items: Sequence[TrainItem],
    settings: TrainSettings,
    *,
    layers: Sequence[str] | None = None,
    checkpoint: Path | None = None,
    on_checkpoint: Callable[[Checkpoint], None] | None = None,
    on_step: Callable[[StepReport], None] | None = None,
) -> list[TrainResult]:
    """Train one adapter an item, all in one pass where that fits on the device.

    Where it does not, the pack is trained in two parts one after the other, if need be in three, and so on down to one
    adapter; one alone recomputes its activations. All but one adapter, and then that one, would be two passes as well,
    of which the larger might not fit either: of as many passes, those of one size need the least memory. Recomputing
    would cost a quarter more operations in every step. Only a whole pack has checkpoints.

    Args:
        base: Loaded with the precision that the settings name; its UNet is left as it was found.
        items: With distinct keys.
        settings: One recipe for all items.
        layers: Train these linear layers and no others; None for both halves. For comparisons: an adapter of other
            layers can be drawn with (`Draw.whole`), but is no B-LoRA and has no file format. It has no halves, so
            that every row trains all of it, whatever `TrainSettings.style_alone_share` says.
        checkpoint: Go on from this file.
        on_checkpoint: Called with a checkpoint, to be saved or copied before it returns, after each
            ``checkpoint_every_seconds`` and ``checkpoint_every_steps``, but not after the last step.
        on_step: Called after each step.

    Returns:
        One result an item, in their order. An item that diverged has an error; the others are not affected.

    Raises:
        SettingsError: The items or the settings do not fit the base.
        CheckpointError: The checkpoint is unreadable or belongs to another training.
        OutOfMemoryError: One adapter alone does not fit on the device; the message says what it takes.
    """
    if layers is not None:
        settings = settings.model_copy(update={"style_alone_share": 0.0})
    _check(base, items, settings, layers)
    in_fp8 = settings.frozen == "fp8"
    with held_in_fp8(base.unet, _shapes(base, settings, layers)) if in_fp8 else nullcontext():
        results: list[TrainResult] = []
        size = len(items)
        while len(results) < len(items):
            part = items[len(results) : len(results) + size]
            kept = (checkpoint, on_checkpoint) if len(part) == len(items) else (None, None)
            try:
                results += _train(base, part, settings, layers, *kept, on_step)
                continue
            except torch.OutOfMemoryError as error:
                reason = str(error).split(". ")[0]
            # Outside the handler: the failed attempt's tensors hang on its traceback, and the next needs their memory.
            base.make_room()
            if len(part) == 1:
                raise _too_large(base, settings, layers, reason)
            size = _next_size(len(part), len(items) - len(results))
            _LOG.info("%d adapters do not fit on the device: %d at once from here on", len(part), size)
    return results


def _next_size(tried: int, left: int) -> int:
    """Return how many adapters to train at once where so many did not fit: the fewest passes, in parts of one size."""
    passes = -(-left // (tried - 1))
    return -(-left // passes)


def _too_large(base: Base, settings: TrainSettings, layers: Sequence[str] | None, reason: str) -> OutOfMemoryError:
    """Return what to say of one adapter that does not fit: what it takes by the model of memory."""
    shapes = _shapes(base, settings, layers).values()
    like = ModelSize.like(base.unet.config, base.vae_scale_factor, sum(map(sum, shapes)))
    model = replace(like, quantize=base.quantize)
    way = MemoryPlan.leanest(settings)
    needed = needed_bytes(settings, way, model)
    return OutOfMemoryError(
        "training one adapter does not fit on the device",
        f"rank {settings.rank}, {settings.batch_size} rows at {settings.resolution_px} px: {reason}",
        f"about {needed / 1e9:.1f} GB free for this process",
        "train",
        "lower train.rank, train.batch_size or train.resolution_px"
        + ("" if way.checkpointing else ", or set train.checkpointing: auto")
        + ", or end what else is on the device",
    )


def _shapes(base: Base, settings: TrainSettings, layers: Sequence[str] | None) -> dict[str, tuple[int, int]]:
    """Return (out, in) of every layer that is trained."""
    halves = get_args(Half)
    trained = layers or tuple(
        name for half in halves for name in target_layers(base.unet, half, settings.layers, settings.split)
    )
    linears: dict[str, Any] = {name: base.unet.get_submodule(name) for name in trained}
    return {name: (linear.out_features, linear.in_features) for name, linear in linears.items()}


def _train(
    base: Base,
    items: Sequence[TrainItem],
    settings: TrainSettings,
    layers: Sequence[str] | None,
    checkpoint: Path | None,
    on_checkpoint: Callable[[Checkpoint], None] | None,
    on_step: Callable[[StepReport], None] | None,
) -> list[TrainResult]:
    """Train a pack from the start or from a checkpoint."""
    digests = [[pixel_digest(rgb) for rgb in item.images] for item in items]
    known = {tuple(digest): item.images for digest, item in zip(digests, items, strict=True)}
    encoded = {digest: prepare_photos(base, images, settings) for digest, images in known.items()}
    if base.vae_in_tiles:
        base.release_vae()  # where room is so short, not even its weights stay beside the pack
    shapes = _shapes(base, settings, layers)
    ranks = {name: settings.rank // settings.constrained(name) for name in shapes}
    factors = FlatFactors(shapes, len(items), ranks, base.device, base.dtype)
    optimizer = PackedAdamW(factors.values, settings.beta1, settings.beta2, settings.epsilon, settings.weight_decay)
    pack = [Progress.start(item.key, settings) for item in items]
    names = ["\0".join(filter(None, (item.key, item.draws, item.prompt and f"told {item.prompt}"))) for item in items]
    prompts = [item.prompt or settings.prompt for item in items]
    pictures = list(zip(names, digests, strict=True))
    identity = checkpoint_identity(pictures, settings, " ".join([base.revision, *(layers or ())]))
    if checkpoint is None:
        for index, progress in enumerate(pack):
            factors.draw_down(index, progress.generator)
    _share_draws(pack, items, digests, settings)
    pool = FrontPool(settings) if settings.front_pool else None
    done = 0 if checkpoint is None else read_checkpoint(checkpoint, pack, factors, optimizer, identity, pool)
    photos = [encoded[tuple(digest)] for digest in digests]
    ahead = _steps_ahead(base.device)
    queued: deque[QueuedStep] = deque()
    turns = [item.draws or item.key for item in items]
    with (
        current(base.device),
        same_bits(settings.deterministic, base.device),
        Stepper(base, photos, factors, settings, prompts) as stepper,
    ):
        began = saved = time.perf_counter()
        for step in range(done + 1, settings.steps + 1):
            queued.append(queue_step(stepper, pack, turns, optimizer, step, pool))
            last = step == settings.steps
            save = on_checkpoint is not None and not last and _is_due(step, time.perf_counter() - saved, settings)
            while len(queued) > (0 if last or save else ahead):
                settled = queued.popleft()
                settle(settled, stepper, pack, optimizer)
                if on_step:
                    losses = tuple(progress.losses[-1] for progress in pack)
                    active, now = sum(progress.error is None for progress in pack), time.perf_counter()
                    on_step(StepReport(settled.step, settings.steps, losses, active, now - began))
                    began = time.perf_counter()
            if all(progress.error for progress in pack):
                break
            if on_checkpoint is not None and save:
                on_checkpoint(Checkpoint(pack, factors, optimizer, step, identity, pool))
                saved = time.perf_counter()
    counts = optimizer.steps_taken()
    return [_result(base, items[i], pack[i], factors, i, counts[i], settings) for i in range(len(items))]


def _is_due(step: int, seconds: float, settings: TrainSettings) -> bool:
    """Whether a checkpoint is to be written after a step, so many seconds after the last one."""
    by_steps = settings.checkpoint_every_steps is not None and step % settings.checkpoint_every_steps == 0
    return by_steps or seconds >= settings.checkpoint_every_seconds


def _steps_ahead(device: torch.device) -> int:
    """How many steps a device is told of before the last one's numbers are read, so that a GPU never waits for Python.

    The NaN policy then acts that many steps later; a step that is not finite changes no weight either way.
    """
    return 1 if device.type == "cuda" else 0


def _share_draws(
    pack: Sequence[Progress], items: Sequence[TrainItem], digests: Sequence[Sequence[str]], settings: TrainSettings
) -> None:
    """Give candidates of one image that name the same stream of draws one generator for all of them."""
    shared: dict[tuple[str, ...], torch.Generator] = {}
    for progress, item, digest in zip(pack, items, digests, strict=True):
        if item.draws:
            stream = seeded(f"draws {item.draws}", settings.seed)
            progress.generator = shared.setdefault((item.draws, *sorted(digest)), stream)


def _check(base: Base, items: Sequence[TrainItem], settings: TrainSettings, layers: Sequence[str] | None) -> None:
    """Refuse what cannot be trained, before anything is computed."""
    faults = []
    if settings.precision != base.precision:
        hint = f"load the base with precision {settings.precision}"
        faults.append(SettingFault("train.precision", "not the base's", settings.precision, base.precision, hint))
    if settings.timestep_shift != 1 and base.prediction_type != "flow":
        what, hint = "the base does not learn by flow matching", "leave it out"
        faults.append(SettingFault("train.timestep_shift", what, str(settings.timestep_shift), "1", hint))
    multiple_px = base.trained_multiple_px
    if settings.resolution_px % multiple_px:
        accepted = f"a multiple of {multiple_px} for this base"
        faults.append(SettingFault("train.resolution_px", "does not fit", str(settings.resolution_px), accepted))
    split = settings.split
    trained = layers or (() if split is None else (*split.content, *split.style))
    if settings.front_pool and not (base.family.shares_front and front_is_frozen(trained)):
        accepted = "0, or a base of SDXL's kind whose down and middle blocks are not trained"
        faults.append(SettingFault("train.front_pool", "no frozen front", str(settings.front_pool), accepted))
    faults += split_faults(settings, base.unet.config)
    keys = [item.key for item in items]
    if not items or len(set(keys)) < len(keys):
        faults.append(SettingFault("items", "not distinct", str(keys), "one or more items, each with a key of its own"))
    for item in items:
        shapes = [(rgb.shape, str(rgb.dtype)) for rgb in item.images]
        if not shapes or any(len(shape) != 3 or shape[2] != 3 or kind != "uint8" for shape, kind in shapes):
            faults.append(SettingFault(item.key, "not pictures", str(shapes), "(height, width, 3) uint8, at least one"))
    if faults:
        raise SettingsError(faults)


def _result(
    base: Base,
    item: TrainItem,
    progress: Progress,
    factors: FlatFactors,
    index: int,
    count: int,
    settings: TrainSettings,
) -> TrainResult:
    """Copy one adapter out of the pack, alpha / rank folded in, with all that is known about it."""
    if progress.error is not None:
        return TrainResult(None, progress.final_loss, progress.skipped, progress.losses, progress.error)
    layers = {
        name: Factors(down[index].cpu().clone(), up[index].cpu() * (settings.scale * settings.constrained(name)))
        for name, (down, up) in factors.exact.items()
    }
    if item.prompt:
        settings = settings.model_copy(update={"prompt": item.prompt})
    metadata = {
        "key": item.key,
        "prompt": settings.prompt,
        "base": base.name,
        "base_revision": base.revision,
        "settings": json.dumps(settings.identity(), sort_keys=True),
        "recipe_version": str(recipe_version(len(item.images))),
        "rank": str(settings.rank),
        "steps": str(count),
        "skipped_steps": str(progress.skipped),
        "reseeds": str(progress.reseeds),
        "lowered_rates": str(progress.lowered),
        "final_loss": repr(progress.final_loss),
        "seed": str(settings.seed),
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
    }
    if split := settings.identity().get("blocks"):
        metadata[SPLIT_KEY] = json.dumps(split, sort_keys=True)
    adapter = Adapter(layers, {**metadata, **item.metadata})
    return TrainResult(adapter, progress.final_loss, progress.skipped, progress.losses, None)
