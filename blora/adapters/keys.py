"""The one parser of adapter file keys: diffusers', PEFT's, kohya's, and SDXL's and FLUX's original names. No torch."""

from __future__ import annotations

import re
from typing import Final, Literal

__all__ = ["FLUX_RENAMED", "Part", "is_of_other_layer", "parse_key", "split_key"]

Part = Literal["down", "up", "alpha"]
"""What one key of an adapter file holds for a layer."""

# PEFT wraps a model once more and pipelines prefix the component; the hub files of the paper's authors do the latter
# twice ("unet.unet."). Whatever comes before the module's own name is dropped.
_PREFIX = re.compile(r"^(?:(?:base_model\.model|unet|transformer|model|diffusion_model)\.)+")
_FLAT_PREFIX = re.compile(r"^(?:lora_unet|lora_transformer|lycoris)_")
_LDM = re.compile(r"^(?:(?:input|output)_blocks\.\d+\.1|middle_block\.1)\.")
_OLD = r"^(?P<layer>.+?\.)(?:processor\.)?(?P<projection>to_q|to_k|to_v|to_out)_lora\.(?P<part>down|up)\.weight$"
_SUFFIXES = (
    re.compile(r"^(?P<layer>.+)\.lora\.(?P<part>down|up)\.weight$"),  # diffusers until 0.2x
    re.compile(r"^(?P<layer>.+)\.lora_(?P<part>A|B)(?:\.\w+)?\.weight$"),  # PEFT, with or without the adapter's name
    re.compile(r"^(?P<layer>.+)\.lora_(?P<part>down|up)\.weight$"),  # kohya
    re.compile(_OLD),  # diffusers' first attention processors
    re.compile(r"^(?P<layer>.+?)(?:\.lora)?\.(?P<part>alpha)$"),
)

_OTHER = re.compile(
    r"ff[._]net|proj_in|proj_out|conv|emb_|embed|resnets|(?:in|out)_layers|skip_connection|^lora_te|text_enc"
    r"|(?:img|txt|time|vector|guidance)_in|final_layer|norm_out"
)
_A_PART = re.compile(
    r"(?:\.alpha|\.lora_(?:A|B|down|up|mid)(?:\.\w+)*|[._]lora(?:_linear_layer)?\.(?:down|up)\.weight)$"
)

_PARTS: Final[dict[str, Part]] = {"A": "down", "B": "up", "down": "down", "up": "up", "alpha": "alpha"}
_FLAT = re.compile(
    r"^(?:(?P<way>down|up)_blocks_(?P<level>\d+)_attentions_(?P<index>\d+)"
    r"|(?P<ldm>input|output)_blocks_(?P<number>\d+)_1|(?P<mid>mid_block_attentions_0|middle_block_1))"
    r"_transformer_blocks_(?P<layer>\d+)_(?P<attention>attn[12])_(?P<projection>to_q|to_k|to_v|to_out_0)$"
)
_FLUX = re.compile(
    r"(?:(?P<bfl>single|double)_blocks|(?P<single>single_)?transformer_blocks)[._](?P<number>\d+)[._](?P<inner>.+)"
)
FLUX_RENAMED: Final = {
    "linear2": "proj_out",
    "modulation.lin": "norm.linear",
    "img_attn.proj": "attn.to_out.0",
    "txt_attn.proj": "attn.to_add_out",
}
"""Layers of FLUX's blocks, by the names of its original code, that diffusers calls otherwise."""
_FLUX_INNER: Final = {
    **FLUX_RENAMED,
    **{theirs.replace(".", "_"): ours for theirs, ours in FLUX_RENAMED.items()},
    **{f"attn_to_{part}": f"attn.to_{part}" for part in "qkv"},
    **{f"attn_add_{part}_proj": f"attn.add_{part}_proj" for part in "qkv"},
    **{f"{stream}_attn_qkv": f"{stream}_attn.qkv" for stream in ("img", "txt")},
    "attn_to_out_0": "attn.to_out.0",
    "attn_to_add_out": "attn.to_add_out",
}
"""Layers of FLUX's blocks by other names than diffusers'; ``linear1`` is four layers, see `blora.adapters.fused`."""


def parse_key(key: str) -> tuple[str, Part] | None:
    """Read one key of an adapter file in any known dialect.

    Known are diffusers' (``unet.<layer>.lora.down.weight`` and the older ``….processor.to_q_lora.down.weight``), PEFT's
    (``base_model.model.<layer>.lora_A.weight``), kohya's (``lora_unet_<layer with underscores>.lora_down.weight`` with
    diffusers' or the original block names, and ``.alpha``; LyCORIS' plain LoRA likewise, ``lycoris_…``), and original
    names with dots (``diffusion_model.output_blocks.0.1.….lora_A.weight``), each with any number of prefixes. Of FLUX
    likewise: ``lora_unet_single_blocks_0_linear1``, ``diffusion_model.single_blocks.0.linear1``, OneTrainer's
    ``lora_transformer_single_transformer_blocks_0_attn_to_q`` and the same of LyCORIS.

    Returns:
        The layer's name in the UNet and the part it holds, or None for a key of no known dialect.
    """
    split = split_key(key)
    if split is None:
        return None
    layer, part = split
    if flux := _FLUX.fullmatch(_FLAT_PREFIX.sub("", layer)):
        layer = _flux_layer(flux)
    elif _FLAT_PREFIX.match(layer):
        layer = _flat_layer(_FLAT_PREFIX.sub("", layer))
    elif _LDM.match(layer):
        layer = _flat_layer(layer.replace(".", "_"))
    return (layer, part) if layer else None


def split_key(key: str) -> tuple[str, Part] | None:
    """Split a key in any known dialect into its layer, as the file names it within the UNet, and the part it holds.

    Returns:
        Both, the layer of kohya's files with underscores and ``lora_unet_``; None for a key of no known dialect.
    """
    bare = _PREFIX.sub("", key)
    for suffix in _SUFFIXES:
        match = suffix.match(bare)
        if match is None:
            continue
        groups = match.groupdict()
        layer = groups["layer"]
        if "projection" in groups:
            layer += "to_out.0" if groups["projection"] == "to_out" else groups["projection"]
        return layer, _PARTS[groups["part"]]
    return None


def is_of_other_layer(key: str) -> bool:
    """Whether a key that `parse_key` does not read is of a layer that LoRAs often hold and B-LoRAs never do."""
    return _OTHER.search(key) is not None and _A_PART.search(key) is not None


def _flux_layer(match: re.Match[str]) -> str:
    """Name a layer of FLUX's blocks as diffusers does, as far as that matters here; fused ones keep theirs."""
    inner = _FLUX_INNER.get(match["inner"], match["inner"])
    single = match["single"] or ("single_" if match["bfl"] == "single" else "")
    return f"{single}transformer_blocks.{match['number']}.{inner}"


def _flat_layer(name: str) -> str:
    """Translate the name of an attention projection, dots as underscores; empty for any other layer.

    The original SDXL code numbers its blocks in one row: three a level, the input side after one convolution.
    """
    match = _FLAT.match(name)
    if match is None:
        return ""
    groups = match.groupdict()
    if groups["mid"]:
        block = "mid_block.attentions.0"
    elif groups["way"]:
        block = f"{groups['way']}_blocks.{groups['level']}.attentions.{groups['index']}"
    else:
        way, shift = ("down", 1) if groups["ldm"] == "input" else ("up", 0)
        level, index = divmod(int(groups["number"]) - shift, 3)
        block = f"{way}_blocks.{level}.attentions.{index}"
    projection = groups["projection"].replace("to_out_0", "to_out.0")
    return f"{block}.transformer_blocks.{groups['layer']}.{groups['attention']}.{projection}"
