"""How pictures are scored, and how adapters are checked."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from blora.errors import ScorerError
from blora.settings.fields import Frozen, Text
from blora.settings.scorer_spec import parse_scorer

__all__ = ["CheckSettings", "ScoreSettings"]


class ScoreSettings(Frozen):
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
    structure: bool = True
    """Also measure whether anything is to be seen at all, which the check for fog needs."""
    scorers: tuple[Text, ...] = ()
    """Further judges: csd, dinov2-small, dinov2-base, dinov2-large, clip-l14 or clip-bigg14, each alone (the published
    weights) or with its weights, such as csd=./csd.safetensors; `blora.metrics.weights` has all forms."""
    batch_size: int = Field(default=32, ge=1, le=4096)
    """Pictures judged at once; layout, not identity."""

    @field_validator("scorers")
    @classmethod
    def _known_scorers(cls, scorers: tuple[str, ...]) -> tuple[str, ...]:
        try:
            kinds = [parse_scorer(line).kind for line in scorers]
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
        """Return the settings that change a score, as JSON values; what came later only where it is not the default."""
        values = self.model_dump(mode="json", exclude={"batch_size", "scorers", "structure"})
        if self.scorers:
            values["scorers"] = [list(parse_scorer(line).identity) for line in self.scorers]
        return values if self.structure else values | {"structure": False}


class CheckSettings(Frozen):
    """How a trained adapter is checked, by drawing its own image; limits are of `checks.defects`, larger is worse."""

    attempts: int = Field(default=1, ge=0, le=8)
    """Trainings of an adapter, each with another seed, until one passes; the best is kept. 1 checks and tells, 0 does
    not even check, nor does a base without limits. Above 1 the policy is part of the adapter's id."""
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
    structure_loss: float | None = Field(default=None, ge=0, le=1)
    """Largest that passes; of pictures, not of adapters."""
