"""A model in diffusers' layout as one file in SDXL's original layout: what fine-tunes are distributed as.

The names follow Stability's generative-models (``openaimodel.py``, ``model.py``) and open_clip, written down here by
rule and not taken from what reads them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from diffusers import StableDiffusionXLPipeline
from safetensors.torch import save_file
from torch import Tensor

PARTS = ("unet", "vae", "text_encoder", "text_encoder_2")

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_TOP = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
_OPEN_CLIP = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}


def save_single_file(folder: Path, file: Path, dtype: torch.dtype = torch.float32) -> Path:
    """Write the model of a folder as one file.

    Args:
        folder: In diffusers' layout, with SDXL's levels and layers; widths are free.
        file: To be written.
        dtype: Number format of the file.
    """
    save_file({name: value.to(dtype).contiguous() for name, value in ldm_tensors(folder).items()}, file)
    return file


def ldm_tensors(folder: Path) -> dict[str, Tensor]:
    """The tensors of a folder's model under their original names."""
    pipeline = StableDiffusionXLPipeline.from_pretrained(folder)
    return original_names({part: getattr(pipeline, part).state_dict() for part in PARTS})


def original_names(states: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors of `PARTS`, on any device, under their original names."""
    tensors = {f"model.diffusion_model.{unet_name(n)}": v for n, v in states["unet"].items()}
    for name, value in states["vae"].items():
        theirs = _vae_name(name)
        is_conv = ".attn_1." in theirs and value.ndim == 2  # 1 x 1 convolutions there
        tensors[f"first_stage_model.{theirs}"] = value[:, :, None, None] if is_conv else value
    for name, value in states["text_encoder"].items():
        bare = name.removeprefix("text_model.")
        tensors[f"conditioner.embedders.0.transformer.text_model.{bare}"] = value
    return tensors | dict(_open_clip(states["text_encoder_2"]))


def unet_name(name: str) -> str:
    """The original name of a UNet's tensor or layer."""
    for ours, theirs in _TOP.items():
        if name == ours or name.startswith(f"{ours}."):
            return theirs + name[len(ours) :]
    if match := re.match(r"mid_block\.(resnets|attentions)\.(\d)\.(.+)", name):
        kind, index, rest = match.groups()
        return f"middle_block.{1 if kind == 'attentions' else 2 * int(index)}.{_inner(kind, rest)}"
    match = re.match(r"(down|up)_blocks\.(\d)\.(\w+)\.(\d)\.(.+)", name)
    assert match, name
    way, level, kind, index, rest = match[1], int(match[2]), match[3], int(match[4]), match[5]
    if kind == "downsamplers":
        return f"input_blocks.{3 * level + 3}.0.{rest.replace('conv', 'op')}"
    if kind == "upsamplers":
        return f"output_blocks.{3 * level + 2}.2.{rest}"  # both levels of SDXL that have one have attention before it
    number = 3 * level + index + (way == "down")
    return f"{'input' if way == 'down' else 'output'}_blocks.{number}.{int(kind == 'attentions')}.{_inner(kind, rest)}"


def _inner(kind: str, rest: str) -> str:
    return rest if kind == "attentions" else _renamed(rest, _RESNET)


def _vae_name(name: str) -> str:
    name = re.sub(r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2", name)
    name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
    name = re.sub(r"up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"up.{3 - int(m[1])}.block.{m[2]}", name)
    name = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{3 - int(m[1])}.upsample", name)
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    name = name.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
    head, attention, rest = name.partition("mid_block.attentions.0.")
    return f"{head}mid.attn_1.{_renamed(rest, _ATTENTION)}" if attention else name


def _open_clip(state: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    start = "conditioner.embedders.1.model."
    bare = {name.removeprefix("text_model."): value for name, value in state.items()}
    yield f"{start}token_embedding.weight", bare["embeddings.token_embedding.weight"]
    yield f"{start}positional_embedding", bare["embeddings.position_embedding.weight"]
    yield f"{start}text_projection", bare["text_projection.weight"].T
    yield f"{start}logit_scale", torch.tensor(4.6)
    for part in ("weight", "bias"):
        yield f"{start}ln_final.{part}", bare[f"final_layer_norm.{part}"]
    for name, value in bare.items():
        match = re.match(r"encoder\.layers\.(\d+)\.(.+)\.(weight|bias)", name)
        if not match:
            continue
        layer = f"{start}transformer.resblocks.{match[1]}"
        if match[2] == "self_attn.q_proj":
            parts = [bare[name.replace("q_proj", f"{letter}_proj")] for letter in "qkv"]
            yield f"{layer}.attn.in_proj_{match[3]}", torch.cat(parts)
        elif not match[2].startswith("self_attn.") or match[2] == "self_attn.out_proj":
            yield f"{layer}.{_OPEN_CLIP[match[2]]}.{match[3]}", value


def _renamed(name: str, table: Mapping[str, str]) -> str:
    for ours, theirs in table.items():
        if name.startswith(f"{ours}."):
            return theirs + name[len(ours) :]
    return name
