"""B-LoRA: content and style of one picture as two small sets of weights. Torch and diffusers, and nothing else of ours.

Five lines from two pictures to a third::

    import blora
    from blora.sample import Draw, sample

    base, settings = blora.load_base("embedded"), blora.resolve("demo")
    pepper, wave = blora.train_images(base, ["pepper.png", "wave.png"], settings.train)
    picture = sample(base, [Draw(pepper.content, wave.style, "A [c] in [s] style", seed=0)], settings.sample)[0]

Importing this package is light: names below are looked up on first use, so that a planner never loads torch.
The functions ``train`` and ``sample`` live in the modules of the same names.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from blora.adapter import Adapter, Factors, load_adapter, strength_from_reference
    from blora.base import Base, base_revision, load_base
    from blora.blend import blend_adapters
    from blora.blocks import BLOCKS
    from blora.config import PRESETS, RECIPE_VERSION, SampleSettings, ScoreSettings, Settings, TrainSettings, resolve
    from blora.consistency import Steadiness, steadiness
    from blora.errors import BloraError
    from blora.recolour import Palette, transfer_colours
    from blora.sample import Draw
    from blora.score import ScoreItem, score_samples
    from blora.train import TrainItem, TrainResult, train_images, train_object

_HOME = {
    "Adapter": "adapter",
    "BLOCKS": "blocks",
    "Base": "base",
    "BloraError": "errors",
    "Draw": "sample",
    "Factors": "adapter",
    "PRESETS": "config",
    "Palette": "recolour",
    "RECIPE_VERSION": "config",
    "SampleSettings": "config",
    "ScoreItem": "score",
    "ScoreSettings": "config",
    "Settings": "config",
    "Steadiness": "consistency",
    "TrainItem": "train",
    "TrainResult": "train",
    "TrainSettings": "config",
    "transfer_colours": "recolour",
    "base_revision": "base",
    "blend_adapters": "blend",
    "load_adapter": "adapter",
    "load_base": "base",
    "resolve": "config",
    "score_samples": "score",
    "steadiness": "consistency",
    "strength_from_reference": "adapter",
    "train_images": "train",
    "train_object": "train",
}

__all__ = [
    "BLOCKS",
    "PRESETS",
    "RECIPE_VERSION",
    "Adapter",
    "Base",
    "BloraError",
    "Draw",
    "Factors",
    "Palette",
    "SampleSettings",
    "ScoreItem",
    "ScoreSettings",
    "Settings",
    "Steadiness",
    "TrainItem",
    "TrainResult",
    "TrainSettings",
    "base_revision",
    "blend_adapters",
    "load_adapter",
    "load_base",
    "resolve",
    "score_samples",
    "steadiness",
    "strength_from_reference",
    "train_images",
    "train_object",
    "transfer_colours",
]


def __getattr__(name: str) -> Any:
    """Import the module that holds a public name on first use (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module 'blora' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"blora.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted(__all__)
