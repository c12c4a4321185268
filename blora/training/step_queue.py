"""Steps that a device has been told to take, and what is made of their numbers once they arrive."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from blora.models.passes.execution import to_device
from blora.training.nan_policy import Progress
from blora.training.noise import FrontPool, draw_noise
from blora.training.optim import PackedAdamW
from blora.training.stepper import Stepper

__all__ = ["QueuedStep", "queue_step", "settle"]


@dataclass(frozen=True, eq=False)
class QueuedStep:
    """A step that the device has been told to take.

    Attributes:
        step: Its number, from 1.
        loss_scales: Each adapter's loss scale in that step.
        figures: (2, adapters) fp32: losses and norms of gradients; valid once ``arrived``.
        arrived: Set when they have come from the GPU; None on the CPU, where they are there.
    """

    step: int
    loss_scales: list[float]
    figures: Tensor
    arrived: torch.cuda.Event | None


def queue_step(
    stepper: Stepper,
    pack: Sequence[Progress],
    turns: Sequence[str],
    optimizer: PackedAdamW,
    step: int,
    pool: FrontPool | None = None,
) -> QueuedStep:
    """Tell the device to take one step with every adapter whose numbers are finite, and wait for nothing.

    Args:
        stepper: The pack inside the UNet.
        pack: The adapters.
        turns: What fixes the order of each adapter's photos.
        optimizer: Of the pack.
        step: From 1.
        pool: Of draws that come again, if there is one.
    """
    settings, photos, timesteps = stepper.settings, stepper.photos, stepper.timesteps
    drawn = {
        id(progress.generator): (progress.generator, photos[i], turns[i], stepper.shifts[i])
        for i, progress in enumerate(pack)
    }
    draws = {
        name: pool.draw(generator, seen, step - 1, timesteps, key)
        if pool  # whose base learns by no flow, and so has no shift
        else draw_noise(generator, seen, step - 1, settings, timesteps, key, shifts)
        for name, (generator, seen, key, shifts) in drawn.items()
    }
    if pool:
        pool.forget_all_but([progress.generator for progress in pack])
    scales = [progress.loss_scale for progress in pack]
    losses, norms = stepper.run([draws[id(progress.generator)] for progress in pack], scales)
    finite = losses.isfinite() & norms.isfinite()
    clips = (settings.max_grad_norm / (norms + 1e-6)).clamp(max=1.0)
    share = settings.rate_share(step)
    rates = [progress.rate * share if progress.error is None else None for progress in pack]
    divisors = to_device(torch.tensor(scales, dtype=torch.float32), stepper.base.device) / clips
    optimizer.step(stepper.factors.grads, rates, divisors, finite)
    figures = torch.stack([losses, norms])
    if figures.device.type != "cuda":
        return QueuedStep(step, scales, figures, None)
    kept = torch.empty(figures.shape, pin_memory=True).copy_(figures, non_blocking=True)
    arrived = torch.cuda.Event()
    arrived.record()
    return QueuedStep(step, scales, kept, arrived)


def settle(queued: QueuedStep, stepper: Stepper, pack: Sequence[Progress], optimizer: PackedAdamW) -> None:
    """Judge a step that has been taken; what is not finite, the device has left alone by itself."""
    if queued.arrived is not None:
        queued.arrived.synchronize()
    losses, norms = queued.figures.tolist()
    for index, progress in enumerate(pack):
        verdict = progress.judge(losses[index], norms[index], queued.loss_scales[index], stepper.settings)
        if verdict == "halve":
            stepper.factors.weaken(index, 0.5)
            optimizer.reset(index)
        elif verdict == "stop":
            stepper.factors.weaken(index, 0.0)  # what it learned is of no use, and zeros cannot overflow
