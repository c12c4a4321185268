"""The parts of a located base as modules: from folders, from a single file, from an autoencoder's own place."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers.loaders.single_file_utils import (
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
)
from safetensors import safe_open
from torch import Tensor, nn

from blora.bases.fuse import fuse_lora
from blora.bases.headers import FLUX_PREFIXES, TEXT, TEXT_2, UNET, VAE
from blora.bases.layers import flux_state
from blora.bases.locate import SDXL_FOLDER, Located
from blora.bases.places import weight_files
from blora.errors import BaseModelError

__all__ = ["load_frozen", "load_part", "vae_config"]

_PREFIXES = {"unet": UNET, "vae": VAE, "text_encoder": TEXT, "text_encoder_2": TEXT_2}


def load_part(kind: Any, located: Located, part: str, device: torch.device, **dtype: torch.dtype) -> Any:
    """Load one part of a base without gradients, wherever its weights lie; LoRAs are fused into the UNet.

    Args:
        kind: The class, of diffusers or transformers.
        located: The base.
        part: "unet", "transformer", "vae", "text_encoder" or "text_encoder_2".
        device: Where it goes.
        **dtype: Its number format, under the name that the class gives it: ``dtype`` or ``torch_dtype``.

    Raises:
        BaseModelError: There are no safetensors weights, or they do not fit the part's configuration.
        KeyMismatchError: A LoRA does not fit the UNet.
    """
    (number_format,) = dtype.values()
    if part == "vae" and located.vae is not None:
        if located.vae.is_dir():
            return load_frozen(kind, located.vae.parent, located.vae.name, device, **dtype)
        return _from_file(kind, located.vae, "vae", _vae_folder(located), number_format, device)
    if located.file is not None and (located.family == "sdxl" or part == "transformer"):
        loaded = _from_file(kind, located.file, part, located.folder / part, number_format, torch.device("cpu"))
    else:
        loaded = load_frozen(kind, located.folder, part, torch.device("cpu"), located.half, **dtype)
    if part == "unet":
        for file, weight in located.fuse:
            fuse_lora(loaded, file, weight)
    return loaded.to(device)


def vae_config(located: Located) -> dict[str, Any]:
    """The configuration of the autoencoder that is used."""
    return dict(json.loads((_vae_folder(located) / "config.json").read_text("utf-8")))


def load_frozen(
    kind: Any, folder: Path, part: str, device: torch.device, half: bool = False, /, **dtype: torch.dtype
) -> Any:
    """Load one component of a folder from full weights or from its fp16 variant, as `weight_files` chooses.

    Args:
        kind: The class, of diffusers or transformers.
        folder: The base model's diffusers folder.
        part: The component's name.
        device: Where it goes.
        half: Whether the variant is preferred.
        **dtype: As for `load_part`.

    Raises:
        BaseModelError: There are no safetensors weights, or they do not fit the component's configuration.
    """
    chosen = weight_files((f"{part}/{path.name}" for path in (folder / part).glob("*")), part, half=half)
    variant = "fp16" if any(".fp16" in name for name in chosen) else None
    try:
        model = kind.from_pretrained(folder, subfolder=part, variant=variant, use_safetensors=True, **dtype)
    except (OSError, ValueError, RuntimeError) as error:
        received = f"{part}: {error}"
        raise BaseModelError("cannot load a component", received, "safetensors weights", str(folder)) from error
    return model.requires_grad_(False).eval().to(device)


def _vae_folder(located: Located) -> Path:
    """Where the configuration of the autoencoder lies: a file alone has SDXL's."""
    if located.vae is None:
        return located.folder / "vae"
    return located.vae if located.vae.is_dir() else SDXL_FOLDER / "vae"


def _from_file(
    kind: Any, file: Path, part: str, config: Path, number_format: torch.dtype, device: torch.device
) -> nn.Module:
    """Build a part from its configuration and a file in the original layout, where every tensor must be there."""
    tensors = _flux_tensors(file) if part == "transformer" else _tensors(file, _PREFIXES[part])
    if not tensors and part == "vae":  # a file with nothing but an autoencoder needs no prefix
        tensors = _tensors(file, "")
    try:
        with init_empty_weights():
            model: nn.Module = _build(kind, config)
        state = {name: value.to(number_format) for name, value in _CONVERT[part](tensors, model).items()}
        missing = sorted(model.state_dict().keys() - state.keys())
        if missing:
            raise KeyError(f"without {missing[0]}" + (f" and {len(missing) - 1} more" if len(missing) > 1 else ""))
        model.load_state_dict({name: state[name] for name in model.state_dict()}, assign=True)
    except (KeyError, RuntimeError, ValueError, AttributeError) as error:
        received = f"{part}: {' '.join(str(error).split())[:300]}"
        of = "FLUX.1" if part == "transformer" else "SDXL"
        hint = f"take a full checkpoint of {of}: one with fewer layers, or a pruned one, does not fit"
        raise BaseModelError(f"not {of}'s tensors", received, f"every tensor of {of}", file.name, hint) from error
    return model.requires_grad_(False).eval().to(device)


def _build(kind: Any, config: Path) -> Any:
    """An empty model, of diffusers or transformers."""
    if hasattr(kind, "config_class"):
        return kind(kind.config_class.from_pretrained(config, local_files_only=True))
    return kind.from_config(kind.load_config(config, local_files_only=True))


def _tensors(file: Path, prefix: str) -> dict[str, Tensor]:
    with safe_open(file, framework="pt") as opened:
        return {name: opened.get_tensor(name) for name in opened.keys() if name.startswith(prefix)}


def _flux_tensors(file: Path) -> dict[str, Tensor]:
    """The transformer's tensors, by its original code's names."""
    return {
        name.removeprefix(start): value
        for start in FLUX_PREFIXES[::-1]
        for name, value in _tensors(file, start).items()
        if start or not name.startswith(FLUX_PREFIXES[-1])
    }


def _transformer(tensors: dict[str, Tensor], model: Any) -> Mapping[str, Tensor]:
    return flux_state(tensors, int(model.config.num_attention_heads) * int(model.config.attention_head_dim))


def _unet(tensors: dict[str, Tensor], model: Any) -> Mapping[str, Tensor]:
    return convert_ldm_unet_checkpoint(tensors, model.config)


def _vae(tensors: dict[str, Tensor], model: Any) -> Mapping[str, Tensor]:
    if any(name.startswith("encoder.down_blocks.") for name in tensors):  # diffusers' own names
        return tensors
    return convert_ldm_vae_checkpoint(tensors, model.config)


def _text(tensors: dict[str, Tensor], model: Any) -> Mapping[str, Tensor]:
    bare = {name.replace(f"{TEXT}transformer.", "", 1): value for name, value in tensors.items()}
    return _named_as(model, bare)


def _text_2(tensors: dict[str, Tensor], model: Any) -> Mapping[str, Tensor]:
    return _named_as(model, convert_open_clip_checkpoint(model, tensors, prefix=f"{TEXT_2}model."))


def _named_as(model: nn.Module, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """CLIP's text model stands in one more module or not, by the version of transformers."""
    wrapped = any(name.startswith("text_model.") for name in model.state_dict())
    return state if wrapped else {name.removeprefix("text_model."): value for name, value in state.items()}


_CONVERT: dict[str, Callable[[dict[str, Tensor], Any], Mapping[str, Tensor]]] = {
    "unet": _unet,
    "transformer": _transformer,
    "vae": _vae,
    "text_encoder": _text,
    "text_encoder_2": _text_2,
}
