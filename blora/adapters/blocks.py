"""Which layers of a denoiser carry an update, and to which half each belongs.

The blocks of each half are a split's (`blora.settings.block_split`, with its sources): the base's own, or another one
that an adapter was trained with and says. Only attention projections carry an update: no feed-forward, no proj_in,
proj_mlp or proj_out, no norms. FLUX's blocks with two streams have those of the picture's tokens and of the prompt's,
as train_dreambooth_lora_flux.py of diffusers has them by default; its single-stream blocks have queries, keys and
values alone. So SplitFlux trains, too: 38 blocks of rank 64 are 44.83 million weights, as it reports.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from blora.errors import KeyMismatchError, TopologyError
from blora.settings.block_split import SPLITS, BlockSplit, Half, Stretch, own_split, shown_split
from blora.settings.fields import TrainedLayers

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "BLOCKS",
    "FLUX_DOUBLE_PROJECTIONS",
    "FLUX_PROJECTIONS",
    "PROJECTIONS",
    "SPLIT_KEY",
    "Half",
    "attention_layers",
    "attention_of",
    "block_of",
    "carries",
    "front_is_frozen",
    "inner_blocks",
    "is_flux",
    "is_idle",
    "lacking",
    "probed_blocks",
    "projections_of",
    "split_of",
    "target_layers",
    "told_split",
]

SPLIT_KEY: Final = "blocks"
"""Under which an adapter of another split than its base's own says that, as JSON."""

BLOCKS: Final[Mapping[Half, str]] = MappingProxyType(
    {"content": SPLITS["b-lora"].content[0], "style": SPLITS["b-lora"].style[0]}
)
"""The block of each half in SDXL's own split, by its name in a diffusers UNet."""

PROJECTIONS: Final = ("to_q", "to_k", "to_v", "to_out.0")
"""The linear layers of an attention of SDXL that carry an update."""

FLUX_PROJECTIONS: Final = ("to_q", "to_k", "to_v")
"""The linear layers of a single-stream block's attention; what comes out is projected with the feed-forward's."""

FLUX_DOUBLE_PROJECTIONS: Final = (*PROJECTIONS, "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
"""The linear layers of the attention of a block with two streams: the picture's, then the prompt's."""

_PROBED_TOGETHER: Final = 5
"""Blocks of a transformer that the probe tells something else at once, where nobody names others: one of FLUX.1's 57
alone says little, and each stretch costs a picture of every pair."""

_FLUX = re.compile(r"(?P<single>single_)?transformer_blocks\.\d+\.(?P<rest>.+)")
_TARGET = re.compile(r"transformer_blocks\.\d+\.attn[12]\.(?:to_q|to_k|to_v|to_out\.0)")
_IN_BLOCK = re.compile(rf"(?:(?:down|up)_blocks\.\d+|mid_block)\.attentions\.\d+\.{_TARGET.pattern}")
_READS_PROMPT = re.compile(r"\.attn2\.to_[kv]$")
_CROSS_ATTENTION: Final = re.compile(
    r"(?P<block>(?P<level>(?P<way>down|up)_blocks\.(?P<number>\d+)|mid_block)\.attentions\.(?P<index>\d+))"
    r"\.transformer_blocks\.0\.attn2"
)


def block_of(layer: str, split: BlockSplit | None = None) -> Half | None:
    """Return the half that a layer belongs to, or None.

    Membership is by the block's full name: ``up_blocks.0.attentions.10`` is not part of ``up_blocks.0.attentions.1``,
    and a name that merely contains a block's name is not part of it either.

    Args:
        layer: Its name in the denoiser.
        split: The blocks of each half; None for the own split of the kind of base that has such a layer.
    """
    return (split or own_split(flux=is_flux(layer))).half_of(layer)


def split_of(unet: nn.Module) -> BlockSplit:
    """Return the own split of a denoiser's kind."""
    return own_split(flux=hasattr(unet, "single_transformer_blocks"))


def told_split(said: Mapping[str, str]) -> BlockSplit | None:
    """Return the split that an adapter's metadata tells, in its own file or in one made of it for other programs.

    Raises:
        KeyMismatchError: It cannot be read.
    """
    told = said.get(SPLIT_KEY) or said.get(f"blora.{SPLIT_KEY}")
    try:
        return BlockSplit.model_validate_json(told) if told else None
    except ValueError as error:
        accepted = "names of content and style blocks as JSON"
        raise KeyMismatchError("what the file says of its blocks cannot be read", str(told)[:80], accepted) from error


def is_flux(layer: str) -> bool:
    """Whether a layer is named as FLUX's are: what is not is SDXL's."""
    return layer.startswith(("single_transformer_blocks.", "transformer_blocks."))


def is_idle(layer: str, split: BlockSplit | None = None) -> bool:
    """Whether a layer of FLUX's halves carries no update here, though other LoRAs have one: feed-forward, norms."""
    return is_flux(layer) and block_of(layer, split) is not None and not carries(layer)


def attention_of(layer: str) -> str:
    """Return the name of the attention that a layer is a projection of."""
    return re.split(r"\.(?:to|add)_", layer, maxsplit=1)[0]


def projections_of(layer: str) -> tuple[str, ...]:
    """Return the layers that an attention has which carry an update, by its name or that of one of them."""
    if not is_flux(layer):
        return PROJECTIONS
    return FLUX_PROJECTIONS if layer.startswith("single_") else FLUX_DOUBLE_PROJECTIONS


def front_is_frozen(layers: Iterable[str]) -> bool:
    """Whether none of some trained layers of SDXL lies in its front: the down and middle blocks."""
    return all(layer.startswith("up_blocks.") for layer in layers)


def lacking(have: Collection[str], expected: Iterable[str]) -> list[str]:
    """Name the layers that an adapter lacks.

    Args:
        have: Its layers. Keys and values of cross-attention alone ("crossattn_kv") are whole without any others.
        expected: Those of a whole one.
    """
    alone = bool(have) and all(map(_READS_PROMPT.search, have))
    return [name for name in expected if name not in have and (not alone or _READS_PROMPT.search(name))]


def target_layers(
    unet: nn.Module, half: Half, layers: TrainedLayers = "attention", split: BlockSplit | None = None
) -> tuple[str, ...]:
    """Name the linear layers of a half in the order of the UNet's own modules.

    Args:
        unet: A denoiser with SDXL's or FLUX's block names.
        half: "content" or "style".
        layers: All, or the keys and values of cross-attention alone, which FLUX does not have.
        split: The blocks of each half; None for the own split of the denoiser's kind.

    Returns:
        Names such as ``up_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q``; 80 for SDXL, 20 of "crossattn_kv";
        for FLUX.1 30 (content) and 84 (style).

    Raises:
        TopologyError: The UNet has no such block.
    """
    split = split or split_of(unet)
    names = tuple(name for name, _ in unet.named_modules() if carries(name) and split.half_of(name) == half)
    if not names:
        raise TopologyError(
            f"the UNet has no block for {half}",
            accepted=f"attention layers under {', '.join(getattr(split, half))}",
            hint=f"use a base model that has the blocks of {shown_split(split)}",
        )
    chosen = names if layers == "attention" else tuple(filter(_READS_PROMPT.search, names))
    if not chosen:
        hint = "set train.layers: attention"
        raise TopologyError("the denoiser has no cross-attention", layers, "attention, for FLUX", "train.layers", hint)
    return chosen


def carries(layer: str) -> bool:
    """Whether a layer is one of those that carry an update where they lie in a half."""
    if flux := _FLUX.fullmatch(layer):
        projections = FLUX_PROJECTIONS if flux["single"] else FLUX_DOUBLE_PROJECTIONS
        return flux["rest"].startswith("attn.") and flux["rest"][5:] in projections
    return _IN_BLOCK.fullmatch(layer) is not None


def probed_blocks(denoiser: nn.Module, asked: Sequence[str] = ()) -> tuple[str, ...]:
    """Name what the block probe compares: inner blocks of a UNet, stretches of a transformer.

    Args:
        denoiser: Of the base.
        asked: Blocks and stretches to compare in their place.

    Raises:
        TopologyError: There is nothing to compare.
    """
    if asked:
        return tuple(asked)
    if not hasattr(denoiser, "single_transformer_blocks"):
        return inner_blocks(denoiser)
    counts = {stem: len(denoiser.get_submodule(stem)) for stem in ("transformer_blocks", "single_transformer_blocks")}  # type: ignore[arg-type]
    return tuple(
        str(Stretch(stem, first, min(first + _PROBED_TOGETHER, count) - 1))
        for stem, count in counts.items()
        for first in range(0, count, _PROBED_TOGETHER)
    )


def inner_blocks(unet: nn.Module) -> tuple[str, ...]:
    """Name the blocks with cross-attention inside the outermost level that has any, going down and coming up.

    For SDXL these are the paper's six: ``down_blocks.2.attentions.0`` and ``.1``, ``mid_block.attentions.0`` and
    ``up_blocks.0.attentions.0`` to ``.2``. A way with a single such level keeps it.

    Raises:
        TopologyError: Fewer than two are left, so there is nothing to compare.
    """
    matches = _matches(unet)
    levels = {way: sorted({int(match["number"]) for match in matches if match["way"] == way}) for way in ("down", "up")}
    outer = {
        f"{way}_blocks.{levels_of_way[0 if way == 'down' else -1]}"
        for way, levels_of_way in levels.items()
        if len(levels_of_way) > 1
    }
    names = tuple(match["block"] for match in matches if match["level"] not in outer)
    if len(names) < 2:
        received = ", ".join(match["block"] for match in matches) or "none"
        raise TopologyError("too few inner blocks with cross-attention", received, "two or more", "unet")
    return names


def _matches(unet: nn.Module) -> list[re.Match[str]]:
    def place(match: re.Match[str]) -> tuple[int, int, int]:
        way = ("down", None, "up").index(match["way"])
        return way, int(match["number"] or 0), int(match["index"])

    matches = (_CROSS_ATTENTION.fullmatch(name) for name, _ in unet.named_modules())
    return sorted((match for match in matches if match), key=place)


def attention_layers(unet: nn.Module, block: str = "") -> tuple[str, ...]:
    """Name the attention projections of any block, or of the whole UNet: what other choices of blocks train.

    Args:
        unet: A UNet as diffusers builds it.
        block: Its name, such as ``down_blocks.2.attentions.1``; empty for all blocks.

    Raises:
        TopologyError: There are none.
    """
    start = f"{block}." if block else ""
    names = tuple(
        name
        for name, _ in unet.named_modules()
        if name.startswith(start) and _TARGET.fullmatch(name[max(name.find("transformer_blocks."), 0) :])
    )
    if not names:
        raise TopologyError("the UNet has no such attention", block or "(any)", "a block with transformer layers")
    return names
