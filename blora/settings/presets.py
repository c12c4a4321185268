"""Everything a run of the method is told, and named starting points."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from pydantic import Field

from blora.settings.fields import Frozen, PackSize
from blora.settings.judging import CheckSettings, ScoreSettings
from blora.settings.sampling import SampleSettings
from blora.settings.training import TrainSettings

__all__ = ["PRESETS", "PURPOSES", "Settings"]


class Settings(Frozen):
    """Everything a run of the method is told."""

    train: TrainSettings = TrainSettings()
    """How adapters are trained."""
    sample: SampleSettings = SampleSettings()
    """How pictures are drawn."""
    score: ScoreSettings = ScoreSettings()
    """How pictures are judged."""
    check: CheckSettings = CheckSettings()
    """How adapters are checked."""
    pack_size: PackSize = 1
    """Adapters trained in one pass, or "auto": as many as the device's memory holds; layout, not identity."""
    shard_size: int = Field(default=64, ge=1, le=4096)
    """Pictures drawn by one task; layout, not identity."""


PRESETS: Final[Mapping[str, Settings]] = MappingProxyType(
    {
        # The embedded model on a CPU: minutes for a 4 x 4 grid. Its two blocks learned to read pictures as prompts, so
        # an update of how they read says all that they can draw. Layout and palette are settled at the noisy end, fine
        # parts are not; by rows of its own the style's half holds less of the thing that it was learned on. And
        # guidance away from the base alone brings out what little a small model adds. The halves of so small a model
        # answer to the very prompt that they were trained on.
        "demo": Settings(
            train=TrainSettings(
                resolution_px=128,
                layers="crossattn_kv",
                rank=32,
                learning_rate=4e-3,
                steps=100,
                batch_size=4,
                timestep_power=2.0,
                style_alone_share=0.25,
            ),
            sample=SampleSettings(
                steps=20,
                guidance_scale=2.0,
                guidance_from="base",
                prompt="A [c]",
                width_px=128,
                height_px=128,
                batch_size=8,
            ),
            pack_size=4,
            shard_size=16,
        ),
        # SDXL at a fraction of the cost, to look at a combination before paying for it.
        "draft": Settings(
            train=TrainSettings(resolution_px=768, rank=32, learning_rate=1e-4, steps=400, precision="bf16"),
            # A second-order solver: what 50 steps of Euler's give, in about half of them.
            sample=SampleSettings(steps=25, scheduler="dpm++", width_px=768, height_px=768, precision="bf16"),
            pack_size=2,
        ),
        # A base with a few-step accelerator in it: sdxl+lightning8, another one under `fuse`, or a fine-tune that was
        # made so. It has no use for guidance, and wants the last timestep to be the noisiest.
        "fast": Settings(
            train=TrainSettings(precision="bf16"),
            sample=SampleSettings(
                steps=8,
                guidance_scale=1.0,
                scheduler="euler",
                scheduler_options={"timestep_spacing": "trailing"},
                precision="bf16",
                batch_size=4,
            ),
        ),
        # FLUX.1-dev. Rank, rate, denoising steps and guidance are those of betyavan/b-lora-flux @ e8717c0, which trains
        # for 500 to 2000 steps, on 512 to 1024 px by turns and with AdamW in 8 bits; timesteps are logit-normal, as by
        # default in ai-toolkit ("sigmoid"), with which it trains. SplitFlux, whose split this is, is told to train with
        # rank 64, rate 1e-4 and 1000 steps (notes on it, see `RankConstraint`): each may be said beside the preset.
        "flux": Settings(
            train=TrainSettings(
                resolution_px=1024,
                rank=16,
                steps=1000,
                timestep_sampling="logit_normal",
                precision="bf16",
            ),
            sample=SampleSettings(steps=28, guidance_scale=3.5, precision="bf16", batch_size=4),
        ),
        # The published recipe. It ran in fp16; bf16 is the one change, since the fp16 loss turns NaN near step 500
        # (issue 16 of the reference repository).
        "paper": Settings(
            train=TrainSettings(precision="bf16", size_conditioning="published"),
            sample=SampleSettings(precision="bf16", batch_size=4),
        ),
    }
)
"""Named starting points; overrides are laid over them."""

PURPOSES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "demo": "the embedded model on a CPU: small pictures in minutes, to see how all of it works",
        "draft": "SDXL at a fraction of the cost, to look at a combination before paying for it",
        "fast": "a base that needs few steps, such as sdxl+lightning8",
        "flux": "FLUX.1, which has to be named as the base",
        "paper": "SDXL by the published recipe",
    }
)
"""What each is for. Where nobody names a base, demo works with the embedded model; draft, fast and paper with SDXL."""
