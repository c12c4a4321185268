"""The block probe on FLUX: a stretch of blocks is told another prompt, and it is known beforehand which can answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from blora.adapters.blocks import probed_blocks
from blora.models.model import Base
from blora.models.passes.two_prompts import two_prompts
from blora.probe.measure import measure
from blora.probe.proposal import summarize
from blora.settings.block_split import Stretch
from tests.benchmarks.full_size import FullSizeFlux
from tests.blora.probe.test_measure import PAIRS, QUICK, own_pictures

ROUNDING = 1e-5
BLOCKS = (
    "transformer_blocks.0",
    "single_transformer_blocks.0-4",
    "single_transformer_blocks.5-9",
    "single_transformer_blocks.10-11",
)


def told(flux: Base, by_block: dict[str, Tensor], hidden: Tensor, pooled: Tensor, **changes: Tensor) -> Tensor:
    """One call of the transformer, some of its blocks told something else."""
    rows = len(hidden)
    noisy = torch.randn(1, 16, 8, 8, generator=torch.Generator().manual_seed(0)).expand(rows, -1, -1, -1)
    conditions = flux.conditions(pooled, 32, 32, 3.5) | changes
    with torch.no_grad(), two_prompts(flux.unet, hidden, by_block):
        return flux.predict(noisy, torch.tensor(600.0), hidden, conditions)


def by_hand(flux: Base, p: Tensor, q: Tensor, pooled: Tensor, stretch: str) -> Tensor:
    """The same for one row, block by block: both prompts beside one picture, each picture's tokens kept where told."""
    model, kept = flux.unet, {}

    def keep(module: nn.Module, args: Any, kwargs: Any) -> None:
        kept.update(kwargs)

    hook = model.transformer_blocks[0].register_forward_pre_hook(keep, with_kwargs=True)
    told(flux, {}, p, pooled)
    hook.remove()
    picture, temb, places = kept["hidden_states"], kept["temb"], kept["image_rotary_emb"]
    texts = [model.context_embedder(prompt) for prompt in (p, q)]
    for stem in ("transformer_blocks", "single_transformer_blocks"):
        for number, block in enumerate(getattr(model, stem)):
            after = [block(picture, text, temb, places) for text in texts]
            texts = [text for text, _ in after]
            picture = after[Stretch.read(stretch).holds(f"{stem}.{number}.")][1]
    tokens = model.proj_out(model.norm_out(picture, temb))
    squares = tokens.view(1, 4, 4, 16, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return squares.reshape(1, 16, 8, 8)


@pytest.mark.parametrize("stretch", BLOCKS)
def test_a_stretch_hears_the_other_prompt_as_it_stands_there_and_nothing_stays(flux: Base, stretch: str) -> None:
    prompts = flux.encode_prompts(["a photo of a car", "a photo of a dog on the table"])
    p, q = prompts.hidden[:1], prompts.hidden[1:]
    rows, pooled = p.expand(3, -1, -1), prompts.pooled[:1].expand(3, -1)
    other = torch.cat([p, q, p])
    plain, here, beside = told(flux, {stretch: other}, rows, pooled)
    with torch.no_grad():
        expected = by_hand(flux, p, q, pooled[:1], stretch)[0]
    torch.testing.assert_close(here, expected, atol=ROUNDING, rtol=0)
    bare = told(flux, {}, p, pooled[:1])[0]
    torch.testing.assert_close(plain, bare, atol=ROUNDING, rtol=0)
    torch.testing.assert_close(beside, bare, atol=ROUNDING, rtol=0)
    assert (here - bare).abs().max() > 100 * ROUNDING, "the stretch must hear, or agreement says nothing"
    assert not flux.unet._forward_hooks and not flux.unet._forward_pre_hooks


def test_all_blocks_told_are_the_other_prompt_with_the_first_ones_pooled(flux: Base) -> None:
    prompts = flux.encode_prompts(["a photo of a car", "a photo of a dog"])
    p, q, pooled = prompts.hidden[:1], prompts.hidden[1:], prompts.pooled[:1]
    everywhere = told(flux, {"transformer_blocks.0-": q, "single_transformer_blocks.0-": q}, p, pooled)
    torch.testing.assert_close(everywhere, told(flux, {}, q, pooled), atol=ROUNDING, rtol=0)
    with pytest.raises(ValueError, match="second other prompt"):
        told(flux, {"transformer_blocks.0": q, "single_transformer_blocks.3": q + 1}, p, pooled)


@contextmanager
def deaf_but(model: nn.Module, hearing: str) -> Iterator[None]:
    """For the time of the block only the blocks of one stretch change the picture, and strongly."""
    kept, stretch = {name: value.clone() for name, value in model.state_dict().items()}, Stretch.read(hearing)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if ".proj_out." in name or ".attn.to_out." in name:
                weight.mul_(10 if stretch.holds(name) else 0)
            if name.startswith("time_text_embed.text_embedder.linear_2."):
                weight.zero_()  # the other way of hearing a prompt
    try:
        yield
    finally:
        model.load_state_dict(kept)


@pytest.mark.parametrize("hearing", BLOCKS)
def test_the_one_stretch_that_hears_is_named(flux: Base, hearing: str) -> None:
    with deaf_but(flux.unet, hearing):
        readings = measure(flux, own_pictures(flux), PAIRS, QUICK, BLOCKS)
    summary = summarize(PAIRS, readings)
    for kind in summary.kinds.values():
        gains = {block.block: block.gain.mean for block in kind.blocks}
        assert max(gains, key=gains.__getitem__) == hearing and gains.pop(hearing) > 1e-6
        assert all(abs(gain) < 1e-6 for gain in gains.values()), "a deaf stretch changes nothing, told or not"


def test_flux_is_probed_five_blocks_at_once(flux: Base) -> None:
    assert probed_blocks(flux.unet) == BLOCKS
    full: Sequence[str] = probed_blocks(FullSizeFlux().unet)
    assert len(full) == 4 + 8 and full[3:5] == ("transformer_blocks.15-18", "single_transformer_blocks.0-4")
    assert probed_blocks(flux.unet, ["single_transformer_blocks.0-9"]) == ("single_transformer_blocks.0-9",)
