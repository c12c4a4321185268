"""B-LoRA: content and style of one picture as two small sets of weights. Torch and diffusers, and nothing else of ours.

Five lines from two pictures to a third::

    import blora
    from blora.sampling.sample import sample

    base, settings = blora.load_base("embedded"), blora.resolve("demo")
    pepper, wave = blora.train_images(base, ["pepper.png", "wave.png"], settings.train)
    picture = sample(base, [blora.Draw(pepper.content, wave.style, "A [c] in [s] style", 0)], settings.sample)[0]

Importing this package is light: the names below are looked up on first use, so that a planner never loads torch.
The functions ``train`` and ``sample`` live in the modules of the same names.
"""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # The one list of public names: type checkers read it here, and `_HOMES` from this very text.
    from blora.adapters.adapter import Adapter as Adapter
    from blora.adapters.adapter import blend_adapters as blend_adapters
    from blora.adapters.adapter import strength_from_reference as strength_from_reference
    from blora.adapters.blocks import BLOCKS as BLOCKS
    from blora.adapters.factors import Factors as Factors
    from blora.adapters.load import load_adapter as load_adapter
    from blora.bases.locate import base_revision as base_revision
    from blora.errors import BloraError as BloraError
    from blora.metrics.feature_scorer import ScoreItem as ScoreItem
    from blora.metrics.score import score_samples as score_samples
    from blora.metrics.steadiness import Steadiness as Steadiness
    from blora.metrics.steadiness import steadiness as steadiness
    from blora.models.model import Base as Base
    from blora.models.model import load_base as load_base
    from blora.sampling.colour_transfer import Palette as Palette
    from blora.sampling.colour_transfer import transfer_colours as transfer_colours
    from blora.sampling.draw import Draw as Draw
    from blora.settings.judging import ScoreSettings as ScoreSettings
    from blora.settings.presets import PRESETS as PRESETS
    from blora.settings.presets import Settings as Settings
    from blora.settings.resolve import resolve as resolve
    from blora.settings.sampling import SampleSettings as SampleSettings
    from blora.settings.training import RECIPE_VERSION as RECIPE_VERSION
    from blora.settings.training import TrainSettings as TrainSettings
    from blora.training.from_files import train_images as train_images
    from blora.training.from_files import train_object as train_object
    from blora.training.items import TrainItem as TrainItem
    from blora.training.items import TrainResult as TrainResult

_HOMES = {
    alias.name: node.module
    for node in ast.walk(ast.parse(Path(__file__).read_text("utf-8")))
    if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("blora.")
    for alias in node.names
}
"""The module of each public name."""

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """Import the module that holds a public name on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'blora' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return __all__
