"""One adapter as one file for other programs: kohya's names, diffusers', or PEFT's, with the metadata that they read.

    mix(cat.content, wave.style).save("cat-in-waves.safetensors", name="cat in waves")

Whatever the form, the file's weight deltas are the adapter's own: strengths and mixes are in the factors (worked out in
fp32, then stored in fp16), and alpha is the rank, one for all layers, so that a reader's scale of alpha / rank is one.

    form       keys                                                   read by
    kohya      lora_unet_up_blocks_0_…_to_q.lora_down.weight, .alpha  ComfyUI, A1111, Forge, kohya, diffusers
    diffusers  unet.up_blocks.0.….to_q.lora.down.weight               diffusers' `load_lora_weights`
    peft       base_model.model.up_blocks.0.….to_q.lora_A.weight      peft's `PeftModel.from_pretrained(unet, folder)`

FLUX's layers are ``transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight`` and so on in diffusers' form,
which ComfyUI reads, too. In kohya's a single-stream block has one layer for queries, keys, values and the feed-forward,
``lora_unet_single_blocks_0_linear1``: the three updates lie side by side in it, and the feed-forward's part is zero. A
block with two streams has ``lora_unet_double_blocks_0_img_attn_qkv`` and ``_img_attn_proj``, and ``txt`` likewise.

Source of the metadata: kohya-ss/sd-scripts @ 48d368f (``train_util.py``, ``sai_model_spec.py``).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, get_args

import torch
from torch import Tensor

from blora.adapters.alphas import HEADER, PEFT_CONFIG
from blora.adapters.blocks import block_of, is_flux, told_split
from blora.adapters.factors import Factors, check_finite
from blora.adapters.fused import fused_layers
from blora.adapters.safetensors_bytes import pack_safetensors, write_whole

__all__ = ["PEFT_WEIGHTS", "Form", "files_of", "fits_flux", "fits_sdxl", "in_form", "of_one_rank", "write_form"]

Layers = Mapping[str, Factors]
"""Factors by the layer's name in the UNet."""

Form = Literal["kohya", "diffusers", "peft"]
"""Whose names a file's keys have."""

PEFT_WEIGHTS: Final = "adapter_model.safetensors"
"""The name by which peft finds an adapter's weights in a folder, beside its configuration."""

_SDXL_CONTEXT: Final = 2048
"""Width of the text that SDXL's cross-attention reads."""

_FLUX_WIDTH: Final = 3072
"""Of FLUX.1's blocks."""


def write_form(
    layers: Layers, said: Mapping[str, str], path: str | os.PathLike[str], form: Form = "kohya", name: str = ""
) -> list[Path]:
    """Write an adapter, of one half or both, for other programs.

    Args:
        layers: An adapter's, strengths and mixes already in them (`Adapter.scaled`, `mix`, `blend_adapters`).
        said: What the adapter says of itself.
        path: A ``.safetensors`` file; for PEFT, which wants fixed names, a folder. Folders on the way are made.
        form: Whose names the keys have.
        name: What programs show; the file's own name by default.

    Returns:
        What was written. A file is replaced whole or not at all.

    Raises:
        ValueError: Another form, no layers, layers outside both halves, or a file's name without ``.safetensors``.
        KeyMismatchError: A weight is not finite, or too large for fp16.
    """
    target = Path(path)
    folder = target if form == "peft" else target.parent
    files = {folder / name: data for name, data in files_of(layers, said, target.name, form, name).items()}
    folder.mkdir(parents=True, exist_ok=True)
    for file, data in files.items():
        write_whole(file, data)
    return list(files)


def files_of(
    layers: Layers, said: Mapping[str, str], file: str, form: Form = "kohya", name: str = ""
) -> dict[str, bytes]:
    """Return what `write_form` writes, by the name of each file; raises as it does.

    Args:
        layers: As there.
        said: As there.
        file: The name of the file, or for PEFT of the folder that the two files belong in.
        form: As there.
        name: As there.
    """
    stem = file if form == "peft" else file.removesuffix(".safetensors")
    if form != "peft" and stem == file:
        raise ValueError(f"received {file!r}; accepted: a file whose name ends in .safetensors")
    tensors, metadata = in_form(layers, said, form, name or stem)
    data = pack_safetensors(tensors, metadata)
    if form != "peft":
        return {file: data}
    config = {"peft_type": "LORA", "inference_mode": True, "bias": "none", **_peft_config(layers)}
    return {PEFT_WEIGHTS: data, PEFT_CONFIG: (json.dumps(config, indent=2, sort_keys=True) + "\n").encode()}


def in_form(layers: Layers, said: Mapping[str, str], form: Form, name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors, fp16 under the form's keys, and the metadata of an adapter's file; as `write_form`."""
    split = told_split(said)
    outside = [layer for layer in layers if block_of(layer, split) is None]
    if form not in get_args(Form):
        raise ValueError(f"form: received {form!r}; accepted: {', '.join(get_args(Form))}")
    if outside or not layers:
        received = f"the layer {outside[0]}" if outside else "no layers"
        raise ValueError(f"received {received}; accepted: an adapter of the content blocks, the style blocks or both")
    tensors: dict[str, Tensor] = {}
    named = fused_layers(layers) if form == "kohya" and any(map(is_flux, layers)) else layers
    for layer, factors in of_one_rank(named).items():
        down, up = _keys(layer, form)
        tensors[down], tensors[up] = (
            value.detach().to("cpu", torch.float16).contiguous() for value in (factors.down, factors.up)
        )
        if form == "kohya":
            tensors[down.removesuffix("lora_down.weight") + "alpha"] = torch.tensor(float(factors.rank))
    check_finite(tensors, name)
    return tensors, _metadata(named, said, tensors, form, name)


def fits_sdxl(layers: Layers) -> bool:
    """Whether the layers have SDXL's width, so that programs for SDXL can take the file."""
    widths = {factors.down.shape[1] for layer, factors in layers.items() if layer.endswith("attn2.to_k")}
    return widths == {_SDXL_CONTEXT}


def fits_flux(layers: Layers) -> bool:
    """Whether the layers have FLUX.1's width, so that programs for FLUX.1 can take the file."""
    original = "single_blocks.", "double_blocks."  # as kohya's form has them
    widths = {
        factors.down.shape[1] for layer, factors in layers.items() if is_flux(layer) or layer.startswith(original)
    }
    return widths == {_FLUX_WIDTH}


def _rank(layers: Layers) -> int:
    return max(factors.rank for factors in layers.values())


def _keys(layer: str, form: Form) -> tuple[str, str]:
    """The keys of a layer's two factors."""
    if form == "kohya":
        stem = "lora_unet_" + layer.replace(".", "_")
        return f"{stem}.lora_down.weight", f"{stem}.lora_up.weight"
    if form == "diffusers":
        return diffusers_keys(layer)
    return f"base_model.model.{layer}.lora_A.weight", f"base_model.model.{layer}.lora_B.weight"


def diffusers_keys(layer: str) -> tuple[str, str]:
    """The keys by which diffusers' pipelines load a layer's two factors, down before up."""
    if is_flux(layer):
        return f"transformer.{layer}.lora_A.weight", f"transformer.{layer}.lora_B.weight"
    return f"unet.{layer}.lora.down.weight", f"unet.{layer}.lora.up.weight"


def of_one_rank(layers: Layers) -> Layers:
    """The layers with zeros where a rank is smaller than the largest.

    diffusers 0.42 scales all layers as the commonest rank where there are no alphas, and where there are, as in kohya's
    files, it misses those of SDXL's attention: both are right only if every layer has the same rank.
    """
    rank = max((factors.rank for factors in layers.values()), default=0)
    padded = {}
    for layer, factors in layers.items():
        lacking = rank - factors.rank
        down = torch.nn.functional.pad(factors.down, (0, 0, 0, lacking))
        padded[layer] = Factors(down, torch.nn.functional.pad(factors.up, (0, lacking)))
    return padded


def _metadata(
    layers: Layers, of: Mapping[str, str], tensors: Mapping[str, Tensor], form: Form, name: str
) -> dict[str, str]:
    """What programs show and sort by, beside what the adapter says of itself."""
    rank, prompts = str(_rank(layers)), _prompts(of)
    said = {f"blora.{key}": value for key, value in of.items()}
    said |= {"format": "pt", "ss_output_name": name, "ss_network_module": "networks.lora"}
    said |= {"ss_network_dim": rank, "ss_network_alpha": rank}
    said["ss_tag_frequency"] = json.dumps({"blora": dict.fromkeys(prompts, 1)}, sort_keys=True)
    said |= {"modelspec.sai_model_spec": "1.0.1", "modelspec.title": name}
    said["modelspec.trigger_phrase"] = ", ".join(prompts)
    if fits_sdxl(layers):
        # Without the first, A1111 takes a file for one of Stable Diffusion 1 and hides it.
        said |= {"ss_base_model_version": "sdxl_base_v1-0", "modelspec.resolution": "1024x1024"}
        said["modelspec.architecture"] = "stable-diffusion-xl-v1-base/lora"
        said["modelspec.implementation"] = "https://github.com/Stability-AI/generative-models"
        said["modelspec.prediction_type"] = "epsilon"
    if fits_flux(layers):  # of which kind, dev or schnell, no layer tells
        said |= {"ss_base_model_version": "flux1", "ss_network_module": "networks.lora_flux"}
        said |= {"modelspec.architecture": "flux-1/lora", "modelspec.resolution": "1024x1024"}
        said["modelspec.implementation"] = "https://github.com/black-forest-labs/flux"
    if form == "diffusers":
        component = diffusers_keys(next(iter(layers)))[0].partition(".")[0]
        config = {f"{component}.{key}": value for key, value in _peft_config(layers).items()}
        said[HEADER] = json.dumps(config, sort_keys=True)
    return {**said, **_hashes(tensors, said)}


def _prompts(said: Mapping[str, str]) -> list[str]:
    """What the halves were trained with, each once."""
    told = {key: value for key, value in said.items() if key.rpartition(".")[2] == "prompt" and value}
    return list(dict.fromkeys(told.values()))


def _hashes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> dict[str, str]:
    """The two hashes by which A1111's galleries know a file, of its weights and the training's metadata alone."""
    data = pack_safetensors(tensors, {key: value for key, value in metadata.items() if key.startswith("ss_")})
    begin = 8 + int.from_bytes(data[:8], "little")
    return {
        "sshs_model_hash": hashlib.sha256(memoryview(data)[begin:]).hexdigest(),
        "sshs_legacy_hash": hashlib.sha256(memoryview(data)[0x100000:0x110000]).hexdigest()[:8],
    }


def _peft_config(layers: Layers) -> dict[str, Any]:
    """PEFT's own description: alpha is the rank, and the layers are named in full."""
    return {"r": _rank(layers), "lora_alpha": _rank(layers), "target_modules": sorted(layers)}
