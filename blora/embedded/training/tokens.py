"""How the two blocks are told something of their own while the base is trained, and how their attention is read.

A B-LoRA can only say what cross-attention of its block is able to inject, and only through the hidden states of one
fixed prompt. So the base learns to take any layout through `up_blocks.0.attentions.0` and any look through
`up_blocks.0.attentions.1` at the very places where that prompt's padding stands: a token is the padding's hidden state
plus a code of few numbers, so that a low-rank change of `to_k` and `to_v` can say exactly what tokens say.
"""

from __future__ import annotations

import torch
from torch import nn

from blora.embedded.training.clip import PADS
from blora.embedded.training.encoders import CODE, GRID, STYLES

CONTENT_BLOCK, STYLE_BLOCK = 0, 1
PLACES = GRID * GRID


def _project(width: int) -> nn.Linear:
    """A code of unit numbers as a vector of unit numbers; no direction is louder than another."""
    layer = nn.Linear(CODE, width, bias=False)
    nn.init.orthogonal_(layer.weight)
    layer.weight.data.mul_((width / CODE) ** 0.5)
    return layer


class PlacedTokens(nn.Module):
    """The hidden states of a prompt with codes added at the PLACES places of its padding."""

    def __init__(self, width: int) -> None:
        """`width` is that of the hidden states."""
        super().__init__()
        self.content_out, self.style_out = _project(width), _project(width)

    def content(self, prompt: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """(N, 77, width) of a prompt (1, 77, width) and codes (N, PLACES, CODE); zeros leave the prompt as it is."""
        return self._add(prompt, self.content_out(codes))

    def style(self, prompt: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """The same of codes (N, STYLES, CODE), which repeat over the places."""
        return self._add(prompt, self.style_out(codes).repeat(1, PLACES // STYLES, 1))

    @staticmethod
    def _add(prompt: torch.Tensor, said: torch.Tensor) -> torch.Tensor:
        words = prompt[:, :PADS].expand(len(said), -1, -1)
        return torch.cat([words, prompt[:, PADS:] + said], 1)


class BlockContexts:
    """Gives the two blocks contexts of their own; a side that is None reads what all blocks read."""

    def __init__(self, unet: nn.Module) -> None:
        """Hook into the two blocks of `unet`."""
        self.contexts: dict[int, torch.Tensor | None] = {CONTENT_BLOCK: None, STYLE_BLOCK: None}
        for block in self.contexts:
            unet.up_blocks[0].attentions[block].register_forward_pre_hook(self._hook(block), with_kwargs=True)

    def _hook(self, block: int):
        def replace(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
            own = self.contexts[block]
            return None if own is None else (args, {**kwargs, "encoder_hidden_states": own})

        return replace

    def set(self, content: torch.Tensor | None, style: torch.Tensor | None) -> None:
        """What the next passes read."""
        self.contexts[CONTENT_BLOCK], self.contexts[STYLE_BLOCK] = content, style


class PlainAttention:
    """Attention without fused kernels, which can show its weights; a context that all pictures share is read once.

    Most blocks of most batches read one prompt for all pictures, expanded and not copied. Its keys and values are
    worked out once, and all pictures' queries meet them in one product.
    """

    def __init__(self, seen: list[torch.Tensor] | None = None) -> None:
        """With `seen`, weights of cross-attention (N, heads, queries, tokens) are put there while gradients are on."""
        self.seen = seen

    def __call__(
        self,
        attn: nn.Module,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        **_: object,
    ) -> torch.Tensor:
        """The attention layer's output, as diffusers' processors give it."""
        size = len(hidden_states)
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        shared = size > 1 and context.stride(0) == 0
        if shared:
            context = context[:1]
        q, k, v = attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context)
        q, k, v = (x.unflatten(-1, (attn.heads, -1)) for x in (q, k, v))
        if shared:
            q = q.flatten(0, 1)[None]
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        weights = ((q * attn.scale) @ k.transpose(-1, -2)).softmax(-1)
        if self.seen is not None and encoder_hidden_states is not None and torch.is_grad_enabled():
            alone = weights.unflatten(2, (size, -1))[0].transpose(0, 1) if shared else weights
            self.seen.append(alone)
        mixed = (weights.to(v.dtype) @ v).transpose(1, 2).flatten(2)
        return attn.to_out[0](mixed.reshape(size, -1, mixed.shape[-1]) if shared else mixed)


def watch_lookup(unet: nn.Module) -> list[torch.Tensor]:
    """Give all layers PlainAttention; the returned list collects what the content block's cross-attention weighs."""
    seen: list[torch.Tensor] = []
    unet.set_attn_processor(PlainAttention())
    for layer in unet.up_blocks[0].attentions[CONTENT_BLOCK].transformer_blocks:
        layer.attn2.set_processor(PlainAttention(seen))
    return seen


def lookup(weights: torch.Tensor) -> torch.Tensor:
    """(N, queries): how much each position of the picture attends to the token of its own place, mean over heads."""
    own = torch.arange(weights.shape[2], device=weights.device)
    return weights.mean(1)[:, own, PADS + own]
