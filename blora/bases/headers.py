"""What a .safetensors file is, told by its header alone: SDXL or FLUX in one file, or what it was mistaken for.

A header names every tensor with its shape; nothing else of the file is read, so that 7 GB are judged in milliseconds.
Imports no torch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from blora.errors import BaseModelError, TopologyError

__all__ = ["PICKLES", "SingleFile", "check_file", "flux_shape", "read_header", "refuse_other_files"]

UNET, VAE = "model.diffusion_model.", "first_stage_model."
TEXT, TEXT_2 = "conditioner.embedders.0.", "conditioner.embedders.1."
FLUX_PREFIXES: Final = ("", UNET)
"""What FLUX's names stand behind: nothing in a file of its own, ComfyUI's prefix in one of several parts."""
_MOST_HEADER_BYTES: Final = 100_000_000  # what the format itself allows
_ACCEPTED: Final = "a .safetensors file of SDXL with all its parts, or of FLUX.1's transformer beside rest"
_LORA: Final = re.compile(r"[._]lora[._]|lora_(?:down|up|A|B)|^lora_|^lycoris_|\.(?:hada|lokr)_")
_V_PREDICTION, _ZERO_SNR = "v_pred", "ztsnr"
PICKLES: Final = (".ckpt", ".pt", ".pth", ".bin", ".pkl")
_PICKLED: Final = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04")
_PARTS: Final = (("UNet", UNET), ("autoencoder", VAE), ("text encoder", TEXT), ("second text encoder", TEXT_2))
_VAE_ONLY: Final = ("encoder.", "decoder.", "quant_conv", "post_quant_conv")

Shapes = Mapping[str, tuple[int, ...]]
"""The shape of each tensor of a file."""


@dataclass(frozen=True)
class SingleFile:
    """What the header of a checkpoint says.

    Attributes:
        has_vae: Whether it carries an autoencoder.
        is_v_prediction: Whether it was trained to predict v; said by a tensor called v_pred, as fine-tunes do.
        is_zero_snr: Whether its noise ends without signal; said by a tensor called ztsnr.
    """

    has_vae: bool
    is_v_prediction: bool
    is_zero_snr: bool


def read_header(path: Path, where: str) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    """Return the shape of each tensor of a file, and its metadata.

    Raises:
        BaseModelError: It is no whole safetensors file.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length)) if 0 < length <= min(size, _MOST_HEADER_BYTES) else None
        if not isinstance(header, dict):
            raise ValueError("no header")
        metadata = header.pop("__metadata__", None) or {}
        end = max((int(tensor["data_offsets"][1]) for tensor in header.values()), default=0)
        if 8 + length + end != size:
            raise ValueError(f"{size} bytes, not the {8 + length + end} that its header speaks of")
        return {name: tuple(tensor["shape"]) for name, tensor in header.items()}, metadata
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        hint = "download it again: a copy that was cut looks like this"
        raise BaseModelError("not a whole safetensors file", str(error)[:120], _ACCEPTED, where, hint) from error


def refuse_other_files(path: Path, where: str) -> None:
    """Refuse what its first bytes show to be a pointer of Git LFS, or a pickle whatever it is called.

    Raises:
        BaseModelError: It is one.
    """
    with path.open("rb") as file:
        start = file.read(64)
    if start.startswith(b"version https://git-lfs"):
        hint = "run `git lfs pull` where it was cloned, or download the file itself"
        received = f"{path.stat().st_size} bytes"
        raise BaseModelError("a pointer of Git LFS, not the file", received, _ACCEPTED, where, hint)
    if start.startswith(_PICKLED) or path.suffix.lower() in PICKLES:
        hint = "take its .safetensors twin, or convert it"
        raise BaseModelError("a pickle, which can run code as it is read", path.name, _ACCEPTED, where, hint)


def flux_shape(path: Path, where: str) -> dict[str, int | bool]:
    """Return what a file's tensors say of FLUX's transformer, by the names of its configuration in diffusers.

    Raises:
        BaseModelError: It is no whole file, or its weights are scaled 8-bit floats, which are no weights by themselves.
        TopologyError: It has not the tensors that say so.
    """
    shapes, _ = read_header(path, where)
    if scaled := next((name for name in shapes if "scale_weight" in name or "scaled_fp8" in name), ""):
        hint = "take the file in bf16, or in plain fp8; quantize: fp8 makes 8 bits of either"
        raise BaseModelError("weights in scaled fp8", scaled, "weights without scales", where, hint)
    start = next((one for one in FLUX_PREFIXES if f"{one}img_in.weight" in shapes), "")
    try:
        width, channels = shapes[f"{start}img_in.weight"]
        return {
            "in_channels": channels,
            "num_layers": _blocks(shapes, f"{start}double_blocks."),
            "num_single_layers": _blocks(shapes, f"{start}single_blocks."),
            "attention_head_dim": (head := shapes[f"{start}single_blocks.0.norm.query_norm.scale"][0]),
            "num_attention_heads": width // head,
            "joint_attention_dim": shapes[f"{start}txt_in.weight"][1],
            "pooled_projection_dim": shapes[f"{start}vector_in.in_layer.weight"][1],
            "guidance_embeds": f"{start}guidance_in.in_layer.weight" in shapes,
        }
    except (KeyError, ValueError, IndexError) as error:
        what, accepted = "not FLUX.1's tensors", "its transformer in the original layout, such as flux1-dev.safetensors"
        raise TopologyError(what, f"{_tensors(shapes)}, without {error}", accepted, where) from error


def _blocks(shapes: Shapes, start: str) -> int:
    return len({name[len(start) :].partition(".")[0] for name in shapes if name.startswith(start)})


def check_file(path: Path, where: str, *, vae_comes: bool = False, has_rest: bool = False) -> SingleFile | None:
    """Refuse a file that is neither SDXL's base nor FLUX's transformer in its original layout, by what it is.

    Args:
        path: The file.
        where: What messages call it.
        vae_comes: Whether an autoencoder of another place is used, so that the file needs none.
        has_rest: Whether all but the transformer comes from another place, so that FLUX may be it.

    Returns:
        What SDXL's header says; None for FLUX.

    Raises:
        BaseModelError: It is no model, or only a part of one.
        TopologyError: It is another model.
    """
    shapes, _ = read_header(path, where)
    if _is_flux(shapes) and has_rest:
        flux_shape(path, where)
        return None
    if has_rest and not _is_flux_2(shapes):
        hint = "leave rest out: SDXL's file has all its parts"
        raise BaseModelError("rest with another file than FLUX's", _tensors(shapes), "FLUX in one file", where, hint)
    for what, hint, is_one in _OTHERS:
        if is_one(shapes):
            received = f"{_tensors(shapes)}, the first {next(iter(shapes), '(none)')}"
            raise TopologyError(what, received, _ACCEPTED, where, hint)
    missing = [name for name, prefix in _PARTS if not _any(shapes, prefix) and not (prefix == VAE and vae_comes)]
    if missing == ["autoencoder"]:
        hint = "name one: {model: ..., vae: madebyollin/sdxl-vae-fp16-fix@207b116dae70ace3637169f1ddd2434b91b3a8cd}"
        raise BaseModelError("a model without its autoencoder", _tensors(shapes), _ACCEPTED, where, hint)
    if missing:
        received = f"{_tensors(shapes)}, without {', '.join(missing)}"
        raise BaseModelError("not a whole model", received, _ACCEPTED, where, "take the full checkpoint")
    return SingleFile(_any(shapes, VAE), _V_PREDICTION in shapes, _ZERO_SNR in shapes)


def _is_flux(shapes: Shapes) -> bool:
    return not _is_flux_2(shapes) and any(
        name.startswith(f"{one}double_blocks.") for name in shapes for one in FLUX_PREFIXES
    )


def _is_flux_2(shapes: Shapes) -> bool:
    return _has(shapes, "single_stream_modulation.")


def _tensors(shapes: Mapping[str, object]) -> str:
    return f"{len(shapes)} tensor{'' if len(shapes) == 1 else 's'}"


def _any(shapes: Shapes, prefix: str) -> bool:
    return any(name.startswith(prefix) for name in shapes)


def _has(shapes: Shapes, part: str) -> bool:
    return any(part in name for name in shapes)


def _channels(shapes: Shapes) -> int:
    """What the UNet takes; 4 where there is no such layer."""
    shape = shapes.get(f"{UNET}input_blocks.0.0.weight") or shapes.get("input_blocks.0.0.weight") or (0, 4)
    return shape[1]


def _is_vae(shapes: Shapes) -> bool:
    bare = [name.removeprefix(VAE) for name in shapes]
    return bool(bare) and all(name.startswith(_VAE_ONLY) for name in bare)


_SDXL_ONLY: Final = "this method is for SDXL: base: sdxl, or a fine-tune of it"
_FLUX_1_ONLY: Final = "take FLUX.1-dev, FLUX.1-schnell or a fine-tune of one"
_OTHERS: Final[tuple[tuple[str, str, Callable[[Shapes], bool]], ...]] = (
    (
        "a LoRA, not a base model",
        "name it under fuse: {model: sdxl, fuse: [{lora: ...}]}, or as a finished adapter of a content or style",
        lambda shapes: any(_LORA.search(name) for name in shapes),
    ),
    ("an autoencoder alone", "name it beside a model: {model: sdxl, vae: ...}", _is_vae),
    ("FLUX.2 in one file, not FLUX.1", _FLUX_1_ONLY, lambda shapes: _is_flux_2(shapes)),
    (
        "FLUX's transformer without text encoders, tokenizers and autoencoder",
        "name where they lie: {model: ..., rest: black-forest-labs/FLUX.1-dev@ and its commit, or a folder of it}",
        lambda shapes: _has(shapes, "double_blocks."),
    ),
    ("Stable Diffusion 3, not SDXL", _SDXL_ONLY, lambda shapes: _has(shapes, "joint_blocks.")),
    (
        "an inpainting model",
        "take the base that it was made from",
        lambda shapes: _channels(shapes) == 9,
    ),
    ("a UNet with other inputs", "take the base that it was made from", lambda shapes: _channels(shapes) != 4),
    (
        "Stable Diffusion 2, not SDXL",
        _SDXL_ONLY,
        lambda shapes: _any(shapes, "cond_stage_model.model."),
    ),
    (
        "Stable Diffusion 1.5, not SDXL",
        f"{_SDXL_ONLY}; `blora probe` alone reads a folder of SD 1.5",
        lambda shapes: _any(shapes, "cond_stage_model.transformer."),
    ),
    (
        "SDXL's refiner, not its base",
        "take the base: sdxl, or a fine-tune of it",
        lambda shapes: _any(shapes, f"{TEXT}model.") and not _any(shapes, TEXT_2),
    ),
    (
        "one part of a folder in diffusers' layout",
        "name the folder that holds unet/, vae/ and the others",
        lambda shapes: _any(shapes, "down_blocks.") or _any(shapes, "text_model."),
    ),
)
