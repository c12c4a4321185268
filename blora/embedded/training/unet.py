"""The UNet under training: its shape, how it begins, and how its two blocks are told something of their own.

It has SDXL's block names and conditioning, narrow outside and deep in `up_blocks.0`. A B-LoRA can only say what
cross-attention of its block can inject, and only through the hidden states of one fixed prompt. So the base learns
to take any layout through `up_blocks.0.attentions.0` and any look through `up_blocks.0.attentions.1` at the very places
where that prompt's padding stands: a token is the padding's hidden state plus a code of few numbers, so that a low-rank
change of `to_k` and `to_v` can say exactly what tokens say.
"""

from __future__ import annotations

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from torch import nn

from blora.embedded.training.encoders import CODE, GRID, STYLES
from blora.embedded.words.clip import PADS

CONTENT_BLOCK, STYLE_BLOCK = 0, 1
PLACES = GRID * GRID
CONTEXT, POOLED = 128, 64
BETAS = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
}
OWN = tuple(f"up_blocks.0.attentions.{block}" for block in (CONTENT_BLOCK, STYLE_BLOCK))


def build(
    channels: int = 8,
    widths: tuple[int, int, int] = (32, 64, 128),
    heads: tuple[int, int, int] = (1, 2, 4),
    inner: int = 3,
) -> UNet2DConditionModel:
    """An untrained UNet in diffusers' own beginning; 7.1 M parameters and 0.7 G multiply-adds by default."""
    return UNet2DConditionModel(
        sample_size=GRID * 4,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=widths,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DCrossAttn",
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=(1, 1, 2),
        transformer_layers_per_block=[1, 1, 1],
        reverse_transformer_layers_per_block=[[inner, inner, 1], 1, 1],
        attention_head_dim=heads,
        norm_num_groups=8,
        use_linear_projection=True,
        cross_attention_dim=CONTEXT,
        addition_embed_type="text_time",
        addition_time_embed_dim=16,
        projection_class_embeddings_input_dim=POOLED + 6 * 16,
    )


@torch.no_grad()
def start_open(unet: UNet2DConditionModel) -> None:
    """Begin with a straight way from the two blocks to the output.

    Every other residual branch of the up path starts at zero, and what the two blocks say passes orthogonal layers
    only, so that gradients reach them undisturbed. (It does not make content louder: at the first step it moves the
    output by 0.3 % of its size, from the usual beginning by 1.7 %.) Together with the deep head and timesteps from the
    noisy end it brought the first gain from content several tens of times sooner; alone it was not tried.
    """
    for name, module in unet.named_modules():
        if not name.startswith("up_blocks"):
            continue
        own = name.startswith(OWN)
        if isinstance(module, ResnetBlock2D):
            _zero(module.conv2)
        elif isinstance(module, BasicTransformerBlock):
            _zero(module.ff.net[2])
            module.attn1.to_out[0].weight.zero_()
            if own:
                nn.init.orthogonal_(module.attn2.to_v.weight)
                nn.init.orthogonal_(module.attn2.to_out[0].weight)
            else:
                module.attn2.to_out[0].weight.zero_()
        elif name.endswith("proj_out"):
            if own:
                nn.init.orthogonal_(module.weight)
            else:
                _zero(module)
    unet.conv_out.weight.mul_(0.3)
    unet.conv_out.bias.zero_()


def _zero(layer: nn.Conv2d | nn.Linear) -> None:
    layer.weight.zero_()
    if layer.bias is not None:
        layer.bias.zero_()


class SideTasks(nn.Module):
    """Two tasks beside denoising, with heads that are thrown away: they show early on what the inner blocks are for.

    *Layout*: what the content block adds must tell, at each place, how the plain drawing looks there, whatever looks
    the reference and the target have. *Deep*: after the last layer of `up_blocks.0` the target must be readable.
    """

    def __init__(self, unet: UNet2DConditionModel) -> None:
        """Hook into the blocks of `unet`."""
        super().__init__()
        blocks, channels = unet.up_blocks[0].attentions, unet.config.out_channels
        self.factor = 2 ** (len(unet.config.block_out_channels) - 1)
        width = unet.config.block_out_channels[-1]
        self.layout_head = nn.Conv2d(width, channels * self.factor**2, 1)
        self.deep_head = nn.Conv2d(width, channels * self.factor**2, 1)
        self.added = self.last = torch.empty(0)
        blocks[CONTENT_BLOCK].register_forward_hook(self._keep_added)
        blocks[-1].register_forward_hook(self._keep_last)

    def _keep_added(self, module: nn.Module, args: tuple, output: tuple) -> None:
        self.added = output[0] - args[0]

    def _keep_last(self, module: nn.Module, args: tuple, output: tuple) -> None:
        self.last = output[0]

    def layout(self) -> torch.Tensor:
        """Latents of the plain drawing, read off what the content block added in the last pass."""
        return nn.functional.pixel_shuffle(self.layout_head(self.added), self.factor)

    def deep(self) -> torch.Tensor:
        """Latents of the target, read off the end of `up_blocks.0` in the last pass."""
        return nn.functional.pixel_shuffle(self.deep_head(self.last), self.factor)


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
