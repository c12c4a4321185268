"""The same training by plain diffusers and PEFT: what ours is compared with, in tests and at full size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from diffusers.optimization import get_scheduler
from peft import LoraConfig
from torch import Tensor

from blora.adapters.adapter import Adapter
from blora.adapters.blocks import target_layers
from blora.adapters.factors import Factors
from blora.models.model import Base
from blora.settings.training import TrainSettings
from blora.training.items import TrainItem
from blora.training.noise import draw_noise, seeded
from blora.training.optim import FlatFactors
from blora.training.photos import prepare_photos


def train_with_peft(
    base: Base,
    unet: UNet2DConditionModel,
    one: TrainItem,
    settings: TrainSettings,
    on_loss: Callable[[float], None] | None = None,
) -> Adapter:
    """Train one adapter the usual way in fp32, sharing only the random numbers and the prepared picture.

    Args:
        base: Encodes picture and prompt; its UNet is only asked for its shapes.
        unet: The same UNet in fp32, without adapters; it keeps the one that is trained.
        one: What to train on; a single photo.
        settings: The recipe.
        on_loss: Told the loss of each step.
    """
    layers = (*target_layers(unet, "content"), *target_layers(unet, "style"))
    generator = seeded(one.key, settings.seed)
    optimizer = begin(base, unet, layers, settings, generator)
    rates = get_scheduler(
        settings.learning_rate_schedule, optimizer, num_warmup_steps=0, num_training_steps=settings.steps
    )
    schedule: Any = DDPMScheduler.from_config(base.scheduler_config)
    prompt, photos = base.encode_prompts([settings.prompt]), prepare_photos(base, one.images, settings)
    for step in range(settings.steps):
        rows = draw_noise(generator, photos, step, settings, schedule.config.num_train_timesteps, one.key)
        noise = torch.stack([row.noise for row in rows]).to(base.device)
        posterior = torch.stack([row.posterior for row in rows]).to(base.device)
        latents = photos[0].mean + photos[0].std * posterior
        timesteps = torch.tensor([row.timestep for row in rows], device=base.device)
        predicted: Tensor = unet(
            schedule.add_noise(latents, noise, timesteps),
            timesteps,
            encoder_hidden_states=prompt.hidden.float().repeat(len(rows), 1, 1),
            added_cond_kwargs={
                "text_embeds": prompt.pooled.float().repeat(len(rows), 1),
                "time_ids": photos[0].time_ids.repeat(len(rows), 1),
            },
        ).sample
        v = base.prediction_type == "v_prediction"
        target = schedule.get_velocity(latents, noise, timesteps) if v else noise
        loss = torch.nn.functional.mse_loss(predicted, target)
        descend(loss, optimizer, settings)
        rates.step()
        if on_loss:
            on_loss(float(loss.detach()))
    return trained_adapter(unet, layers, settings)


def begin(
    base: Base, denoiser: Any, layers: Sequence[str], settings: TrainSettings, generator: torch.Generator
) -> torch.optim.Optimizer:
    """Give a frozen denoiser PEFT's adapter with the first weights that ours draws; return what trains it."""
    denoiser.requires_grad_(False)
    ranks = {name: settings.rank // settings.constrained(name) for name in layers}
    alpha = settings.scale * settings.rank  # in a constrained block, too: of a smaller rank it is a larger scale
    denoiser.add_adapter(LoraConfig(r=settings.rank, rank_pattern=ranks, lora_alpha=alpha, target_modules=list(layers)))
    shapes: dict[str, Any] = {name: tuple(base.unet.get_parameter(f"{name}.weight").shape) for name in layers}
    start = FlatFactors(shapes, 1, ranks)
    start.draw_down(0, generator)
    for name, (down, up) in start.exact.items():
        denoiser.get_parameter(f"{name}.lora_A.default.weight").data.copy_(down[0])
        denoiser.get_parameter(f"{name}.lora_B.default.weight").data.copy_(up[0])
    trained = [parameter for parameter in denoiser.parameters() if parameter.requires_grad]
    betas, decay = (settings.beta1, settings.beta2), settings.weight_decay
    return torch.optim.AdamW(trained, settings.learning_rate, betas, settings.epsilon, decay)


def descend(loss: Tensor, optimizer: torch.optim.Optimizer, settings: TrainSettings) -> None:
    """Take one step down a loss, its gradient clipped."""
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], settings.max_grad_norm)
    optimizer.step()
    optimizer.zero_grad()


def trained_adapter(denoiser: Any, layers: Sequence[str], settings: TrainSettings) -> Adapter:
    """Return PEFT's adapter as ours."""
    return Adapter(
        {
            name: Factors(
                denoiser.get_parameter(f"{name}.lora_A.default.weight").detach(),
                denoiser.get_parameter(f"{name}.lora_B.default.weight").detach()
                * (settings.scale * settings.constrained(name)),
            )
            for name in layers
        }
    )
