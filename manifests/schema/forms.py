"""Rows as forms show them, and what their fields mean; what each accepts stands with it (`rows.py`)."""

from __future__ import annotations

from typing import Any, Final

_IMAGE: Final = "A picture, or pictures."
_ADAPTER: Final = "A B-LoRA that is there already."
_NAME: Final = "What it is called in tables, on pages and in file names; left out, the file's name."
_WORD: Final = "What the picture shows or looks like, in a word or two; results are compared with it."
_CLASS_WORD: Final = "Stands in the training's prompt and in [c] of what is drawn, for several photos of one object."

MEANINGS: Final = {
    "version": "Of this format.",
    "name": _NAME,
    "base": "The model that is drawn with.",
    "preset": "The settings to start from: demo is for the embedded model, flux for FLUX.1, the others are for SDXL.",
    "settings": "Laid over the preset.",
    "grid": "Whether every content meets every style.",
    "sweep": "Draws a pair with each of several values.",
    "strength_reading": "How strengths count: linear, or squared as the reference code does.",
    "on_fault": "What a bad row does: recorded while the rest goes on, or nothing starts.",
    "image": _IMAGE,
    "images": "Several photos of one object, for one adapter.",
    "adapter": _ADAPTER,
    "word": _WORD,
    "class_word": _CLASS_WORD,
    "frames": "A clip, each frame of which is a content.",
    "every": "Of a clip's frames.",
    "limit": "Of a clip's frames.",
    "frames_per_second": "Of the clip that comes out.",
    "content": "Whose content is drawn.",
    "style": "In whose look.",
    "prompt": "What is drawn; [c] and [s] stand for content and style. Left out, the preset says it.",
    "prompts": "Several, each a picture of its own.",
    "content_prompt": "For the content's block alone, in complex scenes.",
    "negative_prompt": "What is not to be drawn.",
    "content_strength": "How much of the content's half is added.",
    "style_strength": "How much of the style's half is added.",
    "own_style": "How much of the content's own look is kept beside the style's.",
    "colour_of": "Whose colours the result has.",
    "colour_by": "How it gets them: mapped afterwards, mapped on the thing alone, or led there in every step.",
    "colour_amount": "How much of that.",
    "seeds": "One picture for each. Left out: 0.",
    "samples": "So many pictures of each pair, in place of seeds.",
    "candidates": "Of each picture several are drawn, and the best is chosen.",
    "mix": "From one to the other of two contents or styles.",
    "content_adapter": _ADAPTER,
    "style_adapter": _ADAPTER,
    "content_name": _NAME,
    "style_name": _NAME,
    "content_word": _WORD,
    "style_word": _WORD,
    "content_class_word": _CLASS_WORD,
    "style_class_word": _CLASS_WORD,
    "model": "The model whose parts are taken where no other is named.",
    "vae": "An autoencoder in place of the model's own.",
    "fuse": "LoRAs that are added to it.",
    "lora": "A LoRA's .safetensors file.",
    "weight": "How much of it is added.",
    "quantize": "What the weights of the denoiser are kept in, so that a smaller card has room for it.",
    "rest": "Where all other parts come from, of a model whose file holds FLUX's transformer alone.",
}
"""By the field's name, which means one thing everywhere; a sentence or two."""


def as_form(schema: dict[str, Any]) -> None:
    """Have a row's schema be one of a form."""
    without_null(schema)
    explain_fields(schema)


def without_null(schema: dict[str, Any]) -> None:
    """Have a form offer no "None" beside the other kinds of a field: what is not said is left out.

    Prefect's server takes null all the same where it is the default.
    """
    for field in schema.get("properties", {}).values():
        kinds = [kind for kind in field.get("anyOf", ()) if kind != {"type": "null"}]
        if len(kinds) == 1:
            del field["anyOf"]
            field |= kinds[0]
        elif kinds:
            field["anyOf"] = kinds
        if "oneOf" in field:  # which Prefect's form shows as bare JSON
            field["anyOf"] = field.pop("oneOf")


def explain_fields(schema: dict[str, Any]) -> None:
    """Have the fields of a form's schema say what they mean before they say what they accept."""
    for name, field in schema.get("properties", {}).items():
        if name in MEANINGS:
            accepted = field.get("description")
            field["description"] = f"{MEANINGS[name]} Accepted: {accepted}." if accepted else MEANINGS[name]
