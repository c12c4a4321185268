"""SDXL's UNet in two parts: the front, that is, everything before the up blocks, and the rest.

No layer of a B-LoRA lies in the front, so that what it makes of a noisy picture, a timestep and a prompt stays the same
while adapters train. It is 2.93 of the 10.95 TFLOP of a training step of SDXL at 1024 px (counted), and what it hands
on, the middle block's output and the skips, is 53.7 MB a row in half precision.
Source: the order of calls is that of diffusers' UNet2DConditionModel.forward, without what SDXL does not have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from blora.models.passes.execution import to_device

__all__ = ["KeptFronts", "front_of", "rest_of"]


@torch.no_grad()
def front_of(
    unet: Any, noisy: Tensor, told: Tensor, hidden: Tensor, conditions: Mapping[str, Tensor]
) -> tuple[Tensor, ...]:
    """Go through the front.

    Args:
        unet: A UNet of diffusers; nothing in its front may want a gradient.
        noisy: (rows, channels, height, width) in its number format; sides a multiple of its coarsest level.
        told: The timestep of each row, (rows,).
        hidden: Prompts (rows, tokens, context).
        conditions: Pooled prompts and sizes, as `Family.conditions` returns them.

    Returns:
        The middle block's output, then the skips in the order in which they are made, each (rows, …).
    """
    times = _time_embedding(unet, noisy, told, hidden, conditions)
    context = unet.process_encoder_hidden_states(encoder_hidden_states=hidden, added_cond_kwargs=dict(conditions))
    sample = unet.conv_in(noisy)
    skips = [sample]
    for block in unet.down_blocks:
        more = {"encoder_hidden_states": context} if getattr(block, "has_cross_attention", False) else {}
        sample, made = block(hidden_states=sample, temb=times, **more)
        skips += made
    return (unet.mid_block(sample, times, encoder_hidden_states=context), *skips)


def rest_of(
    unet: Any, front: tuple[Tensor, ...], told: Tensor, hidden: Tensor, conditions: Mapping[str, Tensor]
) -> Tensor:
    """Go on from what `front_of` returned, with the same timesteps, prompts and conditions.

    Returns:
        (rows, channels, height, width): what the UNet itself returns.
    """
    sample, *skips = front
    times = _time_embedding(unet, sample, told, hidden, conditions)
    context = unet.process_encoder_hidden_states(encoder_hidden_states=hidden, added_cond_kwargs=dict(conditions))
    for block in unet.up_blocks:
        count = len(block.resnets)
        skips, taken = skips[:-count], tuple(skips[-count:])
        more = {"encoder_hidden_states": context} if getattr(block, "has_cross_attention", False) else {}
        sample = block(hidden_states=sample, temb=times, res_hidden_states_tuple=taken, **more)
    predicted: Tensor = unet.conv_out(unet.conv_act(unet.conv_norm_out(sample)))
    return predicted


def _time_embedding(unet: Any, like: Tensor, told: Tensor, hidden: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
    """What every block is told of timestep, pooled prompt and size, (rows, width), in the number format of ``like``."""
    times: Tensor = unet.time_embedding(unet.get_time_embed(sample=like, timestep=told), None)
    added = unet.get_aug_embed(emb=times, encoder_hidden_states=hidden, added_cond_kwargs=dict(conditions))
    return times if added is None else times + added


class KeptFronts:
    """What the front made of each draw, kept as long as the draw itself is."""

    def __init__(self, place: torch.device, device: torch.device) -> None:
        """Hold nothing.

        Args:
            place: Where fronts lie: the device, or the CPU's memory.
            device: Where they are used.
        """
        self.place, self.device = place, device
        self._kept: WeakKeyDictionary[Any, dict[int, tuple[Tensor, ...]]] = WeakKeyDictionary()

    def of(
        self, rows: Sequence[tuple[int, Any, int]], compute: Callable[[list[int]], tuple[Tensor, ...]]
    ) -> tuple[Tensor, ...]:
        """Return the fronts of some rows as one batch, on the device.

        What is missing is computed adapter by adapter, so that a front has the same bits in any pack and after any
        checkpoint: its rows are always those that were drawn together.

        Args:
            rows: Of each row its adapter, its draw (any object that knows no equal), and which prompt it is told.
            compute: Computes the front of the rows with these numbers.
        """
        missing: dict[tuple[int, int], list[int]] = {}
        for number, (adapter, noise, told) in enumerate(rows):
            if told not in self._kept.get(noise, {}):
                missing.setdefault((adapter, told), []).append(number)
        for (_, told), numbers in missing.items():
            made = [self._placed(part) for part in compute(numbers)]
            for at, number in enumerate(numbers):
                own = tuple(part[at : at + 1] for part in made)
                self._kept.setdefault(rows[number][1], {})[told] = own
        fronts = [self._kept[noise][told] for _, noise, told in rows]
        return tuple(torch.cat([self._fetched(part) for part in parts]) for parts in zip(*fronts, strict=True))

    def _placed(self, part: Tensor) -> Tensor:
        """Where it is kept; for a GPU in memory from which it comes without anybody waiting."""
        if self.place.type == part.device.type:
            return part
        return torch.empty(part.shape, dtype=part.dtype, pin_memory=True).copy_(part)

    def _fetched(self, part: Tensor) -> Tensor:
        """On the device."""
        return part if part.device.type == self.device.type else to_device(part, self.device)
