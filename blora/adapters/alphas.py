"""What a file says about LoRA's alpha, wherever it is written: the scale by which each layer's update counts.

    dialect     where alpha is                                         scale
    kohya       a tensor ``<layer>.alpha`` beside the factors          alpha / rank
    diffusers   header ``lora_adapter_metadata`` (0.34 and later)      as PEFT's, below
    PEFT        ``adapter_config.json`` in the file's folder           lora_alpha / rank, with use_rslora / rank ** 0.5

PEFT's ``alpha_pattern`` names layers by the end of their name, as a regular expression; the first that fits counts.
PEFT itself writes plain names there. A file may come from anybody, and some expressions take for ever to try: groups,
choices and more than `MOST_REPEATS` repeats are refused.
Source: peft 0.21, ``tuners/lora/layer.py`` and ``utils/other.py`` (``get_pattern_key``).
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from blora.errors import KeyMismatchError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["HEADER", "PEFT_CONFIG", "Alphas", "scale_of", "told_alphas", "warn_of_no_alpha"]

_LOG = logging.getLogger("blora")

HEADER: Final = "lora_adapter_metadata"
"""The key of a file's header under which diffusers writes PEFT's configuration."""

PEFT_CONFIG: Final = "adapter_config.json"
"""The file beside the adapter's in which PEFT writes it."""

MOST_PATTERNS: Final = 10_000
"""Names in an ``alpha_pattern``."""

MOST_REPEATS: Final = 2
"""Stars and the like in one of them."""

_REPEAT: Final = re.compile(r"[*+?]")
_NAME: Final = re.compile(r"[\w.^$\\\[\]*+?-]{1,300}")  # neither groups nor choices: trying these may double with each


@dataclass(frozen=True)
class Alphas:
    """What a header or a configuration says of alpha.

    Attributes:
        alpha: Of every layer that no pattern names.
        patterns: Regular expressions for whole names of layers, each with their alpha.
        by_root: Whether alpha is divided by the root of the rank (rsLoRA, arXiv 2312.03732) and not by the rank.
    """

    alpha: float
    patterns: Sequence[tuple[re.Pattern[str], float]] = ()
    by_root: bool = False

    def scale(self, layer: str, rank: int) -> float:
        """The factor of a layer's update."""
        fits = (alpha for pattern, alpha in self.patterns if pattern.fullmatch(layer))
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


def scale_of(layer: str, rank: int, written: Tensor | None, alphas: Alphas | None, where: str) -> float:
    """The factor of one layer's update: by the alpha beside its factors, else by what the file says, else one.

    Raises:
        KeyMismatchError: The alpha beside them is not one number above 0.
    """
    if written is None:
        return 1.0 if alphas is None else alphas.scale(layer, rank)
    if written.numel() != 1:
        received = f"{written.numel()} numbers"
        raise KeyMismatchError("alpha is not one number", received, "one number", f"{where}, {layer}")
    if not float(written):
        received = "0, which A1111 takes for no update and kohya for alpha = rank"
        raise KeyMismatchError("alpha says two things", received, "a number above 0", f"{where}, {layer}")
    return float(written) / rank


def warn_of_no_alpha(parts: Mapping[str, Mapping[str, Tensor]], alphas: Alphas | None, where: str) -> None:
    """Log that a scale of one is assumed, where a file says nothing of alpha: neither beside factors nor elsewhere."""
    if alphas is None and not any("alpha" in have for have in parts.values()):
        _LOG.warning("%s says nothing of alpha: a scale of one (alpha = rank) is assumed", where)


def _pattern(name: str) -> re.Pattern[str]:
    """The expression for all names that end so.

    Raises:
        ValueError: It may take for ever to try.
        re.error: It is none.
    """
    if not _NAME.fullmatch(name) or len(_REPEAT.findall(name)) > MOST_REPEATS:
        raise ValueError(f"alpha_pattern {name[:40]!r}: more than the name of a layer with {MOST_REPEATS} of * + ?")
    return re.compile(rf"(?:.*\.)?(?:{name})")


def _read(text: str | bytes, where: str) -> Alphas | None:
    """Alphas of PEFT's configuration as JSON; diffusers writes a denoiser's under "unet." or "transformer."."""
    try:
        told = json.loads(text)
        own: dict[str, Any] = {
            key.removeprefix("unet.").removeprefix("transformer."): value for key, value in told.items()
        }
        if own.get("lora_alpha") is None:
            return None
        told_patterns = dict(own.get("alpha_pattern") or {})
        if len(told_patterns) > MOST_PATTERNS:
            raise ValueError(f"alpha_pattern with {len(told_patterns):,} names; at most {MOST_PATTERNS:,} are read")
        patterns = [(_pattern(name), float(alpha)) for name, alpha in told_patterns.items()]
        return Alphas(float(own["lora_alpha"]), patterns, bool(own.get("use_rslora")))
    except (ValueError, TypeError, AttributeError, re.error) as error:
        accepted = "PEFT's configuration as JSON, with lora_alpha"
        raise KeyMismatchError(
            "what the file says of alpha cannot be read", str(error)[:80], accepted, where
        ) from error
