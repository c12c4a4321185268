"""What one row of a manifest may say, and how a row that says something else becomes faults.

The models are the reference: names, bounds and the words in which a fault says what is accepted.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from manifests.parsing.faultlist import FaultList, shown
from manifests.parsing.nodes import Node
from manifests.parsing.records import suggest

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

MAX_STRENGTH = 10.0
"""The dial's end; 1 is as trained, and pictures fall apart well below this."""

_LONGEST_TEXT = 2 * MAX_PROMPT_CHARS  # characters before runs of spaces become one

_Model = TypeVar("_Model", bound=BaseModel)


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


class PairRow(PairFields):
    """A pair of a YAML or JSON manifest; a side that is left out is said by the prompt."""

    content: Name | None = Field(default=None, description="the name of one of the contents")
    style: Name | None = Field(default=None, description="the name of one of the styles")

    @model_validator(mode="after")
    def _some_side(self) -> PairRow:
        if self.content is None and self.style is None:
            raise ValueError("a pair needs a content, a style or both")
        _check_sides(self, self.content is not None, self.style is not None)
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
    strength_reading: Literal["linear", "reference"] = Field(default="linear", description="linear or reference")
    on_fault: Literal["record", "stop"] = Field(default="record", description="record or stop")


LISTS = ("contents", "styles", "pairs")
"""The lists of a YAML or JSON manifest."""


def read_row(
    model: type[_Model], values: Mapping[str, Any], faults: FaultList, node: Node, list_name: str = ""
) -> _Model | None:
    """Return the row, or None after adding every fault it has.

    Args:
        model: What it may say.
        values: What it says.
        faults: Takes what is wrong.
        node: Where it stands, for the line of each field.
        list_name: The list that the row stands in, for the names of fields; empty for none.
    """
    found, result = len(faults), None
    for key, row in node.repeated:
        faults.add("key given twice", key, "each key once", "remove one of them", row=row, field=_field(list_name, key))
    try:
        result = model.model_validate(values)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            _add_fault(detail, model, faults, node, list_name)
    return result if len(faults) == found else None


def _field(*names: str) -> str:
    return ".".join(name for name in names if name)


def _add_fault(detail: ErrorDetails, model: type[BaseModel], faults: FaultList, node: Node, list_name: str) -> None:
    path: Sequence[str | int] = detail["loc"]
    name = str(path[0]) if path else ""
    row = node.find(path).row
    accepted = model.model_fields[name].description or "" if name in model.model_fields else ""
    what = re.sub(r"^Value error, |^\w+ (?=should )", "", detail["msg"])
    received, hint = shown(detail["input"]), "correct the value"
    if detail["type"] == "extra_forbidden":
        names = (*model.model_fields, *(LISTS if model is DocumentRow else ()))
        what, received, accepted = "unknown key", shown(name), ", ".join(names)
        hint = suggest(name, names, "remove it")
    elif detail["type"] == "missing":
        what, received, hint = "key missing", "", "add it"
    elif isinstance(detail["input"], float) and not math.isfinite(detail["input"]):
        what = "number is not finite"
    elif not path:
        received, hint = "", "correct the row"
    elif detail["type"] == "string_type" and not isinstance(detail["input"], list | dict):
        hint = 'put it in "quotes"'
    elif detail["type"] == "literal_error" and isinstance(detail["input"], str):
        hint = suggest(detail["input"], tuple(re.findall(r"'(\w+)'", detail["ctx"]["expected"])), hint)
    faults.add(what, received, accepted, hint, row=row, field=_field(list_name, name))
