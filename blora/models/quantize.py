"""Frozen linear layers whose weights are kept in few bits, and made whole for each product alone.

    kept in   by             bytes a weight               numbers
    nf4       bitsandbytes   0.516                        4-bit NormalFloat in blocks of 64, their scales quantised, too
    int8      torchao        1, and four a row            8-bit integers, a scale a row
    fp8       torchao        1, and four a row            8-bit floats (e4m3), a scale a row

These are the backends of diffusers' `BitsAndBytesConfig` and `TorchAoConfig`, called with the same arguments: weights
are those of its pipelines. The product is ours: bitsandbytes takes another kernel where a batch has one row alone, and
torchao keeps the whole weight of every layer for the backward pass, which is what there is no room for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from blora.bases.spec import Quantization

__all__ = ["FrozenProduct", "QuantizedLinear", "quantize_blocks"]


class QuantizedLinear(nn.Linear):
    """A frozen linear layer: what keeps its weight makes it whole in each product, forwards and backwards."""

    def __init__(self, linear: nn.Linear, kept: nn.Parameter, whole: Callable[[Tensor], Tensor]) -> None:
        """Take the place of a layer.

        Args:
            linear: The layer, whose bias is taken over.
            kept: What its weight is kept in; it takes its name.
            whole: Makes the weight (out, in) of it.
        """
        super().__init__(linear.in_features, linear.out_features, bias=False, device="meta")
        self.weight, self.bias = kept, linear.bias
        self._whole = whole

    def whole(self) -> Tensor:
        """Return the weight (out, in) in the number format that it was quantised from."""
        return self._whole(self.weight)

    @torch.compiler.disable  # what keeps the weight is no plain tensor; a compiled block goes on behind it
    def forward(self, hidden: Tensor) -> Tensor:
        """Return (..., out) of (..., in)."""
        out: Tensor = FrozenProduct.apply(hidden, self.bias, self.whole)
        return out


class FrozenProduct(torch.autograd.Function):
    """A product with a weight that is made whole and forgotten, and made once more for the gradient of its input."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, bias: Tensor | None, whole: Callable[[], Tensor]) -> Tensor:
        """Return (..., out) of (..., in); what `whole` returns is not kept."""
        ctx.whole = whole
        return functional.linear(hidden, whole().to(hidden.dtype), bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """Return the gradient of what came in."""
        (gradient,) = gradients
        return gradient @ ctx.whole().to(gradient.dtype), None, None


def quantize_blocks(denoiser: nn.Module, into: Quantization, device: torch.device) -> None:
    """Keep the weights of all linear layers of a denoiser's transformer blocks in few bits, one layer after the other.

    What lies outside these blocks, some hundredths of the weights, stays as it is: what numbers come in and go out by.

    Args:
        denoiser: Frozen, of any family, on any device; changed in place.
        into: What the weights are kept in.
        device: Where the layers go.
    """
    keep = _in_nf4 if into == "nf4" else _in_eight_bits
    layers = [name for name, module in denoiser.named_modules() if isinstance(module, nn.Linear)]
    for name in layers:
        if "transformer_blocks." in name:
            linear: Any = denoiser.get_submodule(name)
            denoiser.set_submodule(name, keep(linear.to(device).requires_grad_(False), into))


def _in_nf4(linear: nn.Linear, _: Quantization) -> QuantizedLinear:
    import bitsandbytes

    kinds: Any = bitsandbytes.nn  # its types say less than it does
    kept = kinds.Params4bit(linear.weight.data, requires_grad=False, quant_type="nf4", compress_statistics=True)
    if linear.weight.device.type == "meta":  # where memory is counted; `to` leaves it as it is
        kept = kept._quantize(linear.weight.device)

    def whole(kept: Any) -> Tensor:
        weight: Tensor = bitsandbytes.functional.dequantize_4bit(kept.data, kept.quant_state)
        return weight

    return QuantizedLinear(linear, kept.to(linear.weight.device), whole)


def _in_eight_bits(linear: nn.Linear, into: Quantization) -> QuantizedLinear:
    from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig, quantize_

    quantize_(linear, Int8WeightOnlyConfig() if into == "int8" else Float8WeightOnlyConfig())

    def whole(kept: Any) -> Tensor:
        weight: Tensor = kept.dequantize()
        return weight

    kept: Any = linear.weight
    return QuantizedLinear(linear, kept, whole)
