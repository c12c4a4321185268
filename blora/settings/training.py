"""How an adapter is trained, and what of it is part of the adapter's id.

Imports no torch, so that a planner without it can resolve and store settings; nor does anything else of this room.
Defaults are the paper's recipe (arXiv 2403.14572, section 4.2 and supplement; reference repository
yardenfren1996/B-LoRA @ e08380d).
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, WrapValidator, model_validator

from blora.settings.block_split import SPLITS, Blocks, BlockSplit, RankConstraint, own_split
from blora.settings.fields import Frozen, Precision, Text, TrainedLayers, one_fault

__all__ = ["RECIPE_VERSION", "TrainSettings", "recipe_version"]

RECIPE_VERSION: Final = 1
"""Counts changes of the code that alter what a given set of training settings produces; part of every adapter's id."""
_ROTATION_VERSION: Final = 2
"""The same for adapters of several photos, whose order is drawn by lot since 2."""


def recipe_version(photos: int) -> int:
    """Return the version of what turns so many photos of one object into an adapter; part of the adapter's id."""
    return RECIPE_VERSION if photos == 1 else _ROTATION_VERSION


_LAYOUT: Final = ("checkpoint_every_seconds", "checkpoint_every_steps", "checkpointing", "execution", "front_place")
"""Settings that change no weight beyond rounding."""
_LATER: Final = {
    "layers": "attention",
    "size_conditioning": "true",
    "deterministic": False,
    "timestep_sampling": "uniform",
    "blocks": None,
    "rank_constraint": None,
    "timestep_mean": 0.0,
    "timestep_std": 1.0,
    "timestep_shift": 1.0,
    "front_pool": 0,
    "style_alone_share": 0.0,
    "learning_rate_schedule": "constant",
    "frozen": "same",
}
"""Settings that came later, with what they name no adapter by."""


TimestepShift = Annotated[
    Annotated[float, Field(gt=0, le=100)] | Literal["resolution"],
    WrapValidator(one_fault('a number above 0 to 100, or "resolution"')),
]
"""How far timesteps are moved towards noise."""


def _as_word(value: Any) -> Any:
    """Return a yes of YAML as the word that it was written as."""
    return "true" if value is True else value


class TrainSettings(Frozen):
    """How one B-LoRA is trained from one image (or several photos of one object)."""

    resolution_px: int = Field(default=1024, ge=32, le=2048, multiple_of=8)
    """Length that the shorter side of the image is resized to, in pixels."""
    crop: Literal["center", "none"] = "center"
    """"center": cut the middle square. "none": keep the whole picture, longer side up to four times the shorter one."""
    size_conditioning: Annotated[Literal["true", "published"], BeforeValidator(_as_word)] = "true"
    """What the UNet is told of a picture's size. "true": its own size and where it is cut, so that a picture of 256 px
    is trained as one and drawn as one of 1024. "published": that every picture is a whole square of the resolution."""
    prompt: Text = Field(default="A [v]", min_length=1)
    """The one prompt of the training; "[v]" is an ordinary string, no token is added."""
    rank: int = Field(default=64, ge=1, le=256)
    """Rank of the low-rank update of every layer."""
    layers: TrainedLayers = "attention"
    """Which layers of the two blocks carry an update. "attention": all projections of self- and cross-attention, as
    published. "crossattn_kv": keys and values of cross-attention alone, that is, how a block reads the prompt."""
    blocks: Blocks = None
    """Which blocks hold content and which style: "b-lora" (SDXL's own), "splitflux" (FLUX's own), "b-lora-flux", or
    {content: [...], style: [...]} with names of blocks and stretches such as single_transformer_blocks.0-9. None means
    the base's own."""
    alpha: float | None = Field(default=None, gt=0, le=1024)
    """LoRA's alpha: the update is scaled by alpha / rank. None means alpha = rank, a scale of one."""
    rank_constraint: RankConstraint | None = None
    """Blocks whose updates have a part of the rank and count as many times as much, as in SplitFlux:
    {blocks: [single_transformer_blocks.10-11], factor: 2}. None: every layer has the same rank."""
    learning_rate: float = Field(default=5e-5, gt=0, le=1e3)
    """Learning rate of the first step; no warm-up."""
    learning_rate_schedule: Literal["constant", "cosine"] = "constant"
    """"constant": the same rate in all steps, as published. "cosine": it falls along half a cosine to nearly nothing in
    the last step, as diffusers' and kohya's do."""
    steps: int = Field(default=1000, ge=1, le=100_000)
    """Optimizer steps."""
    batch_size: int = Field(default=1, ge=1, le=256)
    """Noise draws of the image in each step; their losses are averaged."""
    timestep_power: float = Field(default=1.0, ge=1.0, le=16)
    """1 draws timesteps uniformly, as published. Above, they crowd at the noisy end, where layout and palette are
    settled: a timestep lies a share u**power below the noisiest one, u uniform."""
    timestep_sampling: Literal["uniform", "logit_normal"] = "uniform"
    """"uniform": as `timestep_power` says. "logit_normal": most in the middle, a share sigmoid(z) of all timesteps, z
    normal (arXiv 2403.03206, section 3.1), as FLUX is often trained."""
    timestep_mean: float = Field(default=0.0, ge=-5, le=5)
    """Mean of z with "logit_normal": above 0 timesteps are noisier."""
    timestep_std: float = Field(default=1.0, gt=0, le=5)
    """Standard deviation of z with "logit_normal"."""
    timestep_shift: TimestepShift = 1.0
    """Of flow matching alone: a share t of all noise becomes shift * t / (1 + (shift - 1) * t), noisier above 1, as for
    larger pictures (arXiv 2403.03206, section 5.3.2). "resolution": what the base's scheduler draws a picture of that
    size with, FLUX.1-dev's 3.16 at 1024 px (kohya's "flux_shift"). 1 moves nothing."""
    style_alone_share: float = Field(default=0.0, ge=0, le=0.9)
    """Share of the rows that train the style's half alone, the content's being off. They show the picture turned by
    quarters and mirrored, so that this half learns what holds in every direction. Another recipe, on SDXL not tried.
    0: both halves learn from every row, as published."""
    front_pool: int = Field(default=0, ge=0, le=4096)
    """Draws of noise and timestep that each adapter holds and uses in `front_uses` steps each, so that most steps skip
    the UNet's frozen front, which is 27 % of a step of SDXL; 54 MB a row of 1024 px and a draw in half precision.
    Another recipe: fewer distinct draws. 0: every step makes its own, as published. SDXL only."""
    front_uses: int = Field(default=4, ge=2, le=100)
    """In how many steps each draw of the pool is used, once in every round of the pool in an order drawn by lot, before
    it is replaced: of 1000 steps, 4 uses leave about 250 distinct timesteps and noises. Without a pool, nothing."""
    front_place: Literal["auto", "device", "host"] = "auto"
    """Where the pool lies; "auto": on the device, or in the CPU's memory where a GPU has no room for it."""
    beta1: float = Field(default=0.9, ge=0, lt=1)
    """AdamW's decay of the mean of gradients."""
    beta2: float = Field(default=0.999, ge=0, lt=1)
    """AdamW's decay of the mean of squared gradients."""
    weight_decay: float = Field(default=1e-4, ge=0, le=1)
    """AdamW's decoupled weight decay."""
    epsilon: float = Field(default=1e-8, gt=0, le=1)
    """AdamW's epsilon."""
    max_grad_norm: float = Field(default=1.0, gt=0, le=1e6)
    """Each adapter's gradient, over all its layers, is clipped to this norm."""
    precision: Precision = "fp32"
    """Number format of the UNet while training."""
    frozen: Literal["same", "fp8"] = "same"
    """"fp8": while training, linear layers of transformer blocks that no adapter sits on are stored in eight bits, 1.9
    GB less of SDXL in half precision on a GPU; every product is of `precision`. Pictures are drawn with the whole
    weights. Another recipe: weights are off by up to 1/16."""
    checkpointing: Literal["auto", "on", "off"] = "auto"
    """Recompute activations of the up blocks to save memory; "auto" does so only where a GPU's memory asks for it."""
    execution: Literal["eager", "compiled", "graph", "compiled_graph"] = "eager"
    """How a step is handed to the device: operation by operation, with compiled blocks (needs a C++ compiler on a CPU),
    or as a captured CUDA graph; layout, not identity: the same mathematics within rounding."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Mixed with the adapter's key into the seed of its own generator. 0 is a seed like any other."""
    deterministic: bool = False
    """On a GPU, only kernels that give the same bits each time, where the same training twice else differs by rounding;
    slower. A CPU does so anyway."""
    checkpoint_every_seconds: float = Field(default=180.0, gt=0)
    """A checkpoint is written once so much time has passed since the last one; a shorter training has none."""
    checkpoint_every_steps: int | None = Field(default=None, ge=1)
    """A checkpoint is also written after each so many steps; None: by time alone."""
    skips_before_reseed: int = Field(default=5, ge=1, le=1000)
    """NaN policy: non-finite steps in a row, each skipped, until the adapter's generator is reseeded."""
    reseeds_before_lower_rate: int = Field(default=1, ge=0, le=100)
    """NaN policy: reseeds that may follow each other without one finite step until the learning rate is lowered."""
    lower_rate_factor: float = Field(default=0.1, gt=0, lt=1)
    """NaN policy: the learning rate is multiplied by this when it is lowered."""
    max_lower_rates: int = Field(default=2, ge=0, le=100)
    """NaN policy: how often the rate is lowered before the adapter is given up."""

    @model_validator(mode="after")
    def _goes_together(self) -> TrainSettings:
        if self.timestep_sampling != "uniform" and self.timestep_power != 1:
            raise ValueError("timestep_power 1 with timestep_sampling logit_normal, or timestep_sampling uniform")
        if self.timestep_sampling != "logit_normal" and (self.timestep_mean, self.timestep_std) != (0, 1):
            raise ValueError("timestep_mean 0 and timestep_std 1, or timestep_sampling logit_normal")
        if self.rank_constraint and self.rank % self.rank_constraint.factor:
            raise ValueError(f"a rank that is a multiple of rank_constraint.factor, {self.rank_constraint.factor}")
        if self.crop == "none" and self.execution.endswith("graph"):
            raise ValueError(
                "a captured graph has one shape: execution eager or compiled with crop none, or crop center"
            )
        if self.style_alone_share and self.execution.endswith("graph"):
            raise ValueError(
                "a captured graph has rows of one kind: execution eager or compiled with style_alone_share, or 0 of it"
            )
        return self

    @property
    def split(self) -> BlockSplit | None:
        """The split that is asked for, by its blocks; None for the base's own."""
        return SPLITS[self.blocks] if isinstance(self.blocks, str) else self.blocks

    @property
    def scale(self) -> float:
        """Factor of the low-rank update: alpha / rank."""
        return 1.0 if self.alpha is None else self.alpha / self.rank

    @property
    def front_share(self) -> float:
        """Share of the steps that go through the UNet's front: all, or those that make a new draw for the pool."""
        if not self.front_pool:
            return 1.0
        generations, rest = divmod(self.steps, self.front_pool * self.front_uses)
        return (generations * self.front_pool + min(rest, self.front_pool)) / self.steps

    def rate_share(self, step: int) -> float:
        """Return which part of the learning rate a step is taken with; steps are counted from 1."""
        if self.learning_rate_schedule == "constant":
            return 1.0
        return (1 + math.cos(math.pi * (step - 1) / self.steps)) / 2

    def constrained(self, layer: str) -> int:
        """Return by what a layer's rank is divided and its update multiplied."""
        return self.rank_constraint.factor if self.rank_constraint and self.rank_constraint.holds(layer) else 1

    def identity(self) -> dict[str, Any]:
        """Return the settings that change the trained weights, as JSON values; they go into the adapter's id.

        Left out: when checkpoints are written, whether activations are kept or recomputed, how steps are handed to the
        device, and the defaults of settings that came after adapters had been named without them. Equal recipes give
        equal identities: alpha is written as the number it stands for, a split by its blocks, and uses of a pool only
        where there is one.
        """
        values = self.model_dump(mode="json", exclude={*_LAYOUT, *(() if self.front_pool else ("front_uses",))})
        own = self.split in (None, own_split(flux=False), own_split(flux=True))
        values["blocks"] = None if own or self.split is None else self.split.model_dump(mode="json")
        values["alpha"] = float(self.rank if self.alpha is None else self.alpha)
        return {name: value for name, value in values.items() if name not in _LATER or value != _LATER[name]}

    def of_class(self, class_word: str) -> TrainSettings:
        """Return the settings for an object of a class: "A [v]" becomes "A [v] dog"; an empty word changes nothing."""
        if not class_word:
            return self
        told = self.prompt.replace(self._token, f"{self._token} {class_word}", 1)
        return self.model_copy(update={"prompt": told})

    def with_tokens(self, prompt: str, content_class: str = "", style_class: str = "") -> str:
        """Return a prompt to draw, [c] and [s] in it as what was trained on.

        Args:
            prompt: Such as "A [c] in [s] style".
            content_class: The class word that the content was trained with, if any.
            style_class: The same of the style.
        """
        classes = {"[c]": content_class, "[s]": style_class}
        token = self._token
        # In one pass: a mark in a class word is text.
        return re.sub(r"\[[cs]\]", lambda mark: f"{token} {classes[mark.group()]}".rstrip(), prompt)

    @property
    def _token(self) -> str:
        """The training prompt's bracketed word; all of it where there is none."""
        trained = re.search(r"\[[^\]]+\]", self.prompt)
        return trained.group() if trained else self.prompt
