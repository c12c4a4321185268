"""Keys and values of prompts that stay the same: computed once, not in each pass through the UNet.

Cross-attention asks the prompt for keys and values. While pictures are drawn, neither prompts nor adapters change from
step to step; while adapters train, the prompt is one and the same in all rows and steps, so that only what the
adapters add to the keys and values of their own blocks is still to be computed, once an adapter.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from blora.adapters.packed import PackedLinear
from blora.settings.block_split import Stretch

__all__ = ["Remembered", "fixed_prompts"]


class Remembered(nn.Module):
    """A linear layer whose answer is known.

    Attributes:
        base: The layer as it was.
        output: (rows, tokens, out), or (1, tokens, out) where all rows are told the same and none are expected.
    """

    def __init__(self, base: nn.Module, output: Tensor, rows: int = 1) -> None:
        """Keep the answer beside the layer, written out for so many rows.

        Rows that are one in memory (stride 0) would be copied by attention's kernels in each pass.
        """
        super().__init__()
        self.base = base
        self.output = output.expand(rows, -1, -1).contiguous() if len(output) == 1 else output

    def forward(self, hidden: Tensor) -> Tensor:
        """Return the known answer for as many rows as are asked for; the values of ``hidden`` are not looked at."""
        count = hidden.shape[0]
        return self.output if count == len(self.output) else self.output[:1].expand(count, -1, -1)


@contextmanager
def fixed_prompts(
    unet: nn.Module, hidden: Tensor, by_block: Mapping[str, Tensor] | None = None, rows: int = 1
) -> Iterator[None]:
    """While the context is open, the cross-attention is told these prompts, whatever the UNet is called with.

    Layers whose adapters train keep computing what the adapters add; all others answer from memory.

    Args:
        unet: The UNet, with its adapters injected; they must not be changed meanwhile.
        hidden: Prompt embeddings (rows, tokens, context) of all rows of the coming passes, or (1, tokens, context)
            where all rows are told the same.
        by_block: What some blocks are told instead, by the name of a block's transformer, for example
            "up_blocks.0.attentions.0", or of several as a stretch; no block in two of them.
        rows: Rows of the coming passes where all are told the same; answers are written out for them (26 MB a row of
            SDXL in half precision). A pass of another number is answered, too.
    """
    holders: list[tuple[nn.Module, str, nn.Module]] = []
    special = [(Stretch.read(block), own) for block, own in (by_block or {}).items()]
    try:
        for name, module in list(unet.named_modules()):
            if not name.endswith((".attn2.to_k", ".attn2.to_v")):
                continue
            told = next((own for block, own in special if block.holds(name)), hidden)
            trains = isinstance(module, PackedLinear) and module.down.requires_grad
            holder, slot = (module, "base") if trains else (unet.get_submodule(name.rpartition(".")[0]), name[-4:])
            layer = getattr(holder, slot)
            with torch.no_grad():
                setattr(holder, slot, Remembered(layer, layer(told), rows))
            holders.append((holder, slot, layer))
        yield
    finally:
        for holder, slot, layer in holders:
            setattr(holder, slot, layer)
