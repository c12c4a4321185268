"""Frozen weights in eight bits: linear layers are stored as float8_e4m3fn and computed with in the model's own format.

Each output channel has a scale, a power of two, so that what is multiplied is exactly what is stored: the only error is
that of three bits of mantissa, at most 1/16 of a weight or, of small ones, 1/1024 of the scale. No operation computes
in fp8, so that any device will do.
Source: storage and computation apart as in diffusers' ``enable_layerwise_casting`` and kohya-ss/sd-scripts'
``--fp8_base``, which have no scale. Norms, embeddings and convolutions stay as they are, as in diffusers.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Final

import torch
from torch import Tensor, nn

from blora.models.quantize import FrozenProduct

__all__ = ["Fp8Linear", "fits_fp8", "held_in_fp8"]

_FORMAT: Final = torch.float8_e4m3fn
_LARGEST: Final = 448.0
"""The largest number of the format."""


class Fp8Linear(nn.Module):
    """A frozen linear layer that is stored in eight bits.

    Attributes:
        weight: (out, in) float8_e4m3fn, the weight divided by its scale.
        scale: (out, 1) in the layer's format, powers of two.
        bias: The layer's own.
    """

    weight: Tensor
    scale: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        """Store a layer; its weight may go afterwards."""
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        with torch.no_grad():
            exact = linear.weight.float()
            largest = exact.abs().amax(dim=1, keepdim=True)
            least = math.frexp(torch.finfo(linear.weight.dtype).smallest_normal)[1] - 1
            scale = torch.exp2(torch.frexp(largest / _LARGEST).exponent.clamp(min=least).float())
            self.register_buffer("weight", (exact / scale).to(_FORMAT), persistent=False)
            self.register_buffer("scale", scale.to(linear.weight.dtype), persistent=False)
        self.bias = linear.bias

    def forward(self, hidden: Tensor) -> Tensor:
        """Return what the layer would, with the weight as it is stored: (…, in) to (…, out)."""
        product: Tensor = FrozenProduct.apply(hidden, self.bias, self.whole)
        return product

    def whole(self) -> Tensor:
        """Return the weight (out, in) in the layer's format, exactly as it is stored."""
        return self.weight.to(self.scale.dtype) * self.scale


def fits_fp8(name: str, module: nn.Module) -> bool:
    """Whether a module of a denoiser is a linear layer of a transformer block, and none of its norms."""
    return isinstance(module, nn.Linear) and "transformer_blocks." in name and ".norm" not in name


@contextmanager
def held_in_fp8(denoiser: nn.Module, spare: Collection[str]) -> Iterator[None]:
    """While the context is open, the frozen linear layers of a denoiser's transformer blocks are stored in eight bits.

    Their own weights wait in the CPU's memory (3.8 GB of SDXL in half precision) and come back bit for bit. On a CPU
    they stay where they are, so that nothing is saved there.

    Args:
        denoiser: A UNet or a transformer, without adapters.
        spare: Names of the layers to leave alone: those that are trained.
    """
    kept: dict[str, tuple[nn.Linear, torch.device]] = {}
    try:
        for name, module in list(denoiser.named_modules()):
            if isinstance(module, nn.Linear) and fits_fp8(name, module) and name not in spare:
                denoiser.set_submodule(name, Fp8Linear(module))
                kept[name] = (module, module.weight.device)
                if module.weight.device.type == "cuda":
                    module.weight.data = module.weight.data.cpu()
        yield
    finally:
        for name, (module, device) in kept.items():
            denoiser.set_submodule(name, module)
            module.weight.data = module.weight.data.to(device)
