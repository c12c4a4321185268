"""How pictures are drawn. Defaults are the paper's recipe (arXiv 2403.14572, section 4.2 and supplement)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from blora.settings.fields import Frozen, Precision, Text

__all__ = ["SampleSettings"]

Sigma = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
"""A noise level: standard deviation of the noise over that of the picture."""


class SampleSettings(Frozen):
    """How pictures are drawn."""

    steps: int = Field(default=50, ge=1, le=1000)
    """Denoising steps."""
    guidance_scale: float = Field(default=5.0, ge=1.0, le=50)
    """Classifier-free guidance; 1 switches it off."""
    guidance_from: Literal["adapted", "base"] = "adapted"
    """What guidance leads away from: "adapted" is the negative prompt drawn with the adapters, as published, so that
    only the prompt is amplified; "base" is the negative prompt without them, so that the adapters are amplified, too
    (arXiv 2410.03941)."""
    guidance_interval: tuple[Sigma, Sigma] | None = None
    """Guidance at these noise levels alone: [low, high] in sigma, the noise's spread over the picture's (arXiv
    2404.07724). Steps beyond them take half the work. None: at all."""
    scheduler: str = Field("base", pattern=r"^(base|euler|ddim|dpm\+\+|[A-Z]\w{0,60}Scheduler)$")
    """"base" is the scheduler that the base model names; euler, ddim, dpm++ or a scheduler class of diffusers are built
    from its configuration."""
    scheduler_options: dict[str, bool | int | float | str] = Field(default_factory=dict, max_length=20)
    """What is laid over the base's scheduler configuration, by the names of diffusers, such as {timestep_spacing:
    trailing} or {use_karras_sigmas: true}; one that the scheduler does not have is refused."""
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

    @field_validator("guidance_interval")
    @classmethod
    def _in_order(cls, interval: tuple[float, float] | None) -> tuple[float, float] | None:
        if interval is not None and interval[0] >= interval[1]:
            raise ValueError("[low, high] with low below high")
        return interval

    def of_a_negative_row(self) -> dict[str, Any]:
        """Return what of the settings speaks of a row to guide away from; a base of distilled guidance has none."""
        asked = {
            "negative_prompt": self.negative_prompt,
            "guidance_interval": self.guidance_interval,
            "guidance_from": self.guidance_from if self.guidance_from != "adapted" else "",
        }
        return {name: value for name, value in asked.items() if value}

    def identity(self) -> dict[str, Any]:
        """Return the settings that change a picture, as JSON values, without what a sample's id says for itself."""
        layout, said = {"batch_size", "execution"}, {"prompt", "content_strength", "style_strength"}
        unused = set() if self.scheduler_options else {"scheduler_options"}  # older runs keep their ids
        if self.guidance_interval is None or self.guidance_scale == 1:
            unused |= {"guidance_interval"}
        return self.model_dump(mode="json", exclude=layout | said | unused)
