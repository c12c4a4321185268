"""What a file says about LoRA's alpha, wherever it is written: the scale by which each layer's update counts.

    dialect     where alpha is                                         scale
    kohya       a tensor ``<layer>.alpha`` beside the factors          alpha / rank
    diffusers   header ``lora_adapter_metadata`` (0.34 and later)      as PEFT's, below
    PEFT        ``adapter_config.json`` in the file's folder           lora_alpha / rank, with use_rslora / rank ** 0.5

PEFT's ``alpha_pattern`` names layers by the end of their name, as a regular expression; the first that fits counts.
Source: peft 0.21, ``tuners/lora/layer.py`` and ``utils/other.py`` (``get_pattern_key``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from blora.errors import KeyMismatchError

__all__ = ["HEADER", "PEFT_CONFIG", "Alphas", "told_alphas"]

HEADER: Final = "lora_adapter_metadata"
"""The key of a file's header under which diffusers writes PEFT's configuration."""

PEFT_CONFIG: Final = "adapter_config.json"
"""The file beside the adapter's in which PEFT writes it."""


@dataclass(frozen=True)
class Alphas:
    """What a header or a configuration says of alpha.

    Attributes:
        alpha: Of every layer that no pattern names.
        patterns: Alpha by a regular expression for the end of a layer's name.
        by_root: Whether alpha is divided by the root of the rank (rsLoRA, arXiv 2312.03732) and not by the rank.
    """

    alpha: float
    patterns: Mapping[str, float] = field(default_factory=dict)
    by_root: bool = False

    def scale(self, layer: str, rank: int) -> float:
        """The factor of a layer's update."""
        fits = (alpha for name, alpha in self.patterns.items() if re.fullmatch(rf"(?:.*\.)?(?:{name})", layer))
        return next(fits, self.alpha) / (rank**0.5 if self.by_root else rank)


def told_alphas(metadata: Mapping[str, str], config: bytes | None, where: str) -> Alphas | None:
    """Read the file's header, or else the configuration beside it; None if neither says anything of alpha.

    Args:
        metadata: The header of a safetensors file.
        config: What `PEFT_CONFIG` of its folder holds; None where there is none.
        where: What messages call the file.

    Raises:
        KeyMismatchError: It is there and cannot be understood.
    """
    if HEADER in metadata:
        return _read(metadata[HEADER], f"{where}, header {HEADER}")
    return None if config is None else _read(config, f"{where}, {PEFT_CONFIG} beside it")


def _read(text: str | bytes, where: str) -> Alphas | None:
    """Alphas of PEFT's configuration as JSON; diffusers writes that of the UNet under keys that begin with "unet."."""
    try:
        told = json.loads(text)
        own: dict[str, Any] = {key.removeprefix("unet."): value for key, value in told.items()}
        if own.get("lora_alpha") is None:
            return None
        patterns = {str(name): float(alpha) for name, alpha in (own.get("alpha_pattern") or {}).items()}
        for name in patterns:
            re.compile(name)
        return Alphas(float(own["lora_alpha"]), patterns, bool(own.get("use_rslora")))
    except (ValueError, TypeError, AttributeError, re.error) as error:
        accepted = "PEFT's configuration as JSON, with lora_alpha"
        raise KeyMismatchError(
            "what the file says of alpha cannot be read", str(error)[:80], accepted, where
        ) from error
