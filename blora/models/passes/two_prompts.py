"""Two prompts beside one picture: how some blocks of a transformer with joint attention are told another prompt.

A UNet's block hears the prompt by cross-attention and leaves it as it was, so that its keys and values can be exchanged
(`fixed_prompts`). A block of FLUX's kind reads the prompt's tokens and writes them anew: a double-stream block has them
in a stream of their own, a single-stream block in one sequence with the picture's tokens, and both hand them on to the
next block. To tell a block something else for once, both prompts go through all blocks, each as a text stream of its
own beside the very same picture: a row that is told something else has a second row. After every block the picture's
tokens of both rows become those of one of them: of the second row where the block is told the other prompt, of the
first where it is not. So

- what is replaced is all that the block's picture tokens attend to of the text, as the other prompt stands at that
  depth, and nothing else: the pooled prompt, which scales all blocks alike, stays the first one's;
- nothing of it stays in the stream afterwards: the blocks behind hear the first prompt, which has meanwhile seen the
  picture as it came to be.

SplitFlux (arXiv 2511.15258) replaces a copy's text embedding in the blocks i to j in the same spirit, by notes on it.
betyavan/b-lora-flux @ e8717c0 (``block_analysis.py``) does otherwise: it puts the other prompt as it stands before the
first block into the one that is told, whatever its depth, and lets what that makes of it go on through all that follow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import torch
from torch import Tensor, nn

from blora.settings.block_split import Stretch

__all__ = ["two_prompts"]

_STEMS: Final = ("transformer_blocks", "single_transformer_blocks")
_BY_ROW: Final = ("hidden_states", "timestep", "pooled_projections", "guidance")
"""What the transformer is called with a row each, beside the prompt's tokens."""


@contextmanager
def two_prompts(denoiser: nn.Module, hidden: Tensor, by_block: Mapping[str, Tensor]) -> Iterator[None]:
    """While the context is open, some blocks of a transformer are told other prompts than the rest.

    Args:
        denoiser: Called with keywords and rows as ``hidden`` has them. A UNet is left alone: see `fixed_prompts`.
        hidden: Prompts (rows, tokens, context).
        by_block: The same with other prompts in some rows, by a block's name or a stretch's. A row has one other prompt
            at most, in whichever stretches.

    Raises:
        ValueError: A row is told two other prompts.
    """
    if not by_block or not hasattr(denoiser, _STEMS[1]):
        yield
        return
    changed = {name: (own != hidden).flatten(1).any(dim=1) for name, own in by_block.items()}
    others, seen = hidden.clone(), torch.zeros(len(hidden), dtype=torch.bool, device=hidden.device)
    for name, where in changed.items():
        again = where & seen
        if not torch.equal(others[again], by_block[name][again]):
            raise ValueError(f"{name}: a row is told a second other prompt; accepted one, in one or several stretches")
        others[where], seen = by_block[name][where], seen | where
    rows = seen.nonzero().flatten()
    if not len(rows):
        yield
        return
    with ExitStack() as hooks:
        before = denoiser.register_forward_pre_hook(_with_second_rows(rows, others[rows]), with_kwargs=True)
        hooks.callback(before.remove)
        hooks.callback(denoiser.register_forward_hook(_first_rows(len(hidden))).remove)
        for stem in _STEMS:
            blocks: Any = denoiser.get_submodule(stem)
            for number, block in enumerate(blocks):
                told = torch.zeros_like(rows, dtype=torch.bool)
                for name, where in changed.items():
                    told |= where[rows] & Stretch.read(name).holds(f"{stem}.{number}.")
                hooks.callback(block.register_forward_hook(_one_picture(rows, told[:, None, None])).remove)
        yield


def _with_second_rows(rows: Tensor, others: Tensor) -> Callable[..., Any]:
    def widen(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        by_row = {
            name: torch.cat([kwargs[name], kwargs[name][rows]]) for name in _BY_ROW if kwargs.get(name) is not None
        }
        text = kwargs["encoder_hidden_states"]
        return args, kwargs | by_row | {"encoder_hidden_states": torch.cat([text, others.to(text.dtype)])}

    return widen


def _first_rows(count: int) -> Callable[..., Any]:
    def narrow(module: nn.Module, args: Any, output: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (output[0][:count], *output[1:])

    return narrow


def _one_picture(rows: Tensor, told: Tensor) -> Callable[..., Any]:
    """Make both rows' pictures one: those of the second rows where they are told, else those of the first."""

    def meet(module: nn.Module, args: Any, output: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        text, picture = output
        own, other = picture[: -len(rows)].clone(), picture[-len(rows) :]
        own[rows] = torch.where(told, other, own[rows])
        return text, torch.cat([own, own[rows]])

    return meet
