"""Which blocks of each family carry content and style, and which of their layers carry an update.

SDXL: arXiv 2403.14572, section 4.1: W_0^4 (content) and W_0^5 (style); in diffusers' names the first two attention
modules of the first up block.
FLUX.1: SplitFlux, arXiv 2511.15258: of its 57 blocks the first 19, with two streams, matter little; 20 to 29 mainly
hold content and 30 to 57 style, which are the single-stream blocks 0 to 9 and 10 to 37. Read was the paper's abstract,
and these numbers in a review of it (themoonlight.io); unread are its figures of rank and rate. It also trains blocks 30
and 31 with a smaller rank and a larger scale, and splits the content's update by saliency: neither is done here.
Only the attention projections carry an update: no feed-forward, no proj_in, proj_mlp or proj_out.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal

from blora.errors import TopologyError
from blora.settings.fields import TrainedLayers

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "BLOCKS",
    "FLUX_PROJECTIONS",
    "FLUX_SINGLE_BLOCKS",
    "PROJECTIONS",
    "Half",
    "attention_layers",
    "block_of",
    "inner_blocks",
    "is_flux",
    "is_idle_flux",
    "lacking",
    "projections_of",
    "target_layers",
]

Half = Literal["content", "style"]
"""The two halves of an adapter."""

_HALVES: Final[tuple[Half, ...]] = ("content", "style")

BLOCKS: Final = MappingProxyType({"content": "up_blocks.0.attentions.0", "style": "up_blocks.0.attentions.1"})
"""The block of each half, by its name in a diffusers UNet."""

PROJECTIONS: Final = ("to_q", "to_k", "to_v", "to_out.0")
"""The linear layers of an attention that carry an update."""

FLUX_SINGLE_BLOCKS: Final[Mapping[Half, range]] = MappingProxyType({"content": range(10), "style": range(10, 38)})
"""The single-stream blocks of each half in FLUX.1; what lies beyond the last is style, too."""

FLUX_PROJECTIONS: Final = ("to_q", "to_k", "to_v")
"""The linear layers of a single-stream block's attention; what comes out is projected with the feed-forward's."""

_FLUX = re.compile(r"single_transformer_blocks\.(?P<number>\d+)\.")
_FLUX_TARGET = re.compile(rf"{_FLUX.pattern}attn\.(?:{'|'.join(FLUX_PROJECTIONS)})")
_TARGET = re.compile(r"transformer_blocks\.\d+\.attn[12]\.(?:to_q|to_k|to_v|to_out\.0)")
_READS_PROMPT = re.compile(r"\.attn2\.to_[kv]$")
_CROSS_ATTENTION: Final = re.compile(
    r"(?P<block>(?P<level>(?P<way>down|up)_blocks\.(?P<number>\d+)|mid_block)\.attentions\.(?P<index>\d+))"
    r"\.transformer_blocks\.0\.attn2"
)


def block_of(layer: str) -> Half | None:
    """Return the half that a layer belongs to, or None.

    Membership is by the block's full name and a dot: ``up_blocks.0.attentions.10`` is not part of
    ``up_blocks.0.attentions.1``, and a name that merely contains a block's name is not part of it either.
    """
    if flux := _FLUX.match(layer):
        return "content" if int(flux["number"]) in FLUX_SINGLE_BLOCKS["content"] else "style"
    for half in _HALVES:
        if layer.startswith(f"{BLOCKS[half]}."):
            return half
    return None


def is_flux(layer: str) -> bool:
    """Whether a layer is named as FLUX's are: what is not is SDXL's."""
    return layer.startswith(("single_transformer_blocks.", "transformer_blocks."))


def is_idle_flux(layer: str) -> bool:
    """Whether a layer of FLUX's halves carries no update here, though other LoRAs have one: feed-forward, norms."""
    return _FLUX.match(layer) is not None and not _FLUX_TARGET.fullmatch(layer)


def projections_of(layer: str) -> tuple[str, ...]:
    """Return the layers that an attention has which carry an update, by the name of one of them."""
    return FLUX_PROJECTIONS if is_flux(layer) else PROJECTIONS


def lacking(have: Collection[str], expected: Iterable[str]) -> list[str]:
    """Name the layers that an adapter lacks.

    Args:
        have: Its layers. Keys and values of cross-attention alone ("crossattn_kv") are whole without any others.
        expected: Those of a whole one.
    """
    alone = bool(have) and all(map(_READS_PROMPT.search, have))
    return [name for name in expected if name not in have and (not alone or _READS_PROMPT.search(name))]


def target_layers(unet: nn.Module, half: Half, layers: TrainedLayers = "attention") -> tuple[str, ...]:
    """Name the linear layers of a half in the order of the UNet's own modules.

    Args:
        unet: A denoiser with SDXL's or FLUX's block names.
        half: "content" or "style".
        layers: All, or the keys and values of cross-attention alone, which FLUX does not have.

    Returns:
        Names such as ``up_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q``; 80 for SDXL, 20 of "crossattn_kv";
        for FLUX.1 30 (content) and 84 (style).

    Raises:
        TopologyError: The UNet has no such block.
    """
    names = tuple(name for name, _ in unet.named_modules() if block_of(name) == half and _carries(name))
    if not names:
        raise TopologyError(
            f"the UNet has no block for {half}",
            accepted=f"attention layers under {BLOCKS[half]}, or single_transformer_blocks",
            hint="use a base model with SDXL's or FLUX's topology",
        )
    chosen = names if layers == "attention" else tuple(filter(_READS_PROMPT.search, names))
    if not chosen:
        hint = "set train.layers: attention"
        raise TopologyError("the denoiser has no cross-attention", layers, "attention, for FLUX", "train.layers", hint)
    return chosen


def _carries(layer: str) -> bool:
    """Whether a layer of a half is one of those that carry an update."""
    if _FLUX_TARGET.fullmatch(layer):
        return True
    start = next((f"{block}." for block in BLOCKS.values() if layer.startswith(f"{block}.")), "")
    return bool(start and _TARGET.fullmatch(layer[len(start) :]))


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
