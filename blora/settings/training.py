"""Settings of the method: frozen, bounded, documented; presets and their overrides.

Imports no torch, so that a planner without it can resolve and store settings. Defaults of each model are the paper's
recipe (arXiv 2403.14572, section 4.2 and supplement; reference repository yardenfren1996/B-LoRA @ e08380d).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
    model_validator,
)

from blora.errors import ScorerError, SettingFault, SettingsError
from blora.metrics.weights import parse_scorer

__all__ = [
    "PRESETS",
    "RECIPE_VERSION",
    "CheckSettings",
    "Precision",
    "SampleSettings",
    "ScoreSettings",
    "Settings",
    "TrainSettings",
    "recipe_version",
    "resolve",
]

RECIPE_VERSION: Final = 1
"""Counts changes of the code that alter what a given set of training settings produces; part of every adapter's id."""

_ROTATION_VERSION: Final = 2
"""The same for adapters of several photos, whose order is drawn by lot since 2."""


def recipe_version(photos: int) -> int:
    """Return the version of what turns so many photos of one object into an adapter; part of the adapter's id."""
    return RECIPE_VERSION if photos == 1 else _ROTATION_VERSION


Precision = Literal["fp32", "bf16", "fp16"]
"""Number format of the UNet. Adapter weights are fp32 while they train, the VAE is always fp32."""

Text = Annotated[str, StringConstraints(max_length=2000)]


def _one_fault(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    """Report a value that is neither of two kinds once, not once a kind."""
    try:
        return check(value)
    except ValidationError as error:
        raise ValueError('1 to 64, or "auto"') from error


PackSize = Annotated[Annotated[int, Field(ge=1, le=64)] | Literal["auto"], WrapValidator(_one_fault)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class TrainSettings(_Frozen):
    """How one B-LoRA is trained from one image (or several photos of one object)."""

    resolution_px: int = Field(default=1024, ge=32, le=2048, multiple_of=8)
    """Length that the shorter side of the image is resized to, in pixels."""
    crop: Literal["center", "none"] = "center"
    """"center": cut the middle square. "none": keep the whole picture, longer side up to four times the shorter one."""
    prompt: Text = Field(default="A [v]", min_length=1)
    """The one prompt of the training; "[v]" is an ordinary string, no token is added."""
    rank: int = Field(default=64, ge=1, le=256)
    """Rank of the low-rank update of every layer."""
    alpha: float | None = Field(default=None, gt=0, le=1024)
    """LoRA's alpha: the update is scaled by alpha / rank. None means alpha = rank, a scale of one."""
    learning_rate: float = Field(default=5e-5, gt=0, le=1e3)
    """Constant learning rate, no warm-up."""
    steps: int = Field(default=1000, ge=1, le=100_000)
    """Optimizer steps."""
    batch_size: int = Field(default=1, ge=1, le=256)
    """Noise draws of the image in each step; their losses are averaged."""
    timestep_power: float = Field(default=1.0, ge=1.0, le=16)
    """1 draws timesteps uniformly, as published. Above, they crowd at the noisy end, where layout and palette are
    settled: a timestep lies a share u**power below the noisiest one, u uniform."""
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
    checkpointing: Literal["auto", "on", "off"] = "auto"
    """Recompute activations of the up blocks to save memory; "auto" does so only where a GPU's memory asks for it."""
    execution: Literal["eager", "compiled", "graph", "compiled_graph"] = "eager"
    """How a step is handed to the device: operation by operation, with compiled blocks (needs a C++ compiler on a CPU),
    or as a captured CUDA graph; layout, not identity: the same mathematics within rounding."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Mixed with the adapter's key into the seed of its own generator. 0 is a seed like any other."""
    checkpoint_every_steps: int = Field(default=200, ge=1)
    """A checkpoint is handed out after each so many steps."""
    skips_before_reseed: int = Field(default=5, ge=1, le=1000)
    """NaN policy: non-finite steps in a row, each skipped, until the adapter's generator is reseeded."""
    reseeds_before_lower_rate: int = Field(default=1, ge=0, le=100)
    """NaN policy: reseeds that may follow each other without one finite step until the learning rate is lowered."""
    lower_rate_factor: float = Field(default=0.1, gt=0, lt=1)
    """NaN policy: the learning rate is multiplied by this when it is lowered."""
    max_lower_rates: int = Field(default=2, ge=0, le=100)
    """NaN policy: how often the rate is lowered before the adapter is given up."""

    @property
    def scale(self) -> float:
        """Factor of the low-rank update: alpha / rank."""
        return 1.0 if self.alpha is None else self.alpha / self.rank

    def identity(self) -> dict[str, Any]:
        """Return the settings that change the trained weights, as JSON values; they go into the adapter's id.

        Left out: when checkpoints are written, whether activations are kept or recomputed, and how steps are handed to
        the device. Equal recipes give equal identities: alpha is written as the number it stands for.
        """
        values = self.model_dump(mode="json", exclude={"checkpoint_every_steps", "checkpointing", "execution"})
        values["alpha"] = float(self.rank if self.alpha is None else self.alpha)
        return values

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
        for mark, class_word in (("[c]", content_class), ("[s]", style_class)):
            prompt = prompt.replace(mark, f"{self._token} {class_word}".rstrip())
        return prompt

    @property
    def _token(self) -> str:
        """The training prompt's bracketed word; all of it where there is none."""
        trained = re.search(r"\[[^\]]+\]", self.prompt)
        return trained.group() if trained else self.prompt


class SampleSettings(_Frozen):
    """How pictures are drawn."""

    steps: int = Field(default=50, ge=1, le=1000)
    """Denoising steps."""
    guidance_scale: float = Field(default=5.0, ge=1.0, le=50)
    """Classifier-free guidance; 1 switches it off."""
    guidance_from: Literal["adapted", "base"] = "adapted"
    """What guidance leads away from: "adapted" is the negative prompt drawn with the adapters, as published, so that
    only the prompt is amplified; "base" is the negative prompt without them, so that the adapters are amplified, too
    (arXiv 2410.03941)."""
    scheduler: str = Field("base", pattern=r"^(base|euler|ddim|dpm\+\+|[A-Z]\w{0,60}Scheduler)$")
    """"base" is the scheduler that the base model names; euler, ddim, dpm++ or a scheduler class of diffusers are built
    from its configuration."""
    width_px: int = Field(default=1024, ge=32, le=4096, multiple_of=8)
    """Width of the pictures in pixels."""
    height_px: int = Field(default=1024, ge=32, le=4096, multiple_of=8)
    """Height of the pictures in pixels."""
    precision: Precision = "fp32"
    """Number format of the UNet while sampling."""
    prompt: Text = "A [c] in [s] style"
    """What is drawn where a sample names nothing of its own; [c] and [s] stand for the trained token (arXiv 2403.14572,
    section 4.3)."""
    negative_prompt: Text = ""
    """What guidance leads away from, where a sample names nothing of its own."""
    content_strength: float = Field(default=1.0, ge=0, le=10, allow_inf_nan=False)
    """Factor of the content half's weight delta, where a sample names none."""
    style_strength: float = Field(default=1.0, ge=0, le=10, allow_inf_nan=False)
    """Factor of the style half's weight delta, where a sample names none."""
    batch_size: int = Field(default=8, ge=1, le=1024)
    """Pictures drawn at once; layout, not identity."""
    execution: Literal["eager", "compiled"] = "eager"
    """How a step is handed to the device; layout, not identity."""

    def identity(self) -> dict[str, Any]:
        """Return the settings that change a picture, as JSON values, without what a sample's id says for itself."""
        layout, said = {"batch_size", "execution"}, {"prompt", "content_strength", "style_strength"}
        return self.model_dump(mode="json", exclude=layout | said)


class ScoreSettings(_Frozen):
    """How pictures are judged."""

    clip_model: Text = "embedded"
    """"embedded", or an open_clip architecture such as "ViT-L-14-quickgelu"."""
    clip_pretrained: Text = ""
    """open_clip's pretrained tag, or the path of a weights file; needed unless clip_model is "embedded"."""
    features: Literal["efficientnet-lite0", "none"] = "efficientnet-lite0"
    """The second content and style feature, which runs offline; "none" leaves its scores out."""
    colour: bool = True
    """Also measure the colour distance (CIELAB)."""
    leakage: bool = True
    """Also measure how much of the style image's content is in the picture."""
    scorers: tuple[Text, ...] = ()
    """Further judges: csd, dinov2-small, dinov2-base, dinov2-large, clip-l14 or clip-bigg14, each alone (the published
    weights) or with its weights, such as csd=./csd.safetensors; `blora.metrics.weights` has all forms."""
    batch_size: int = Field(default=32, ge=1, le=4096)
    """Pictures judged at once; layout, not identity."""

    @field_validator("scorers")
    @classmethod
    def _known_scorers(cls, scorers: tuple[str, ...]) -> tuple[str, ...]:
        try:
            kinds = [parse_scorer(one).kind for one in scorers]
        except ScorerError as error:
            raise ValueError(str(error)) from error
        if len(set(kinds)) < len(kinds):
            raise ValueError("each kind of scorer once: two of one kind give scores of one name")
        return scorers

    @model_validator(mode="after")
    def _named_weights(self) -> ScoreSettings:
        if (self.clip_model == "embedded") == bool(self.clip_pretrained):
            raise ValueError('an empty clip_pretrained with clip_model "embedded", and a tag or file with any other')
        return self

    def identity(self) -> dict[str, Any]:
        """Return the settings that change a score, as JSON values; without further scorers, those of before them."""
        values = self.model_dump(mode="json", exclude={"batch_size", "scorers"})
        return values | (
            {"scorers": [list(parse_scorer(one).identity) for one in self.scorers]} if self.scorers else {}
        )


class CheckSettings(_Frozen):
    """How a trained adapter is checked, by drawing its own image; limits are of `checks.defects`, larger is worse."""

    attempts: int = Field(default=1, ge=0, le=8)
    """Trainings of an adapter, each with another seed, until one passes; the best is kept. 1 checks and tells, 0 does
    not even check. Above 1 the policy is part of the adapter's id."""
    pictures: int = Field(default=2, ge=1, le=16)
    """Reconstructions of the image; each defect is their mean."""
    steps: int = Field(default=10, ge=1, le=1000)
    """Denoising steps of a reconstruction."""
    reconstruction_distance: float | None = Field(default=None, ge=0, le=200)
    """Largest that passes; None: what was calibrated for the base model (`blora.checks.limits`), here and below."""
    split_image: float | None = Field(default=None, ge=0, le=1)
    """Largest that passes."""
    grey_collapse: float | None = Field(default=None, ge=0, le=1)
    """Largest that passes."""
    white_background: float | None = Field(default=None, ge=-1, le=1)
    """Largest that passes."""
    style_copy: float | None = Field(default=None, ge=-2, le=2)
    """Largest that passes; of pictures, not of adapters."""


class Settings(_Frozen):
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
        # The embedded model on a CPU: minutes for a 4 x 4 grid. Layout and palette are settled at the noisy end, and
        # guidance away from the base alone brings out what little a small model adds. The halves of so small a model
        # answer to the very prompt that they were trained on.
        "demo": Settings(
            train=TrainSettings(
                resolution_px=64, rank=32, learning_rate=4e-3, steps=250, batch_size=4, timestep_power=4.0
            ),
            sample=SampleSettings(
                steps=20,
                guidance_scale=2.0,
                guidance_from="base",
                prompt="A [c]",
                content_strength=0.8,
                style_strength=1.2,
                width_px=64,
                height_px=64,
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
        # The published recipe. It ran in fp16; bf16 is the one change, since the fp16 loss turns NaN near step 500
        # (issue 16 of the reference repository).
        "paper": Settings(train=TrainSettings(precision="bf16"), sample=SampleSettings(precision="bf16", batch_size=4)),
    }
)
"""Named starting points; overrides are laid over them."""


def resolve(preset: str = "paper", overrides: Mapping[str, Any] | None = None) -> Settings:
    """Lay overrides over a preset.

    Args:
        preset: A name in `PRESETS`.
        overrides: Nested or dotted names, for example ``{"train": {"steps": 200}}`` or ``{"train.steps": 200}``.

    Returns:
        The full, checked settings.

    Raises:
        SettingsError: With all faults at once, each under its dotted path.
    """
    if preset not in PRESETS:
        raise SettingsError(
            [SettingFault("preset", "unknown preset", repr(preset), ", ".join(PRESETS), _did_you_mean(preset, PRESETS))]
        )
    faults: list[SettingFault] = []
    flat = _flatten(overrides or {}, "", faults)
    values: dict[str, Any] = PRESETS[preset].model_dump()
    for path, value in flat.items():
        group, _, name = path.rpartition(".")
        (values[group] if group else values)[name] = value
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        faults += [_fault(dict(detail)) for detail in error.errors()]
    if faults:
        raise SettingsError(sorted(faults, key=lambda fault: fault.field))
    return settings


def _flatten(overrides: Mapping[str, Any], prefix: str, faults: list[SettingFault]) -> dict[str, Any]:
    """Turn nested overrides into dotted ones that exist; the others become faults."""
    known = _known_paths()
    groups = {path.rpartition(".")[0] for path in known} - {""}
    flat: dict[str, Any] = {}
    for key, value in overrides.items():
        path = f"{prefix}{key}"
        if path in groups:
            if isinstance(value, Mapping):
                flat.update(_flatten(value, f"{path}.", faults))
            else:
                faults.append(SettingFault(path, "is a group of settings", repr(value), "a mapping of its settings"))
        elif path in known:
            flat[path] = value
        else:
            faults.append(SettingFault(path, "unknown setting", repr(value), hint=_did_you_mean(path, known)))
    return flat


def _known_paths() -> list[str]:
    """Return the dotted path of every setting."""
    paths = []
    for name, field in Settings.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, _Frozen):
            paths += [f"{name}.{inner}" for inner in kind.model_fields]
        else:
            paths.append(name)
    return paths


def _did_you_mean(word: str, known: Mapping[str, Any] | list[str]) -> str:
    """Return "did you mean X?" for the nearest known names, by their path or by their last part."""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    near = near or [path for path in known if path.rpartition(".")[2] == word.rpartition(".")[2]]
    return f"did you mean {' or '.join(near)}?" if near else f"one of: {', '.join(known)}"


def _fault(detail: Mapping[str, Any]) -> SettingFault:
    """Turn one of pydantic's errors into ours."""
    field = ".".join(str(part) for part in detail["loc"])
    message = str(detail["msg"])
    accepted = message.removeprefix("Input should be ").removeprefix("Value error, ")
    received = "" if isinstance(detail["input"], Mapping) else repr(detail["input"])
    return SettingFault(field, "not accepted", received, accepted)
