"""Shared by the tests of training: a cheap recipe, comparisons, a poison, and the same training by plain PEFT."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from peft import LoraConfig

from blora.adapter import Adapter, Factors
from blora.base import Base
from blora.blocks import target_layers
from blora.config import TrainSettings
from blora.optim import FlatFactors
from blora.prepare import draw_noise, prepare_photos, seeded
from blora.train import TrainItem, TrainResult
from tests.tiny import RESOLUTION_PX, picture

SETTINGS = TrainSettings(resolution_px=RESOLUTION_PX, rank=4, learning_rate=1e-3, steps=3, batch_size=1)
"""A few cheap steps of the tiny base."""


def recipe(**changes: Any) -> TrainSettings:
    return TrainSettings(**{**SETTINGS.model_dump(), **changes})


def item(number: int, height_px: int = 40, width_px: int = 32) -> TrainItem:
    return TrainItem((picture(number, height_px, width_px),), f"item {number}")


def weights(result: TrainResult | Adapter) -> torch.Tensor:
    """Return all weight deltas as one vector."""
    adapter = result.adapter if isinstance(result, TrainResult) else result
    assert adapter is not None
    return torch.cat([adapter.layers[name].delta.flatten() for name in sorted(adapter.layers)])


def distance(first: TrainResult | Adapter, second: TrainResult | Adapter) -> float:
    return float((weights(first) - weights(second)).norm() / weights(first).norm())


def bit_equal(first: TrainResult, second: TrainResult) -> bool:
    assert first.adapter is not None and second.adapter is not None
    return np.array_equal(first.losses, second.losses, equal_nan=True) and all(
        torch.equal(factors.down, second.adapter.layers[name].down)
        and torch.equal(factors.up, second.adapter.layers[name].up)
        for name, factors in first.adapter.layers.items()
    )


@contextmanager
def poisoned(base: Base, rows: dict[int, set[int]]) -> Iterator[None]:
    """Turn rows of the UNet's input to NaN in chosen forward passes: by row, the numbers of the passes."""
    calls = iter(range(10**6))

    def poison(module: Any, args: tuple[torch.Tensor, ...]) -> tuple[Any, ...]:
        call, sample = next(calls), args[0].clone()
        for row, passes in rows.items():
            if call in passes:
                sample[row] = torch.nan
        return (sample, *args[1:])

    handle = base.unet.register_forward_pre_hook(poison)
    try:
        yield
    finally:
        handle.remove()


def train_with_peft(base: Base, folder: Path, one: TrainItem, settings: TrainSettings) -> Adapter:
    """Train one adapter the usual way, sharing only the random numbers and the prepared picture."""
    unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet").requires_grad_(False)
    layers = (*target_layers(unet, "content"), *target_layers(unet, "style"))
    unet.add_adapter(
        LoraConfig(r=settings.rank, lora_alpha=settings.scale * settings.rank, target_modules=list(layers))
    )
    generator = seeded(one.key, settings.seed)
    shapes = {name: tuple(base.unet.get_parameter(f"{name}.weight").shape) for name in layers}
    start = FlatFactors(shapes, 1, settings.rank)  # type: ignore[arg-type]
    start.draw_down(0, generator)
    for name, (down, up) in start.layers.items():
        unet.get_parameter(f"{name}.lora_A.default.weight").data.copy_(down[0])
        unet.get_parameter(f"{name}.lora_B.default.weight").data.copy_(up[0])
    trained = [parameter for parameter in unet.parameters() if parameter.requires_grad]
    betas, decay = (settings.beta1, settings.beta2), settings.weight_decay
    optimizer = torch.optim.AdamW(trained, settings.learning_rate, betas, settings.epsilon, decay)
    schedule = DDPMScheduler.from_pretrained(folder, subfolder="scheduler")
    prompt, photos = base.encode_prompts([settings.prompt]), prepare_photos(base, one.images, settings)
    for step in range(settings.steps):
        rows = draw_noise(generator, photos, step, settings, schedule.config.num_train_timesteps)
        noise = torch.stack([row.noise for row in rows])
        latents = torch.cat([photos[0].mean + photos[0].std * row.posterior for row in rows])
        timesteps = torch.tensor([row.timestep for row in rows])
        predicted = unet(
            schedule.add_noise(latents, noise, timesteps),
            timesteps,
            encoder_hidden_states=prompt.hidden.repeat(len(rows), 1, 1),
            added_cond_kwargs={
                "text_embeds": prompt.pooled.repeat(len(rows), 1),
                "time_ids": photos[0].time_ids.repeat(len(rows), 1),
            },
        ).sample
        v = base.prediction_type == "v_prediction"
        target = schedule.get_velocity(latents, noise, timesteps) if v else noise
        torch.nn.functional.mse_loss(predicted, target).backward()
        torch.nn.utils.clip_grad_norm_(trained, settings.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
    return Adapter(
        {
            name: Factors(
                unet.get_parameter(f"{name}.lora_A.default.weight").detach(),
                unet.get_parameter(f"{name}.lora_B.default.weight").detach() * settings.scale,
            )
            for name in layers
        }
    )
