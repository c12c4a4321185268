"""How many operations the mathematics needs, and how many ours takes: counted, not timed.

The reference of a training step is plain diffusers with PEFT, one row, nothing recomputed: a forward pass, and the
backward pass through what lies behind the first adapter. That of a sampling step is two forward passes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from blora.adapters.blocks import target_layers
from blora.adapters.packed import Rows, inject
from blora.models.model import Base
from blora.models.passes.prompt_cache import fixed_prompts
from blora.sampling.denoise import denoise
from blora.settings.sampling import SampleSettings
from blora.settings.training import TrainSettings
from blora.training.noise import Noise
from blora.training.optim import FlatFactors
from blora.training.photos import Photo
from blora.training.stepper import Stepper


def both_halves(base: Base) -> dict[str, tuple[int, int]]:
    """Return (out, in) of every adapted layer."""
    names = (*target_layers(base.unet, "content"), *target_layers(base.unet, "style"))
    linears: dict[str, Any] = {name: base.unet.get_submodule(name) for name in names}
    return {name: (linear.out_features, linear.in_features) for name, linear in linears.items()}


def unet_inputs(base: Base, side_px: int, rows: int = 1) -> dict[str, Any]:
    """Return what the UNet is called with, for so many rows."""
    side, config = side_px // base.vae_scale_factor, base.unet.config
    pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
    like: dict[str, Any] = {"device": base.device, "dtype": base.dtype}
    return {
        "sample": torch.zeros(rows, base.latent_channels, side, side, **like),
        "timestep": torch.zeros(rows, device=base.device),
        "encoder_hidden_states": torch.zeros(rows, 77, config.cross_attention_dim, **like),
        "added_cond_kwargs": {
            "text_embeds": torch.zeros(rows, pooled, **like),
            "time_ids": torch.zeros(rows, 6, device=base.device),
        },
    }


def counted(work: Callable[[], Any]) -> float:
    """Count the operations of something that needs no gradient."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


def forward_flop(base: Base, side_px: int) -> float:
    """Count one forward pass without adapters."""
    return counted(lambda: base.unet(**unet_inputs(base, side_px)))


def front_flop(base: Base, side_px: int) -> float:
    """Count what no gradient ever enters: everything before the up blocks."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        base.unet(**unet_inputs(base, side_px))
    name, counts = type(base.unet).__name__, counter.get_flop_counts()
    rest = [key for key in counts if key.startswith(f"{name}.up_blocks.") and key.count(".") == 2]
    return float(sum(counts[name].values()) - sum(sum(counts[key].values()) for key in (*rest, f"{name}.conv_out")))


def needed_training_flop(base: Base, side_px: int, rank: int) -> float:
    """Count forward and backward of one row by plain diffusers and PEFT on the same configuration."""
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(base.unet.config).requires_grad_(False)
    unet.add_adapter(LoraConfig(r=rank, target_modules=list(both_halves(base))))
    on_meta = _Meta(base)
    with FlopCounterMode(display=False) as counter:
        unet(**unet_inputs(on_meta, side_px)).sample.square().mean().backward()  # type: ignore[arg-type]
    return float(counter.get_total_flops())


class _Meta:
    """The shape of a base on the device meta in fp32."""

    def __init__(self, base: Base) -> None:
        self.unet, self.latent_channels, self.vae_scale_factor = base.unet, base.latent_channels, base.vae_scale_factor
        self.device, self.dtype = torch.device("meta"), torch.float32


def stepper_of(base: Base, settings: TrainSettings, count: int) -> Stepper:
    """Return a pack of so many adapters over one empty picture, ready to take steps."""
    factors = FlatFactors(both_halves(base), count, settings.rank, base.device, base.dtype)
    side = settings.resolution_px // base.vae_scale_factor
    moments = torch.zeros(1, base.latent_channels, side, side, device=base.device)
    photo = Photo(moments, moments, base.time_ids((side, side), (0, 0), (side, side)))
    return Stepper(base, [(photo,)] * count, factors, settings)


def draws_of(base: Base, settings: TrainSettings, count: int, *, shared: bool = False) -> list[list[Noise]]:
    """Return one step's draws for so many adapters, of their own or the same for all."""
    side = settings.resolution_px // base.vae_scale_factor
    shape = (base.latent_channels, side, side)

    def drawn() -> list[Noise]:
        return [Noise(0, 500, torch.zeros(shape), torch.zeros(shape)) for _ in range(settings.batch_size)]

    return [drawn()] * count if shared else [drawn() for _ in range(count)]


def training_flop(base: Base, settings: TrainSettings, count: int = 1, *, shared: bool = False) -> float:
    """Count one step of ours for each row of each adapter."""
    return training_flops(base, settings, count, shared=shared)[0]


def training_flops(
    base: Base, settings: TrainSettings, count: int = 1, *, shared: bool = False, steps: int = 1
) -> list[float]:
    """Count steps of the same draws, each for each row of each adapter; with a pool, the first makes the fronts."""
    draws = draws_of(base, settings, count, shared=shared)
    counts = []
    with stepper_of(base, settings, count) as stepper:
        for _ in range(steps):
            with FlopCounterMode(display=False) as counter:
                stepper.run(draws, [1.0] * count)
            counts.append(float(counter.get_total_flops()) / (count * settings.batch_size))
    return counts


def sampling_step(base: Base, settings: SampleSettings, rank: int, pictures: int) -> None:
    """Pass a batch of guided pictures through the UNet once, each with an adapter of its own."""
    rows = Rows.regular(pictures, 2, device=base.device)
    factors = {name: _random(pictures, rank, *shape, base) for name, shape in both_halves(base).items()}
    embedded = unet_inputs(base, settings.height_px, 2 * pictures)
    with inject(base.unet, factors, rows), fixed_prompts(base.unet, embedded["encoder_hidden_states"]):
        base.unet(**embedded)


def sampling_flop(base: Base, settings: SampleSettings, rank: int, pictures: int) -> float:
    """Count one guided step of a batch of pictures with adapters, for each picture: three steps less one.

    On the device meta, where a scheduler has no numbers to work with, the step's pass through the UNet alone.
    """
    if base.device.type == "meta":
        return counted(lambda: sampling_step(base, settings, rank, pictures)) / pictures
    rows = Rows.regular(pictures, 2, device=base.device)
    factors = {name: _random(pictures, rank, *shape, base) for name, shape in both_halves(base).items()}
    embedded = unet_inputs(base, settings.height_px, 2 * pictures)
    pooled, hidden = embedded["added_cond_kwargs"]["text_embeds"], embedded["encoder_hidden_states"]
    counts = []
    for steps in (1, 3):
        some = settings.model_copy(update={"steps": steps})
        with inject(base.unet, factors, rows), torch.no_grad(), FlopCounterMode(display=False) as counter:
            denoise(base, hidden, pooled, list(range(pictures)), some, lambda done, of: None)
        counts.append(counter.get_total_flops())
    return (counts[1] - counts[0]) / 2 / pictures


def _random(count: int, rank: int, outer: int, inner: int, base: Base) -> tuple[Tensor, Tensor]:
    like: dict[str, Any] = {"device": base.device, "dtype": base.dtype}
    return torch.ones(count, rank, inner, **like), torch.ones(count, outer, rank, **like)
