"""Which blocks of SDXL's UNet carry content and style, and the one parser of adapter file keys.

Source: arXiv 2403.14572, section 4.1: W_0^4 (content) and W_0^5 (style); in diffusers' names the first two attention
modules of the first up block. Only the attention projections carry an update: no feed-forward, no proj_in or proj_out.
"""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal

from blora.errors import TopologyError

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "BLOCKS",
    "PROJECTIONS",
    "Half",
    "Part",
    "attention_layers",
    "block_of",
    "inner_blocks",
    "parse_key",
    "target_layers",
]

Half = Literal["content", "style"]
"""The two halves of an adapter."""

_HALVES: Final[tuple[Half, ...]] = ("content", "style")

Part = Literal["down", "up", "alpha"]
"""What one key of an adapter file holds for a layer."""

BLOCKS: Final = MappingProxyType({"content": "up_blocks.0.attentions.0", "style": "up_blocks.0.attentions.1"})
"""The block of each half, by its name in a diffusers UNet."""

PROJECTIONS: Final = ("to_q", "to_k", "to_v", "to_out.0")
"""The linear layers of an attention that carry an update."""

_TARGET = re.compile(r"transformer_blocks\.\d+\.attn[12]\.(?:to_q|to_k|to_v|to_out\.0)")

_CROSS_ATTENTION: Final = re.compile(
    r"(?P<block>(?P<level>(?P<way>down|up)_blocks\.(?P<number>\d+)|mid_block)\.attentions\.(?P<index>\d+))"
    r"\.transformer_blocks\.0\.attn2"
)

# PEFT wraps a model once more and pipelines prefix the component; the hub files of the paper's authors do the latter
# twice ("unet.unet."). Whatever comes before the module's own name is dropped.
_PREFIX = re.compile(r"^(?:(?:base_model\.model|unet)\.)+")
_OLD = r"^(?P<layer>.+?\.)(?:processor\.)?(?P<projection>to_q|to_k|to_v|to_out)_lora\.(?P<part>down|up)\.weight$"
_SUFFIXES = (
    re.compile(r"^(?P<layer>.+)\.lora\.(?P<part>down|up)\.weight$"),  # diffusers until 0.2x
    re.compile(r"^(?P<layer>.+)\.lora_(?P<part>A|B)(?:\.\w+)?\.weight$"),  # PEFT, with or without the adapter's name
    re.compile(r"^(?P<layer>.+)\.lora_(?P<part>down|up)\.weight$"),  # kohya
    re.compile(_OLD),  # diffusers' first attention processors
    re.compile(r"^(?P<layer>.+?)(?:\.lora)?\.(?P<part>alpha)$"),
)
_PARTS: Final[dict[str, Part]] = {"A": "down", "B": "up", "down": "down", "up": "up", "alpha": "alpha"}

_KOHYA = re.compile(
    r"^lora_unet_(?:(?P<way>down|up)_blocks_(?P<level>\d+)_attentions_(?P<index>\d+)"
    r"|(?P<ldm>input|output)_blocks_(?P<number>\d+)_1|(?P<mid>mid_block_attentions_0|middle_block_1))"
    r"_transformer_blocks_(?P<layer>\d+)_(?P<attention>attn[12])_(?P<projection>to_q|to_k|to_v|to_out_0)$"
)


def block_of(layer: str) -> Half | None:
    """Return the half that a layer belongs to, or None.

    Membership is by the block's full name and a dot: ``up_blocks.0.attentions.10`` is not part of
    ``up_blocks.0.attentions.1``, and a name that merely contains a block's name is not part of it either.
    """
    for half in _HALVES:
        if layer.startswith(f"{BLOCKS[half]}."):
            return half
    return None


def target_layers(unet: nn.Module, half: Half) -> tuple[str, ...]:
    """Name the linear layers of a half in the order of the UNet's own modules.

    Args:
        unet: A UNet with SDXL's block names.
        half: "content" or "style".

    Returns:
        Names such as ``up_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q``; 80 for SDXL.

    Raises:
        TopologyError: The UNet has no such block.
    """
    start = f"{BLOCKS[half]}."
    names = tuple(
        name for name, _ in unet.named_modules() if name.startswith(start) and _TARGET.fullmatch(name[len(start) :])
    )
    if not names:
        raise TopologyError(
            f"the UNet has no block for {half}",
            accepted=f"attention layers under {BLOCKS[half]}",
            hint="use a base model with SDXL's topology",
        )
    return names


def inner_blocks(unet: nn.Module) -> tuple[str, ...]:
    """Name the blocks with cross-attention inside the outermost level that has any, going down and coming up.

    For SDXL these are the paper's six: ``down_blocks.2.attentions.0`` and ``.1``, ``mid_block.attentions.0`` and
    ``up_blocks.0.attentions.0`` to ``.2``. A way with a single such level keeps it.

    Raises:
        TopologyError: Fewer than two are left, so there is nothing to compare.
    """
    matches = _matches(unet)
    levels = {way: sorted({int(match["number"]) for match in matches if match["way"] == way}) for way in ("down", "up")}
    outer = {f"{way}_blocks.{found[0 if way == 'down' else -1]}" for way, found in levels.items() if len(found) > 1}
    names = tuple(match["block"] for match in matches if match["level"] not in outer)
    if len(names) < 2:
        received = ", ".join(match["block"] for match in matches) or "none"
        raise TopologyError("too few inner blocks with cross-attention", received, "two or more", "unet")
    return names


def _matches(unet: nn.Module) -> list[re.Match[str]]:
    def place(match: re.Match[str]) -> tuple[int, int, int]:
        way = ("down", None, "up").index(match["way"])
        return way, int(match["number"] or 0), int(match["index"])

    found = (_CROSS_ATTENTION.fullmatch(name) for name, _ in unet.named_modules())
    return sorted((match for match in found if match), key=place)


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


def parse_key(key: str) -> tuple[str, Part] | None:
    """Read one key of an adapter file in any known dialect.

    Known are diffusers' (``unet.<layer>.lora.down.weight`` and the older ``….processor.to_q_lora.down.weight``), PEFT's
    (``base_model.model.<layer>.lora_A.weight``), kohya's (``lora_unet_<layer with underscores>.lora_down.weight`` with
    diffusers' or the original block names, and ``.alpha``), each with any number of ``unet.`` prefixes.

    Returns:
        The layer's name in the UNet and the part it holds, or None for a key of no known dialect.
    """
    bare = _PREFIX.sub("", key)
    for suffix in _SUFFIXES:
        match = suffix.match(bare)
        if match is None:
            continue
        found = match.groupdict()
        layer = found["layer"]
        if "projection" in found:
            layer += "to_out.0" if found["projection"] == "to_out" else found["projection"]
        elif layer.startswith("lora_unet_"):
            layer = _kohya_layer(layer)
        return (layer, _PARTS[found["part"]]) if layer else None
    return None


def _kohya_layer(name: str) -> str:
    """Translate kohya's name of an attention projection; empty for any other layer.

    The original SDXL code numbers its blocks in one row: three a level, the input side after one convolution.
    """
    match = _KOHYA.match(name)
    if match is None:
        return ""
    found = match.groupdict()
    if found["mid"]:
        block = "mid_block.attentions.0"
    elif found["way"]:
        block = f"{found['way']}_blocks.{found['level']}.attentions.{found['index']}"
    else:
        way, shift = ("down", 1) if found["ldm"] == "input" else ("up", 0)
        level, index = divmod(int(found["number"]) - shift, 3)
        block = f"{way}_blocks.{level}.attentions.{index}"
    projection = found["projection"].replace("to_out_0", "to_out.0")
    return f"{block}.transformer_blocks.{found['layer']}.{found['attention']}.{projection}"
