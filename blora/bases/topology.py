"""Whether a model in diffusers' layout is built as the method needs it, told by its configuration files. No torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from blora.adapters.blocks import BLOCKS
from blora.bases.places import PARTS
from blora.errors import TopologyError

__all__ = ["check_topology", "check_vae", "read_config"]


def check_topology(folder: Path, spec: str) -> None:
    """Compare a folder's configuration files with what the method needs, by name.

    Raises:
        TopologyError: With everything that is missing.
    """
    missing = [f"{part}/" for part in PARTS if not (folder / part).is_dir()]
    if missing:
        received = f"without {', '.join(missing)}"
        raise TopologyError("not a diffusers SDXL folder", received, "all of " + ", ".join(PARTS), spec)
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
    have, needed = config.get("latent_channels", 4), read_config(folder / "unet" / "config.json", spec)["in_channels"]
    if have != needed:
        hint = "take an autoencoder made for SDXL"
        raise TopologyError("the autoencoder does not fit", f"{have} channels", f"{needed} channels", spec, hint)
