"""What the content block and the style block are told during base training: pictures, words, or nothing.

A B-LoRA can only say what cross-attention of its block is able to inject. So the base learns to take any layout through
`up_blocks.0.attentions.0` and any look through `up_blocks.0.attentions.1`, from continuous tokens made by two small
encoders that are thrown away afterwards: content tokens from the same drawing in another look, style tokens from
another thing in the same look.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from blora.embedded.training.common import Pictures

CONTENT_TOKENS, STYLE_TOKENS = 16, 4
IMAGE, WORDS, NEUTRAL = "image", "words", "neutral"
CONTENT_BLOCK, STYLE_BLOCK = 0, 1


def _conv(inner: int, outer: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inner, outer, 3, stride, 1), nn.GroupNorm(8, outer), nn.SiLU())


class TokenNorm(nn.Module):
    """Unit deviation over pictures for every number of every token.

    With a layer norm the tokens went all alike: nine tenths of each was the same for every picture, because a constant
    is the easiest way to unit size.
    """

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.register_buffer("mean", torch.zeros(tokens, width))
        self.register_buffer("deviation", torch.ones(tokens, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.float()
        if not torch.is_grad_enabled():
            return (x - self.mean) / self.deviation * self.weight + self.bias
        mean, deviation = x.mean(0), x.std(0) + 1e-3
        with torch.no_grad():
            self.mean.lerp_(mean, 0.02)
            self.deviation.lerp_(deviation, 0.02)
        return (x - mean) / deviation * self.weight + self.bias


class ContentEncoder(nn.Module):
    """Latents to a 4x4 grid of tokens with learned places."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            _conv(channels, 32, 1),
            _conv(32, 64, 2),
            _conv(64, 128, 2),
            _conv(128, 128, 1),
            nn.Conv2d(128, width, 3, 1, 1),
        )
        self.norm = TokenNorm(CONTENT_TOKENS, width)
        self.place = nn.Parameter(torch.randn(1, CONTENT_TOKENS, width))

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        return self.norm(self.trunk(latents).flatten(2).transpose(1, 2)) + self.place


class StyleEncoder(nn.Module):
    """Latents to a few tokens from pooled statistics, which know no place."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.one, self.two, self.three = _conv(channels, 32, 1), _conv(32, 64, 2), _conv(64, 128, 2)
        statistics = 2 * (channels + 32 + 64 + 128)
        self.head = nn.Sequential(nn.Linear(statistics, 256), nn.SiLU(), nn.Linear(256, STYLE_TOKENS * width))
        self.norm = TokenNorm(STYLE_TOKENS, width)
        self.place = nn.Parameter(torch.randn(1, STYLE_TOKENS, width) * 0.5)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        maps = [latents]
        for layer in (self.one, self.two, self.three):
            maps.append(layer(maps[-1]))
        pooled = torch.cat([part for m in maps for part in (m.mean((2, 3)), m.std((2, 3)))], 1)
        return self.norm(self.head(pooled).unflatten(1, (STYLE_TOKENS, -1))) + self.place


class BlockContexts:
    """Gives the two blocks contexts of their own; a side that is None reads what all blocks read."""

    def __init__(self, unet: nn.Module) -> None:
        self.contexts: dict[int, torch.Tensor | None] = {CONTENT_BLOCK: None, STYLE_BLOCK: None}
        for block in self.contexts:
            unet.up_blocks[0].attentions[block].register_forward_pre_hook(self._hook(block), with_kwargs=True)

    def _hook(self, block: int):
        def replace(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
            own = self.contexts[block]
            return None if own is None else (args, {**kwargs, "encoder_hidden_states": own})

        return replace

    def set(self, content: torch.Tensor | None, style: torch.Tensor | None) -> None:
        self.contexts[CONTENT_BLOCK], self.contexts[STYLE_BLOCK] = content, style


class SharedContext:
    """Attention without fused kernels, whose backward pass is slow in bfloat16 on a CPU; one context is read once.

    Most blocks of most batches read one prompt for all pictures, expanded and not copied. Its keys and values are
    worked out once, and all pictures' queries meet them in one product.
    """

    def __call__(
        self,
        attn: nn.Module,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        **_: object,
    ) -> torch.Tensor:
        size = len(hidden_states)
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        shared = size > 1 and context.stride(0) == 0
        q, k, v = (
            attn.to_q(hidden_states),
            *(layer(context[:1] if shared else context) for layer in (attn.to_k, attn.to_v)),
        )
        q, k, v = (x.unflatten(-1, (attn.heads, -1)) for x in (q, k, v))
        if shared:
            q = q.flatten(0, 1)[None]
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        mixed = ((q * attn.scale) @ k.transpose(-1, -2)).softmax(-1).to(v.dtype) @ v
        mixed = mixed.transpose(1, 2).flatten(2)
        return attn.to_out[0](mixed.reshape(size, -1, mixed.shape[-1]) if shared else mixed)


class LayoutTask(nn.Module):
    """A side task that teaches the content block to use its tokens; thrown away after training.

    What the content block adds to the picture must tell, at each place, how the plain drawing looks there: the native
    picture of the same geometry, whatever looks the reference and the target have. Without it the block found no use
    for its tokens in 75,000 pictures, since only attention that already matches places brings any gain.
    """

    def __init__(self, unet: nn.Module, pictures: Pictures, shape: tuple[int, ...]) -> None:
        super().__init__()
        block = unet.up_blocks[0].attentions[CONTENT_BLOCK]
        self.cells = shape[-1] // 2 ** (len(unet.config.block_out_channels) - 1)
        self.patch = shape[-1] // self.cells
        self.head = nn.Conv2d(block.in_channels, shape[1] * self.patch**2, 1)
        self.added: torch.Tensor | None = None
        block.register_forward_hook(self._keep)
        native = np.flatnonzero(pictures.look == pictures.set)[::-1]  # reversed: the first set of a family wins
        self.native = {int(g): int(r) for g, r in zip(pictures.geometry[native], native, strict=True)}
        self.geometry = pictures.geometry

    def _keep(self, module: nn.Module, args: tuple, output: tuple) -> None:
        self.added = output[0] - args[0] if torch.is_grad_enabled() else None

    def plain(self, rows: np.ndarray) -> np.ndarray:
        """Rows of the plain drawings that the given rows are redrawings of."""
        return np.array([self.native[int(self.geometry[r])] for r in rows])

    def loss(self, plain: torch.Tensor) -> torch.Tensor:
        """Squared error of the plain drawing's latents, read off what the block added last."""
        found = nn.functional.pixel_shuffle(self.head(self.added.float()), self.patch)
        return nn.functional.mse_loss(found.float(), plain)


@dataclass(frozen=True)
class Draw:
    """Rows of one batch: targets and the references that describe them."""

    target: np.ndarray
    content: np.ndarray
    style: np.ndarray


class Sampler:
    """Draws targets with a content reference (same layout, other look) and a style reference (the reverse)."""

    def __init__(self, pictures: Pictures, rng: np.random.Generator) -> None:
        self.pictures, self.rng = pictures, rng
        self.rows = pictures.for_training()
        self.worded = self.rows[np.array([bool(k["words"]) for k in pictures.looks])[pictures.look[self.rows]]]
        self.of_geometry = self._groups(pictures.geometry)
        self.of_thing = self._groups(pictures.thing)
        self.of_look = self._groups(pictures.look)

    def _groups(self, key: np.ndarray) -> dict[int, np.ndarray]:
        order = self.rows[np.argsort(key[self.rows], kind="stable")]
        cuts = np.flatnonzero(np.diff(key[order])) + 1
        return {int(key[part[0]]): part for part in np.split(order, cuts)}

    def draw(self, size: int, worded: bool) -> Draw:
        p = self.pictures
        target = self.rng.choice(self.worded if worded else self.rows, size)
        content, style = target.copy(), target.copy()
        for i, row in enumerate(target):
            # A few references share only the thing, so that the block also learns what a thing is.
            pool = self.of_thing[p.thing[row]] if self.rng.random() < 0.07 else self.of_geometry[p.geometry[row]]
            other = pool[p.look[pool] != p.look[row]]
            if len(other):
                content[i] = self.rng.choice(other)
            same = self.of_look[p.look[row]]
            for _ in range(8):
                style[i] = self.rng.choice(same)
                if p.thing[style[i]] != p.thing[row]:
                    break
        return Draw(target, content, style)


def draw_kinds(rng: np.random.Generator, caption: float = 0.04) -> tuple[str, str] | None:
    """What each side is told in one batch; None means the full caption in every block, as in SDXL."""
    if rng.random() < caption:
        return None
    if rng.random() < 0.05:
        return NEUTRAL, NEUTRAL
    content, style = (str(rng.choice([IMAGE, WORDS, NEUTRAL], p=[0.88, 0.06, 0.06])) for _ in range(2))
    return content, style
