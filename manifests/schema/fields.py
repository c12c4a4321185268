"""Kinds of values in a manifest: texts, numbers and names, with their bounds and how each is read."""

from __future__ import annotations

import re
import unicodedata
from typing import Annotated, Final, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag

from manifests.parsing.fault_list import shown

MAX_NAME_CHARS = 300
"""Characters of a name; file names made of it are shortened by `manifests.ids.slug`."""

MAX_PROMPT_CHARS = 2000
"""Characters of a prompt; the text encoders read 77 tokens of it."""

MAX_PHOTOS = 32
"""Photos of one object."""

MAX_SEEDS = 1000
"""Samples of one pair."""

MAX_CANDIDATES = 64
"""Pictures of one seed, of which the best is chosen."""

MAX_PROMPTS = 1000
"""Prompts of one pair."""

MAX_PARTS = 16
"""Contents, or styles, in one mix."""

MAX_STEPS = 100
"""Values of one axis of a sweep; all axes together make at most `MAX_SEEDS` pairs."""

MAX_STRENGTH = 10.0
"""The dial's end; 1 is as trained, and pictures fall apart well below this."""

_GREATEST_EXACT = 2.0**53
_LONGEST_TEXT = 2 * MAX_PROMPT_CHARS  # characters before runs of spaces become one


def _clean(text: str) -> str:
    """Return the text in Unicode's composed form with single spaces, so that equal looks are equal names."""
    if len(text) > _LONGEST_TEXT:  # composing takes time that grows with the square of the length
        raise ValueError(f"a text of {len(text):,} characters")
    text = unicodedata.normalize("NFC", " ".join(text.split()))
    if stray := next((character for character in text if unicodedata.category(character) in ("Cc", "Cs")), None):
        raise ValueError(f"the character {shown(stray)} in a text")
    return text


def number(value: object) -> object:
    """Refuse true and false where a number is meant."""
    if isinstance(value, bool):
        raise ValueError("true or false instead of a number")
    return value


def whole(value: object) -> object:
    """Refuse what is no number, and doubles (256.0, as tables with gaps have them) too great to be exact."""
    if isinstance(value, float) and abs(value) > _GREATEST_EXACT:
        raise ValueError("a double beyond 2^53, whose last digits are lost: write it as an integer or a text")
    return number(value)


def several(value: object) -> object:
    """Read "0|1|2" (also with commas or spaces), "[0, 1]" as pandas and DuckDB write it, and a number as a list."""
    if isinstance(value, str):
        if len(value) > MAX_SEEDS * 30:
            raise ValueError(f"a text of {len(value):,} characters")
        inner = value.strip()
        inner = inner[1:-1] if inner.startswith("[") and inner.endswith("]") else inner
        return [part for part in re.split(r"[|,\s]+", inner) if part]
    return value if isinstance(value, list | tuple) else [value]


def lines(value: object) -> object:
    """Read "one prompt | another" and a single text as a list."""
    return [part.strip() for part in value.split("|") if part.strip()] if isinstance(value, str) else value


def paths(value: object) -> object:
    """Read "one.png | another.png" and a single path as a list."""
    if isinstance(value, dict) or (isinstance(value, str) and value.startswith("{")):
        raise ValueError("a mix in a table: contents and styles are mixed by weight in YAML and JSON only")
    return [part.strip() for part in value.split("|")] if isinstance(value, str) else value


BaseName = Literal["embedded", "sdxl", "sdxl+fp16vae", "sdxl+lightning8"]
"""Base models that have a name, as `blora.bases.spec` has them; nothing here may import that."""

BASE_NAMES: Final = get_args(BaseName)

PresetName = Literal["demo", "draft", "fast", "flux", "paper"]
"""The settings that a run may start from, as `blora.settings.presets` has them; nothing here may import that."""

*_FIRST_PRESETS, _LAST_PRESET = get_args(PresetName)
PRESET_NAMES: Final = f"{', '.join(_FIRST_PRESETS)} or {_LAST_PRESET}"
"""The same in words, for messages and helps."""

Text = Annotated[str, AfterValidator(_clean)]
Name = Annotated[Text, Field(min_length=1, max_length=MAX_NAME_CHARS)]
Prompt = Annotated[Text, Field(max_length=MAX_PROMPT_CHARS)]
Strength = Annotated[float, BeforeValidator(number), Field(ge=0, le=MAX_STRENGTH, allow_inf_nan=False)]
Amount = Annotated[float, BeforeValidator(number), Field(ge=0, le=1, allow_inf_nan=False)]
Seed = Annotated[int, BeforeValidator(whole), Field(ge=0, lt=2**63)]
Paths = Annotated[tuple[str, ...], BeforeValidator(paths), Field(min_length=1)]
Strengths = Annotated[tuple[Strength, ...], Field(min_length=1, max_length=MAX_STEPS)]


def _form(value: object) -> str:
    """Which of the forms of a side a value has, so that a wrong one gives one fault and not one a form."""
    return "weights" if isinstance(value, dict) else "names" if isinstance(value, list | tuple) else "name"


def base_form(value: object) -> str:
    """Which of its two forms a base has, likewise."""
    return "parts" if isinstance(value, dict) else "place"


SideNames = Annotated[
    Annotated[Name, Tag("name")]
    | Annotated[tuple[Name, ...], Field(min_length=2, max_length=MAX_PARTS), Tag("names")]
    | Annotated[dict[Name, Strength], Field(min_length=1, max_length=MAX_PARTS), Tag("weights")],
    Discriminator(_form),
]
"""One name, several in equal parts, or weights by name."""
