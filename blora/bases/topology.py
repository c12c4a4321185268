"""Whether a model in diffusers' layout is built as the method needs it, told by its configuration files. No torch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Literal, get_args

from blora.adapters.blocks import BLOCKS
from blora.bases.places import DENOISERS, PARTS
from blora.errors import SettingFault, TopologyError
from blora.settings.block_split import Stretch, own_split
from blora.settings.training import TrainSettings

__all__ = [
    "FamilyName",
    "blocks_lacking",
    "blocks_there",
    "check_shape",
    "check_topology",
    "check_vae",
    "family_of",
    "family_of_denoiser",
    "read_config",
    "split_faults",
]

FamilyName = Literal["sdxl", "flux"]
"""The kinds of diffusion model that there are."""

_DENOISERS: Final[Mapping[FamilyName, str]] = dict(zip(get_args(FamilyName), DENOISERS, strict=True))
_FLUX_CLASS: Final = "FluxTransformer2DModel"
_OTHER_TRANSFORMERS: Final = {
    "Flux2Transformer2DModel": "FLUX.2, not FLUX.1",
    "Flux3Transformer2DModel": "FLUX.3, not FLUX.1",
    "SD3Transformer2DModel": "Stable Diffusion 3, not FLUX.1",
}
_FLUX_USUAL: Final = {
    "in_channels": 64,
    "num_layers": 19,
    "num_single_layers": 38,
    "attention_head_dim": 128,
    "num_attention_heads": 24,
    "joint_attention_dim": 4096,
    "pooled_projection_dim": 768,
    "guidance_embeds": False,
}
"""What diffusers takes for what a configuration does not say."""


def family_of(folder: Path) -> FamilyName:
    """Tell a model in diffusers' layout by the folder of its denoiser."""
    return "flux" if (folder / _DENOISERS["flux"]).is_dir() else "sdxl"


def family_of_denoiser(config: Mapping[str, Any]) -> FamilyName:
    """Tell a model by the configuration of its denoiser."""
    return "flux" if config.get("_class_name") == _FLUX_CLASS else "sdxl"


def check_topology(folder: Path, spec: str) -> None:
    """Compare a folder's configuration files with what the method needs, by name.

    Raises:
        TopologyError: With everything that is missing.
    """
    family = family_of(folder)
    if family == "flux":
        _refuse_other_transformers(folder, spec)
    parts = [part for part in PARTS if part not in DENOISERS or part == _DENOISERS[family]]
    missing = [f"{part}/" for part in parts if not (folder / part).is_dir()]
    if missing:
        received = f"without {', '.join(missing)}"
        what = f"not a diffusers {family.upper()} folder"
        raise TopologyError(what, received, "all of " + ", ".join(parts), spec)
    (_check_flux if family == "flux" else _check_sdxl)(folder, spec)


def blocks_there(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Name the blocks that may be content or style, in stretches, by the configuration of a denoiser."""
    if "num_single_layers" in config or family_of_denoiser(config) == "flux":
        doubles, singles = int(config.get("num_layers", 19)), int(config.get("num_single_layers", 38))
        counts = {"transformer_blocks": doubles, "single_transformer_blocks": singles}
        return tuple(str(Stretch(stem, 0, count - 1)) for stem, count in counts.items() if count)
    downs, ups = list(config.get("down_block_types") or ()), list(config.get("up_block_types") or ())
    layers = config.get("layers_per_block", 2)
    depths = list(layers) if isinstance(layers, list | tuple) else [int(layers)] * len(downs)
    found = [(f"down_blocks.{number}", kind, depths[number]) for number, kind in enumerate(downs)]
    found.append(("mid_block", str(config.get("mid_block_type", "UNetMidBlock2DCrossAttn")), 1))
    # Up blocks run through the levels backwards, and have a layer more each.
    found += [(f"up_blocks.{number}", kind, depths[-1 - number] + 1) for number, kind in enumerate(ups)]
    return tuple(
        str(Stretch(f"{block}.attentions", 0, count - 1)) for block, kind, count in found if "CrossAttn" in kind
    )


def blocks_lacking(names: Iterable[str], there: Iterable[str]) -> list[str]:
    """Return which blocks and stretches do not lie among others."""
    has = [Stretch.read(name) for name in there]
    return [name for name in names if not any(Stretch.read(name).lies_in(one) for one in has)]


def split_faults(train: TrainSettings, config: Mapping[str, Any]) -> list[SettingFault]:
    """Return what is wrong with training the blocks that settings name on a base, all at once.

    Args:
        train: The recipe.
        config: The configuration of the base's denoiser.
    """
    there = blocks_there(config)
    named = {"blocks.content": train.split.content, "blocks.style": train.split.style} if train.split else {}
    if train.rank_constraint:
        named["rank_constraint.blocks"] = train.rank_constraint.blocks
    faults = []
    for field, names in named.items():
        if missing := blocks_lacking(names, there):
            what, hint = "the base has no such blocks", "name blocks of this base, or leave it out for the base's own"
            faults.append(SettingFault(f"train.{field}", what, ", ".join(missing), ", ".join(there), hint))
    return faults


def _refuse_other_transformers(folder: Path, spec: str) -> None:
    """Refuse by name what has a transformer and is no FLUX.1: such models have other parts, too."""
    found = str(read_config(folder / "transformer" / "config.json", spec).get("_class_name"))
    if found != _FLUX_CLASS:
        what = _OTHER_TRANSFORMERS.get(found, "a transformer of no known family")
        hint = "take FLUX.1-dev, FLUX.1-schnell or a fine-tune of one, or SDXL"
        raise TopologyError(what, found, _FLUX_CLASS, spec, hint)


def check_shape(folder: Path, shape: Mapping[str, int | bool], spec: str) -> None:
    """Compare what a file with FLUX's transformer says of itself with the configuration that it is loaded by.

    Raises:
        TopologyError: They differ: the file is of another model than the folder, such as dev's and schnell's.
    """
    if family_of(folder) != "flux":
        raise TopologyError("rest is no FLUX", str(folder), "a model in diffusers' layout with transformer/", spec)
    config = {**_FLUX_USUAL, **read_config(folder / "transformer" / "config.json", spec)}
    other = [f"{name} {value}, not {config.get(name)}" for name, value in shape.items() if config.get(name) != value]
    if other:
        hint = "name as rest the model that the file was made of: FLUX.1-dev, or FLUX.1-schnell"
        raise TopologyError("the file and the rest are of two models", "; ".join(other), "one model", spec, hint)


def _check_flux(folder: Path, spec: str) -> None:
    transformer = read_config(folder / "transformer" / "config.json", spec)
    scheduler = read_config(folder / "scheduler" / "scheduler_config.json", spec)
    clip = read_config(folder / "text_encoder" / "config.json", spec)
    t5 = read_config(folder / "text_encoder_2" / "config.json", spec)
    faults = []
    if transformer.get("num_single_layers", 38) <= own_split(flux=True).of("style")[0].first:
        faults.append(f"{transformer.get('num_single_layers')} single-stream blocks, of which none is left for style")
    if transformer.get("in_channels", 64) != 4 * read_config(folder / "vae" / "config.json", spec)["latent_channels"]:
        faults.append(f"{transformer.get('in_channels')} channels a token, not four of the autoencoder's latents")
    if transformer.get("joint_attention_dim", 4096) != t5.get("d_model"):
        faults.append(f"tokens of {t5.get('d_model')}, not {transformer.get('joint_attention_dim')} numbers")
    if transformer.get("pooled_projection_dim", 768) != clip.get("hidden_size"):
        faults.append(f"a prompt of {clip.get('hidden_size')}, not {transformer.get('pooled_projection_dim')} numbers")
    if not str(scheduler.get("_class_name")).startswith("FlowMatch"):
        faults.append(f"scheduler is {scheduler.get('_class_name')}, not one of flow matching")
    if faults:
        raise TopologyError("not FLUX.1's topology", "; ".join(faults), "FLUX.1 or a model built like it", spec)


def _check_sdxl(folder: Path, spec: str) -> None:
    unet = read_config(folder / "unet" / "config.json", spec)
    scheduler = read_config(folder / "scheduler" / "scheduler_config.json", spec)
    projection = read_config(folder / "text_encoder_2" / "config.json", spec).get("projection_dim")
    faults = []
    if unet.get("_class_name") != "UNet2DConditionModel":
        faults.append(f"unet is {unet.get('_class_name')}, not UNet2DConditionModel")
    layers = unet.get("layers_per_block", 2)
    first = layers[-1] if isinstance(layers, list) else layers  # up blocks run through the levels backwards
    if (unet.get("up_block_types") or ["none"])[0] != "CrossAttnUpBlock2D" or first + 1 < len(BLOCKS):
        faults.append(f"no {' or '.join(BLOCKS.values())}")
    if unet.get("addition_embed_type") != "text_time":
        faults.append(f"conditioning is {unet.get('addition_embed_type')}, not text_time")
    elif unet["projection_class_embeddings_input_dim"] != 6 * unet["addition_time_embed_dim"] + (projection or 0):
        faults.append("text_time does not take a pooled prompt and six numbers of size and crop")
    if scheduler.get("prediction_type", "epsilon") not in ("epsilon", "v_prediction"):
        faults.append(f"prediction type {scheduler.get('prediction_type')}, not epsilon or v_prediction")
    if faults:
        raise TopologyError("not SDXL's topology", "; ".join(faults), "SDXL base 1.0 or a model built like it", spec)


def read_config(path: Path, spec: str) -> dict[str, Any]:
    """Read a configuration file.

    Raises:
        TopologyError: It is not there, or no JSON object.
    """
    try:
        return dict(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError) as error:
        raise TopologyError("unreadable configuration", f"{path}: {error}", "a JSON object", spec) from error


def check_vae(folder: Path, vae: Path, spec: str) -> None:
    """Compare the autoencoder of another place, a folder, with the UNet that it is to work with.

    Raises:
        TopologyError: It is no autoencoder, or its latents have another number of channels.
    """
    config = read_config(vae / "config.json", spec)
    if config.get("_class_name") != "AutoencoderKL":
        raise TopologyError("not an autoencoder", f"{config.get('_class_name')}", "AutoencoderKL", spec, "check vae")
    own = read_config(folder / "vae" / "config.json", spec)
    have, needed = config.get("latent_channels", 4), own.get("latent_channels", 4)
    if have != needed:
        hint = f"take an autoencoder made for {family_of(folder).upper()}"
        raise TopologyError("the autoencoder does not fit", f"{have} channels", f"{needed} channels", spec, hint)
