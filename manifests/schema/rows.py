"""What one row of a manifest may say: names, bounds, and the words in which a fault says what is accepted."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, field_validator, model_validator

from manifests.schema.fields import (
    BASE_NAMES,
    MAX_CANDIDATES,
    MAX_NAME_CHARS,
    MAX_PHOTOS,
    MAX_PROMPT_CHARS,
    MAX_PROMPTS,
    MAX_SEEDS,
    MAX_STEPS,
    MAX_STRENGTH,
    PRESET_NAMES,
    Amount,
    Name,
    Paths,
    PresetName,
    Prompt,
    Seed,
    SideNames,
    Strength,
    Strengths,
    Text,
    base_form,
    lines,
    number,
    several,
)
from manifests.schema.forms import as_form

_A_NAME = f"a text of 1 to {MAX_NAME_CHARS} characters"
_A_CLASS = f"what kind of thing it is, such as dog: {_A_NAME}"
_A_PROMPT = f"a text of at most {MAX_PROMPT_CHARS} characters"
_A_STRENGTH = f"a finite number from 0 to {MAX_STRENGTH:g}; 1 is as trained"
_PROMPTS = f"1 to {MAX_PROMPTS} distinct prompts, one pair each; in a table separated by |"
_A_PATH = "the path or s3:// address of a picture, or of a folder or a pattern for each of its pictures"
_PATHS = f"{_A_PATH}; several of one object as a list, or separated by |"
_AN_ADAPTER = "the path or s3:// address of a finished B-LoRA (.safetensors), in place of a picture"

_A_BASE = (
    f"{', '.join(BASE_NAMES)}, org/model@<40-hex revision>, a folder or .safetensors file, here or s3://, or "
    "{model: ..., vae: ..., fuse: [{lora: ..., weight: 1}], quantize: nf4, int8 or fp8, rest: ...}; "
    "left out: embedded with preset demo, else sdxl"
)
MAX_FUSED = 8
"""LoRAs in one base."""
Place = Annotated[Text, Field(min_length=1, title="one place")]
"""Where a part of a base lies."""

_A_CLIP = "a folder, a pattern such as walk/*.png, or an animated GIF, WebP or APNG"


class _RowModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_extra=as_form)


class PairFields(_RowModel):
    """What may be said of a pair, in its own row or once for all pairs."""

    prompt: Prompt | None = Field(default=None, description=_A_PROMPT)
    prompts: (
        Annotated[
            tuple[Annotated[Prompt, Field(min_length=1)], ...],
            BeforeValidator(lines),
            Field(min_length=1, max_length=MAX_PROMPTS),
        ]
        | None
    ) = Field(default=None, description=_PROMPTS)
    content_prompt: Prompt | None = Field(default=None, description=_A_PROMPT)
    negative_prompt: Prompt | None = Field(default=None, description=_A_PROMPT)
    content_strength: Strength | None = Field(default=None, description=_A_STRENGTH)
    style_strength: Strength | None = Field(default=None, description=_A_STRENGTH)
    own_style: Strength | None = Field(default=None, description=f"{_A_STRENGTH}, of the content's own style")
    colour_of: Literal["content", "style"] | None = Field(default=None, description="content or style")
    colour_by: Literal["transfer", "subject", "guidance"] | None = Field(
        default=None, description="transfer, subject or guidance"
    )
    colour_amount: Amount | None = Field(default=None, description="a number from 0 (off) to 1")
    seeds: Annotated[tuple[Seed, ...], BeforeValidator(several), Field(min_length=1, max_length=MAX_SEEDS)] | None = (
        Field(default=None, description=f"1 to {MAX_SEEDS} distinct whole numbers from 0 to 2^63 - 1")
    )
    samples: Annotated[int, BeforeValidator(number), Field(ge=1, le=MAX_SEEDS)] | None = Field(
        default=None, description=f"a whole number from 1 to {MAX_SEEDS}, which means the seeds 0 to one less"
    )
    candidates: Annotated[int, BeforeValidator(number), Field(ge=1, le=MAX_CANDIDATES)] | None = Field(
        default=None,
        description=f"a whole number from 1 to {MAX_CANDIDATES}: so many pictures for each seed, to choose the best of",
    )

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if seeds and len(set(seeds)) < len(seeds):
            raise ValueError("a seed is given twice")
        return seeds

    @field_validator("prompts")
    @classmethod
    def _different(cls, prompts: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if prompts and len(set(prompts)) < len(prompts):
            raise ValueError("a prompt is given twice")
        return prompts

    @model_validator(mode="after")
    def _one_of(self) -> PairFields:
        if self.seeds is not None and self.samples is not None:
            raise ValueError("seeds and samples together: keep one of them")
        if self.prompt is not None and self.prompts is not None:
            raise ValueError("prompt and prompts together: keep one of them")
        return self

    def all_prompts(self) -> tuple[str, ...] | None:
        """Return the prompts, or the one prompt; None where neither is given."""
        return self.prompts if self.prompt is None else (self.prompt,)

    def all_seeds(self) -> tuple[int, ...] | None:
        """Return the seeds, those that `samples` stands for included; None where neither is given."""
        return self.seeds if self.samples is None else tuple(range(self.samples))


AXES = ("content_strength", "style_strength", "own_style", "colour_amount")
"""What a sweep gives values for, in the order in which its steps are drawn; ``mix`` comes last."""


class Sweep(_RowModel):
    """Values that a pair is drawn with, each with each."""

    content_strength: Strengths | None = Field(default=None, description=f"1 to {MAX_STEPS} strengths")
    style_strength: Strengths | None = Field(default=None, description=f"1 to {MAX_STEPS} strengths")
    own_style: Strengths | None = Field(default=None, description=f"1 to {MAX_STEPS} weights")
    colour_amount: Annotated[tuple[Amount, ...], Field(min_length=1, max_length=MAX_STEPS)] | None = Field(
        default=None, description=f"1 to {MAX_STEPS} numbers from 0 to 1"
    )
    mix: Annotated[int, BeforeValidator(number), Field(ge=2, le=MAX_STEPS)] | None = Field(
        default=None, description=f"2 to {MAX_STEPS} steps from the first of two to the second"
    )

    @model_validator(mode="after")
    def _some_axis(self) -> Sweep:
        lengths = [len(values) for name in AXES if (values := getattr(self, name)) is not None]
        if not lengths and self.mix is None:
            raise ValueError(f"a sweep over nothing: give it {', '.join(AXES)} or mix")
        if math.prod(lengths) * (self.mix or 1) > MAX_SEEDS:
            raise ValueError(f"a sweep of more than {MAX_SEEDS} pairs")
        return self


_A_SWEEP = "a mapping such as {style_strength: [0.5, 1]} or {mix: 5}"
_A_SIDE = "the name of one of the {0}s, a list of several, or weights by name such as {{one: 0.7, other: 0.3}}"


class PairRow(PairFields):
    """A pair of a YAML or JSON manifest; a side that is left out is said by the prompt."""

    content: SideNames | None = Field(default=None, description=_A_SIDE.format("content"))
    style: SideNames | None = Field(default=None, description=_A_SIDE.format("style"))
    sweep: Sweep | None = Field(default=None, description=_A_SWEEP)

    @model_validator(mode="after")
    def _some_side(self) -> PairRow:
        if self.content is None and self.style is None:
            raise ValueError("a pair needs a content, a style or both")
        _check_sides(self, self.content is not None, self.style is not None)
        for side in (self.content, self.style):
            if isinstance(side, tuple) and len(set(side)) < len(side):
                raise ValueError("a name is given twice in a mix: write weights by name")
            if isinstance(side, dict) and not any(side.values()):
                raise ValueError("a mix without any weight above 0")
        return self


def _check_sides(fields: PairFields, has_content: bool, has_style: bool) -> None:
    """Refuse what is said of a side that is not there.

    Raises:
        ValueError: A strength or a prompt of a missing side.
    """
    if not has_style and fields.style_strength is not None:
        raise ValueError("style_strength without style")
    for name in ("content_strength", "content_prompt", "own_style"):
        if not has_content and getattr(fields, name) is not None:
            raise ValueError(f"{name} without content")


class ImageRow(_RowModel):
    """A content or style of a YAML or JSON manifest."""

    image: str | None = Field(default=None, description=_A_PATH)
    images: tuple[str, ...] | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_PHOTOS,
        description=f"1 to {MAX_PHOTOS} paths or addresses of one object",
    )
    adapter: str | None = Field(default=None, description=_AN_ADAPTER)
    name: Name | None = Field(default=None, description=_A_NAME)
    word: Name | None = Field(default=None, description=_A_NAME)
    class_word: Name | None = Field(default=None, description=_A_CLASS)
    frames: str | None = Field(default=None, description=_A_CLIP)
    every: Annotated[int, BeforeValidator(number), Field(ge=1, le=1000)] | None = Field(
        default=None, description="a whole number from 1: the first of each so many frames is taken"
    )
    limit: Annotated[int, BeforeValidator(number), Field(ge=2)] | None = Field(
        default=None, description="a whole number from 2: at most so many frames are taken"
    )
    frames_per_second: Annotated[float, BeforeValidator(number), Field(gt=0, le=100, allow_inf_nan=False)] | None = (
        Field(default=None, description="a number above 0, at most 100: at which the taken frames are shown")
    )

    @model_validator(mode="after")
    def _one_of(self) -> ImageRow:
        if sum(value is not None for value in (self.image, self.images, self.frames, self.adapter)) != 1:
            raise ValueError("a row needs one of image, images (several of one object), frames (of a clip) and adapter")
        for name in ("every", "limit", "frames_per_second"):
            if self.frames is None and getattr(self, name) is not None:
                raise ValueError(f"{name} without frames")
        return self


class TableRow(PairFields):
    """A row of a manifest that is a table: a pair, or a content or style alone."""

    content: Paths | None = Field(default=None, description=_PATHS)
    style: Paths | None = Field(default=None, description=_PATHS)
    content_adapter: str | None = Field(default=None, description=_AN_ADAPTER)
    style_adapter: str | None = Field(default=None, description=_AN_ADAPTER)
    content_name: Name | None = Field(default=None, description=_A_NAME)
    style_name: Name | None = Field(default=None, description=_A_NAME)
    content_word: Name | None = Field(default=None, description=_A_NAME)
    style_word: Name | None = Field(default=None, description=_A_NAME)
    content_class_word: Name | None = Field(default=None, description=_A_CLASS)
    style_class_word: Name | None = Field(default=None, description=_A_CLASS)

    @model_validator(mode="after")
    def _belongs(self) -> TableRow:
        for side in ("content", "style"):
            if getattr(self, side) is not None and getattr(self, f"{side}_adapter") is not None:
                raise ValueError(f"{side} and {side}_adapter together: keep one of them")
            about = {f"{side}_name", f"{side}_word", f"{side}_class_word"}
            if not self._has(side) and (said := sorted(self.model_fields_set & about)):
                raise ValueError(f"{said[0]} without {side}")
        if self.all_prompts() is not None:
            _check_sides(self, self._has("content"), self._has("style"))
        return self

    def _has(self, side: str) -> bool:
        return getattr(self, side) is not None or getattr(self, f"{side}_adapter") is not None


class FusedRow(_RowModel):
    """A LoRA that is fused into the base."""

    lora: Place
    weight: Annotated[float, BeforeValidator(number), Field(ge=-10, le=10, allow_inf_nan=False)] = 1.0


class BaseRow(_RowModel):
    """A base of several parts."""

    model_config = ConfigDict(title="several parts")

    model: Place
    vae: Place | None = None
    fuse: Annotated[tuple[FusedRow, ...], Field(max_length=MAX_FUSED)] = ()
    quantize: Literal["nf4", "int8", "fp8"] | None = None
    rest: Place | None = None


Base = Annotated[Annotated[Place, Tag("place")] | Annotated[BaseRow, Tag("parts")], Discriminator(base_form)]
"""A base: one place, or several parts."""


class DocumentRow(PairFields):
    """The head of a YAML or JSON manifest; its lists of contents, styles and pairs are read row by row."""

    version: Literal[1] = Field(default=1, description="1")
    name: Name | None = Field(default=None, description=_A_NAME)
    base: Base | None = Field(default=None, description=_A_BASE)
    preset: PresetName = Field(default="demo", description=PRESET_NAMES)
    settings: dict[str, Any] = Field(default_factory=dict, description="a mapping such as {train: {steps: 200}}")
    grid: bool | None = Field(default=None, description="true or false")
    sweep: Sweep | None = Field(default=None, description=_A_SWEEP)
    strength_reading: Literal["linear", "reference"] = Field(default="linear", description="linear or reference")
    on_fault: Literal["record", "stop"] = Field(default="record", description="record or stop")


LISTS = ("contents", "styles", "pairs")
"""The lists of a YAML or JSON manifest."""
