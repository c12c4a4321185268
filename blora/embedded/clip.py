"""The embedded CLIP: the offline scorer, rebuilt from its visual tower and the pipeline's second text encoder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blora.embedded import MODEL_DIR

if TYPE_CHECKING:
    import open_clip
    import torch

# One resblock: the part of its name in open_clip, and in transformers.
_BLOCK = {
    "ln_1": "layer_norm1",
    "attn.out_proj": "self_attn.out_proj",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_OUTER = {
    "token_embedding.weight": "embeddings.token_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_final.weight": "final_layer_norm.weight",
    "ln_final.bias": "final_layer_norm.bias",
}


def text_keys(layers: int) -> dict[str, str]:
    """open_clip's names of text weights that are one tensor in transformers too (without its `text_model.`)."""
    keys = dict(_OUTER)
    for layer in range(layers):
        for theirs, ours in _BLOCK.items():
            for kind in ("weight", "bias"):
                keys[f"transformer.resblocks.{layer}.{theirs}.{kind}"] = f"encoder.layers.{layer}.{ours}.{kind}"
    return keys


def text_to_open_clip(text: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights of a CLIPTextModelWithProjection under open_clip's names."""
    import torch

    inner = {key.removeprefix("text_model."): value for key, value in text.items()}
    layers = 1 + max(int(key.split(".")[2]) for key in inner if key.startswith("encoder.layers."))
    out = {theirs: inner[ours] for theirs, ours in text_keys(layers).items()}
    out["text_projection"] = inner["text_projection.weight"].T.contiguous()
    for layer in range(layers):
        for kind in ("weight", "bias"):
            parts = [inner[f"encoder.layers.{layer}.self_attn.{name}_proj.{kind}"] for name in "qkv"]
            out[f"transformer.resblocks.{layer}.attn.in_proj_{kind}"] = torch.cat(parts)
    return out


def load_embedded_clip(device: str = "cpu", folder: Path = MODEL_DIR.parent) -> tuple[open_clip.CLIP, Any, Any]:
    """The scorer as (model, preprocess, tokenizer), as open_clip's own factory would give it; float32, eval mode.

    Args:
        device: Where the model goes.
        folder: Holds `model/` and `clip/`; the shipped ones if not given.
    """
    import open_clip
    import torch
    from safetensors.torch import load_file

    config = json.loads((folder / "clip" / "open_clip_config.json").read_text())
    model = open_clip.model.CLIP(**config["model_cfg"])
    weights = load_file(folder / "clip" / "visual.safetensors")
    weights |= text_to_open_clip(load_file(folder / "model" / "text_encoder_2" / "model.safetensors"))
    model.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in weights.items()})
    look = config["preprocess_cfg"]
    preprocess = open_clip.image_transform(
        config["model_cfg"]["vision_cfg"]["image_size"], is_train=False, mean=look["mean"], std=look["std"]
    )
    tokenizer = open_clip.SimpleTokenizer(context_length=config["model_cfg"]["text_cfg"]["context_length"])
    return model.to(torch.device(device)).eval().requires_grad_(False), preprocess, tokenizer
