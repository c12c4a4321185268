"""One picture to draw, and what can be wrong with asking for it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from blora.adapters.adapter import Adapter, joint_split
from blora.adapters.blocks import Half, lacking, split_of, target_layers
from blora.errors import KeyMismatchError, SettingFault, SettingsError, TopologyError
from blora.models.model import Base
from blora.sampling.colour_transfer import Palette
from blora.sampling.denoise import model_faults
from blora.settings.block_split import block_name
from blora.settings.sampling import SampleSettings

__all__ = ["Draw", "check_draws", "content_blocks", "misfit", "prompts_of", "sides_of"]


@dataclass(frozen=True, eq=False)
class Draw:
    """One picture to draw.

    Attributes:
        content: Adapter whose content half is used; None for what the prompt says.
        style: Adapter whose style half is used; None for none.
        prompt: Goes into all blocks.
        seed: Of the picture's own generator, from 0, which is a seed like any other.
        content_strength: Factor of the content half's weight delta (linear; see `strength_from_reference`).
        style_strength: Factor of the style half's weight delta.
        content_prompt: If given, goes into the content blocks alone, instead of the prompt (complex scenes).
        negative_prompt: What guidance leads away from; empty for the settings' own.
        palette: Whose colours it gets, if not those that come; see `blora.sampling.colour_transfer`.
        whole: Adapter of any layers, used whole, for comparisons; the draws of one batch need the same layers, and
            those may not be in a half that one of them uses, too.
    """

    content: Adapter | None
    style: Adapter | None
    prompt: str
    seed: int
    content_strength: float = 1.0
    style_strength: float = 1.0
    content_prompt: str | None = None
    negative_prompt: str = ""
    palette: Palette | None = None
    whole: Adapter | None = None


def check_draws(base: Base, draws: Sequence[Draw], settings: SampleSettings) -> None:
    """Refuse what cannot be drawn, before anything is computed."""
    faults = model_faults(base, settings, "base")
    for number, draw in enumerate(draws):
        if not 0 <= draw.seed < 2**63:
            faults.append(SettingFault(f"draws[{number}].seed", "out of range", str(draw.seed), "0 to 2**63 - 1"))
        for name in ("content_strength", "style_strength"):
            if not np.isfinite(getattr(draw, name)):
                received = str(getattr(draw, name))
                faults.append(SettingFault(f"draws[{number}].{name}", "not finite", received, "a finite number"))
        if draw.content_prompt is not None and not base.family.hears_by_block:
            what, received = "no block of this base hears a prompt of its own", repr(draw.content_prompt)
            faults.append(SettingFault(f"draws[{number}].content_prompt", what, received, hint="leave it out"))
        if draw.negative_prompt and not base.guides_by_rows:
            what, received = "the base has no negative row to guide by", repr(draw.negative_prompt)
            faults.append(SettingFault(f"draws[{number}].negative_prompt", what, received, hint="leave it out"))
        if draw.palette and not 0 <= draw.palette.amount <= 1:
            received = str(draw.palette.amount)
            faults.append(SettingFault(f"draws[{number}].palette.amount", "out of range", received, "0 to 1"))
    if faults:
        raise SettingsError(faults)


def misfit(base: Base, draw: Draw) -> KeyMismatchError | None:
    """Why a draw's adapters cannot be used, if they cannot."""
    for half, adapter in sides_of(draw):
        if adapter is None:
            continue
        try:
            missing = lacking(adapter.layers, target_layers(base.unet, half, split=adapter.split))
        except TopologyError as error:
            return KeyMismatchError("an adapter of another base", error.what, error.accepted)
        if missing:
            received = f"{len(missing)} layers missing, such as {missing[0]}"
            return KeyMismatchError("an adapter lacks a layer", received, f"an adapter with a {half} half")
    if draw.content and draw.style:
        try:
            joint_split(draw.content.split, draw.style.split)
        except KeyMismatchError as error:
            return error
    return None


def sides_of(draw: Draw) -> tuple[tuple[Half, Adapter | None], ...]:
    """Return a draw's adapter for each half."""
    return ("content", draw.content), ("style", draw.style)


def content_blocks(base: Base, draw: Draw) -> tuple[str, ...]:
    """Name the content blocks of what a draw is drawn with, one by one."""
    adapter = draw.content or draw.style
    split = adapter.split if adapter else split_of(base.unet)
    return tuple(dict.fromkeys(map(block_name, target_layers(base.unet, "content", split=split))))


def prompts_of(draws: Iterable[Draw], settings: SampleSettings) -> set[str]:
    """Return every prompt that drawing asks the text encoders for."""
    told = {text for draw in draws for text in (draw.prompt, draw.content_prompt) if text is not None}
    return told | {draw.negative_prompt or settings.negative_prompt for draw in draws}
