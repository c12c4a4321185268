"""What one row of a manifest may say: names, bounds, and the words in which a fault says what is accepted."""

from __future__ import annotations

import math
import re
import unicodedata
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)

from manifests.parsing.faultlist import shown

MAX_NAME_CHARS = 300
"""Characters of a name; file names made of it are shortened by `manifests.ids.slug`."""

MAX_PROMPT_CHARS = 2000
"""Characters of a prompt; the text encoders read 77 tokens of it."""

MAX_PHOTOS = 32
"""Photos of one object."""

MAX_SEEDS = 1000
"""Samples of one pair."""

MAX_PROMPTS = 1000
"""Prompts of one pair."""

MAX_PARTS = 16
"""Contents, or styles, in one mix."""

MAX_STEPS = 100
"""Values of one axis of a sweep; all axes together make at most `MAX_SEEDS` pairs."""

MAX_STRENGTH = 10.0
"""The dial's end; 1 is as trained, and pictures fall apart well below this."""

_LONGEST_TEXT = 2 * MAX_PROMPT_CHARS  # characters before runs of spaces become one


def _clean(text: str) -> str:
    """Return the text in Unicode's composed form with single spaces, so that equal looks are equal names."""
    if len(text) > _LONGEST_TEXT:  # composing takes time that grows with the square of the length
        raise ValueError(f"a text of {len(text):,} characters")
    text = unicodedata.normalize("NFC", " ".join(text.split()))
    if stray := next((character for character in text if unicodedata.category(character) in ("Cc", "Cs")), None):
        raise ValueError(f"the character {shown(stray)} in a text")
    return text


def _number(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("true or false instead of a number")
    return value


def _several(value: object) -> object:
    """Read "0|1|2" (also with commas or spaces) and a single number as a list."""
    if isinstance(value, str):
        if len(value) > MAX_SEEDS * 30:
            raise ValueError(f"a text of {len(value):,} characters")
        return [part for part in re.split(r"[|,\s]+", value) if part]
    return value if isinstance(value, list | tuple) else [value]


def _lines(value: object) -> object:
    """Read "one prompt | another" and a single text as a list."""
    return [part.strip() for part in value.split("|") if part.strip()] if isinstance(value, str) else value


Text = Annotated[str, AfterValidator(_clean)]
Name = Annotated[Text, Field(min_length=1, max_length=MAX_NAME_CHARS)]
Prompt = Annotated[Text, Field(max_length=MAX_PROMPT_CHARS)]
Strength = Annotated[float, BeforeValidator(_number), Field(ge=0, le=MAX_STRENGTH, allow_inf_nan=False)]
Seed = Annotated[int, BeforeValidator(_number), Field(ge=0, lt=2**63)]
Strengths = Annotated[tuple[Strength, ...], Field(min_length=1, max_length=MAX_STEPS)]


def _form(value: object) -> str:
    """Which of the forms of a side a value has, so that a wrong one gives one fault and not one a form."""
    return "weights" if isinstance(value, dict) else "names" if isinstance(value, list | tuple) else "name"


SideNames = Annotated[
    Annotated[Name, Tag("name")]
    | Annotated[tuple[Name, ...], Field(min_length=2, max_length=MAX_PARTS), Tag("names")]
    | Annotated[dict[Name, Strength], Field(min_length=1, max_length=MAX_PARTS), Tag("weights")],
    Discriminator(_form),
]
"""One name, several in equal parts, or weights by name."""

_A_NAME = f"a text of 1 to {MAX_NAME_CHARS} characters"
_A_PROMPT = f"a text of at most {MAX_PROMPT_CHARS} characters"
_A_STRENGTH = f"a finite number from 0 to {MAX_STRENGTH:g}; 1 is as trained"
_PROMPTS = f"1 to {MAX_PROMPTS} distinct prompts, one pair each; in a table separated by |"
_A_PATH = "the path or s3:// address of a picture"


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PairFields(_Row):
    """What may be said of a pair, in its own row or once for all pairs."""

    prompt: Prompt | None = Field(default=None, description=_A_PROMPT)
    prompts: (
        Annotated[
            tuple[Annotated[Prompt, Field(min_length=1)], ...],
            BeforeValidator(_lines),
            Field(min_length=1, max_length=MAX_PROMPTS),
        ]
        | None
    ) = Field(default=None, description=_PROMPTS)
    content_prompt: Prompt | None = Field(default=None, description=_A_PROMPT)
    negative_prompt: Prompt | None = Field(default=None, description=_A_PROMPT)
    content_strength: Strength | None = Field(default=None, description=_A_STRENGTH)
    style_strength: Strength | None = Field(default=None, description=_A_STRENGTH)
    seeds: Annotated[tuple[Seed, ...], BeforeValidator(_several), Field(min_length=1, max_length=MAX_SEEDS)] | None = (
        Field(default=None, description=f"1 to {MAX_SEEDS} distinct whole numbers from 0 to 2^63 - 1")
    )
    samples: Annotated[int, BeforeValidator(_number), Field(ge=1, le=MAX_SEEDS)] | None = Field(
        default=None, description=f"a whole number from 1 to {MAX_SEEDS}, which means the seeds 0 to one less"
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


class Sweep(_Row):
    """Values that a pair is drawn with, each with each."""

    content_strength: Strengths | None = Field(default=None, description=f"1 to {MAX_STEPS} strengths")
    style_strength: Strengths | None = Field(default=None, description=f"1 to {MAX_STEPS} strengths")
    mix: Annotated[int, BeforeValidator(_number), Field(ge=2, le=MAX_STEPS)] | None = Field(
        default=None, description=f"2 to {MAX_STEPS} steps from the first of two to the second"
    )

    @model_validator(mode="after")
    def _some_axis(self) -> Sweep:
        lengths = [len(axis) for axis in (self.content_strength, self.style_strength) if axis is not None]
        if not lengths and self.mix is None:
            raise ValueError("a sweep over nothing: give it content_strength, style_strength or mix")
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
    for name in ("content_strength", "content_prompt"):
        if not has_content and getattr(fields, name) is not None:
            raise ValueError(f"{name} without content")


class ImageRow(_Row):
    """A content or style of a YAML or JSON manifest."""

    image: str | None = Field(default=None, description=_A_PATH)
    images: tuple[str, ...] | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_PHOTOS,
        description=f"1 to {MAX_PHOTOS} paths or addresses of one object",
    )
    name: Name | None = Field(default=None, description=_A_NAME)
    word: Name | None = Field(default=None, description=_A_NAME)

    @model_validator(mode="after")
    def _one_of(self) -> ImageRow:
        if (self.image is None) == (self.images is None):
            raise ValueError("a row needs either image (one) or images (several of one object)")
        return self


class TableRow(PairFields):
    """A row of a CSV or Parquet manifest: a pair, or a content or style alone."""

    content: str | None = Field(default=None, description=f"{_A_PATH}; several of one object separated by |")
    style: str | None = Field(default=None, description=f"{_A_PATH}; several of one object separated by |")
    content_name: Name | None = Field(default=None, description=_A_NAME)
    style_name: Name | None = Field(default=None, description=_A_NAME)
    content_word: Name | None = Field(default=None, description=_A_NAME)
    style_word: Name | None = Field(default=None, description=_A_NAME)

    @model_validator(mode="after")
    def _belongs(self) -> TableRow:
        for side in ("content", "style"):
            if (getattr(self, side) or "").startswith("{"):
                raise ValueError(f"a mix in a table: {side}s are mixed by weight in YAML and JSON only")
            if getattr(self, side) is None and self.model_fields_set & {f"{side}_name", f"{side}_word"}:
                raise ValueError(f"{side}_name or {side}_word without {side}")
        if self.all_prompts() is not None:
            _check_sides(self, self.content is not None, self.style is not None)
        return self


class DocumentRow(PairFields):
    """The head of a YAML or JSON manifest; its lists of contents, styles and pairs are read row by row."""

    version: Literal[1] = Field(default=1, description="1")
    name: Name | None = Field(default=None, description=_A_NAME)
    base: str = Field(
        default="embedded", description="embedded, org/model@<40-hex revision>, a folder, or s3://bucket/folder"
    )
    preset: Literal["demo", "draft", "paper"] = Field(default="demo", description="demo, draft or paper")
    settings: dict[str, Any] = Field(default_factory=dict, description="a mapping such as {train: {steps: 200}}")
    grid: bool | None = Field(default=None, description="true or false")
    sweep: Sweep | None = Field(default=None, description=_A_SWEEP)
    strength_reading: Literal["linear", "reference"] = Field(default="linear", description="linear or reference")
    on_fault: Literal["record", "stop"] = Field(default="record", description="record or stop")


LISTS = ("contents", "styles", "pairs")
"""The lists of a YAML or JSON manifest."""
