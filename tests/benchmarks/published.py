"""The published recipe as one runs it without this package: the baseline of ``python -m tests.benchmarks.sdxl``.

Written from its description, for one adapter at a time: the picture is loaded and encoded by the fp32 autoencoder in
every step, LoRA by peft on plain diffusers, gradient checkpointing, fp16 autocast on a GPU, batch 1, 8-bit AdamW where
bitsandbytes is installed and torch's AdamW where not, the loss fetched in every step. Source: arXiv 2403.14572,
section 4.2, and the launch line of the reference repository yardenfren1996/B-LoRA @ e08380d.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler
from numpy.typing import NDArray
from peft import LoraConfig
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from blora.adapters.blocks import target_layers
from blora.models.model import Base
from blora.settings.training import TrainSettings


class OnePicture(Dataset[Tensor]):
    """A folder with one picture, prepared anew each time that it is asked for."""

    def __init__(self, rgb: NDArray[np.uint8], side_px: int) -> None:
        """Keep the picture as it came."""
        self.rgb, self.side_px = rgb, side_px

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Tensor:
        """Return (3, side, side), -1 to 1."""
        resized = Image.fromarray(self.rgb).resize((self.side_px, self.side_px), Image.Resampling.BILINEAR)
        return torch.from_numpy(np.array(resized)).permute(2, 0, 1).float() / 127.5 - 1.0


def optimizer_of(parameters: list[Tensor], settings: TrainSettings, device: torch.device) -> tuple[Any, str]:
    """Return the recipe's optimizer and its name."""
    given: dict[str, Any] = {
        "lr": settings.learning_rate,
        "betas": (settings.beta1, settings.beta2),
        "weight_decay": settings.weight_decay,
        "eps": settings.epsilon,
    }
    if device.type == "cuda":
        try:
            import bitsandbytes
        except ImportError:
            pass
        else:
            return bitsandbytes.optim.AdamW8bit(parameters, **given), "8-bit AdamW of bitsandbytes"
    return torch.optim.AdamW(parameters, **given), "AdamW of torch"


def published_format(device: torch.device) -> torch.dtype:
    """Return what the reference computes in, whatever ours does: fp16 on a GPU, fp32 on a CPU."""
    return torch.float16 if device.type == "cuda" else torch.float32


@contextlib.contextmanager
def as_published(base: Base) -> Iterator[None]:
    """The frozen UNet in the reference's number format; given back in the one that it came in."""
    base.unet.to(published_format(base.device))
    try:
        yield
    finally:
        base.unet.to(base.dtype)


def train_published(
    base: Base,
    rgb: NDArray[np.uint8],
    settings: TrainSettings,
    steps: int,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[list[float], str]:
    """Train one adapter; the UNet is left as it was found.

    Args:
        base: Its UNet, autoencoder and text encoders are used as plain diffusers modules.
        rgb: The picture, (height, width, 3) uint8.
        settings: The recipe; batch size and precision are the published ones whatever it says.
        steps: Steps to take.
        clock: What counts seconds.

    Returns:
        Seconds of each step, and which optimizer it was.
    """
    unet, device = base.unet, base.device
    dtype = published_format(device)
    layers = (*target_layers(unet, "content"), *target_layers(unet, "style"))
    prompt = base.encode_prompts([settings.prompt])
    schedule = DDPMScheduler.from_config(base.scheduler_config)
    ids = base.time_ids((rgb.shape[0], rgb.shape[1]), (0, 0), (settings.resolution_px,) * 2)
    seconds = []
    with as_published(base):
        unet.add_adapter(LoraConfig(r=settings.rank, lora_alpha=settings.rank, target_modules=list(layers)))
        unet.enable_gradient_checkpointing()
        unet.train()
        try:
            trained = [parameter for parameter in unet.parameters() if parameter.requires_grad]
            for parameter in trained:
                parameter.data = parameter.data.float()
            optimizer, name = optimizer_of(trained, settings, device)
            scaler = torch.amp.GradScaler(device.type, enabled=device.type == "cuda")
            folder = OnePicture(rgb, settings.resolution_px)
            for _ in range(steps):
                began = clock()
                pixels = next(iter(DataLoader(folder))).to(device)
                with torch.no_grad():
                    latents = base.vae.encode(pixels).latent_dist.sample() * base.vae.config.scaling_factor
                noise = torch.randn_like(latents)
                timesteps = torch.randint(schedule.config.num_train_timesteps, (1,), device=device)
                noisy = schedule.add_noise(latents, noise, timesteps).to(dtype)
                with autocast(device):
                    predicted = unet(
                        noisy,
                        timesteps,
                        encoder_hidden_states=prompt.hidden.to(dtype),
                        added_cond_kwargs={"text_embeds": prompt.pooled.to(dtype), "time_ids": ids},
                    ).sample
                    loss = torch.nn.functional.mse_loss(predicted.float(), noise.float())
                scaler.scale(loss).backward()
                scaler.unscale_(optimizer)
                torch.nn.utils.clip_grad_norm_(trained, settings.max_grad_norm)
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad()
                loss.item()  # logged
                seconds.append(clock() - began)
        finally:
            unet.eval()
            unet.disable_gradient_checkpointing()
            unet.unload_lora()
    return seconds, name


def autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Fp16 on a GPU, nothing on a CPU."""
    return torch.autocast("cuda", torch.float16) if device.type == "cuda" else contextlib.nullcontext()
