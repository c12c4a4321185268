"""Ids made of content: the same work has the same id, on every machine and in every run. Pure functions.

A digest is sha256 over canonical JSON (sorted keys, no spaces, floats as `repr` writes them), cut to 96 bits. With 10^9
objects the chance that any two share an id is below 10^-11. Each kind of id hashes its own tag first, so that two kinds
never hash the same text. Changing anything here changes ids, and so repeats work that is done: say so in the changelog.
"""

from __future__ import annotations

import hashlib
import json
import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

Json: TypeAlias = "str | int | float | bool | Sequence[Json] | Mapping[str, Json] | None"
"""A value that JSON can say."""


@dataclass(frozen=True)
class Canonical:
    """A value by its one JSON text, made once for many digests that it is a part of; see `canonical`."""

    text: str


def canonical(value: Json) -> Canonical:
    """Return a value that `digest` hashes as it hashes `value`, without going through it again.

    Raises:
        ValueError: A number is NaN or infinite.
        TypeError: A value or a key is nothing that JSON can say.
    """
    return Canonical(_text([value]))


ID_LENGTH = 24
"""Hex digits of an id (96 bits)."""

_PLAIN = (str, bool, int, type(None))
_CANDIDATE_SEEDS = 2**31
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)
_RUN_DIGITS = 12
_SLUG_DIGITS = 8
_SLUG_SHORTEST = 16


def _plain(value: Json | Canonical, path: tuple[str | int, ...]) -> object:
    """Return `value` as dicts, lists and scalars that have exactly one JSON text; `path` names it in errors."""
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"digest of {_said(path)}: received {value!r}; accepted finite numbers")
        return float(value)
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"digest of {_said(path)}: received the key {key!r}; accepted texts as keys")
        return {key: _plain(item, (*path, key)) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return [_plain(item, (*path, index)) for index, item in enumerate(value)]
    raise TypeError(f"digest of {_said(path)}: received {type(value).__name__}; accepted JSON values")


def _said(path: tuple[str | int, ...]) -> str:
    return "parts" + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)


def _text(parts: Sequence[Json | Canonical], start: int = 0) -> str:
    """The JSON texts of parts from number `start` on, with commas between them; empty of none."""
    return _ENCODER.encode([_plain(part, (number,)) for number, part in enumerate(parts, start)])[1:-1]


def _sha256(parts: Sequence[Json | Canonical]) -> bytes:
    texts: list[str] = []
    start = 0
    # Neighbours go through one call of the encoder: calls are most of what an id costs.
    for number, part in enumerate(parts):
        if isinstance(part, Canonical):
            texts += [_text(parts[start:number], start), part.text]
            start = number + 1
    texts.append(_text(parts[start:], start))
    return hashlib.sha256(f"[{','.join(filter(None, texts))}]".encode("ascii")).digest()


def digest(*parts: Json | Canonical) -> str:
    """Hash JSON values to `ID_LENGTH` hex digits.

    The order of mapping keys does not matter; the order of sequences does; `1`, `1.0`, `True` and `"1"` all differ.

    Raises:
        ValueError: A number is NaN or infinite.
        TypeError: A value or a key is nothing that JSON can say.
    """
    return _sha256(parts).hex()[:ID_LENGTH]


def seed_for(*parts: Json) -> int:
    """Derive a seed for a random generator: 63 bits (0 to 2^63 - 1), so that it fits an int64 column.

    Raises:
        ValueError: A number is NaN or infinite.
        TypeError: A value or a key is nothing that JSON can say.
    """
    return int.from_bytes(_sha256(("seed", *parts))[:8], "big") >> 1


def candidate_seed(seed: int, number: int) -> int:
    """Return the seed of a pair's candidate: of the first the pair's own seed, of a further one a seed made of it.

    It depends on the two numbers alone, so that drawing more candidates later changes none that are there. Seeds of
    further candidates are below 2^31, short enough to be read in a file name.

    Args:
        seed: The user's seed.
        number: Of the candidate, from 1.

    Raises:
        ValueError: `number` is below 1.
    """
    if number < 1:
        raise ValueError(f"candidate_seed: received number {number}; accepted 1 or more")
    return seed if number == 1 else seed_for("candidate", seed, number) % _CANDIDATE_SEEDS


def image_id(rgb: bytes, width_px: int, height_px: int) -> str:
    """Name a normalised picture by its pixels.

    Args:
        rgb: The pixels, 8 bits a channel, rows from the top, (height_px, width_px, 3) without padding.
        width_px: Width in pixels.
        height_px: Height in pixels.

    Raises:
        ValueError: The number of bytes is not height_px * width_px * 3.
    """
    if width_px < 1 or height_px < 1 or len(rgb) != width_px * height_px * 3:
        raise ValueError(f"image_id: received {len(rgb)} bytes; accepted {width_px} x {height_px} pixels x 3 bytes")
    header = f"image {width_px}x{height_px} rgb8\n".encode("ascii")
    return hashlib.sha256(header + rgb).hexdigest()[:ID_LENGTH]


def adapter_id(
    image_ids: Sequence[str], train_settings: Mapping[str, Json], base_revision: str, recipe_version: int
) -> str:
    """Name the adapter that this training makes.

    The order of the images does not matter, so a training must sort them by id before it draws from them.

    Args:
        image_ids: The photos of the object, one or several.
        train_settings: The settings that change the result (`TrainSettings.identity()`), and no others.
        base_revision: The pinned revision of the base model.
        recipe_version: The version of the training code's arithmetic.

    Raises:
        ValueError: No image, or a setting is NaN or infinite.
        TypeError: A setting is nothing that JSON can say.
    """
    if not image_ids:
        raise ValueError("adapter_id: received no image; accepted one or several image ids")
    return digest("adapter", sorted(image_ids), train_settings, base_revision, recipe_version)


def text_id(prompt: str) -> str:
    """Name a side of a pair that is a prompt instead of an adapter: "text-<24 hex digits>"."""
    return f"text-{digest('text', prompt)}"


def mix_id(parts: Sequence[tuple[str, float]]) -> str:
    """Name a side of a pair that is several adapters by weight, in any order: "mix-<24 hex digits>".

    Raises:
        ValueError: A weight is NaN or infinite.
    """
    return f"mix-{digest('mix', sorted([adapter_id, float(weight)] for adapter_id, weight in parts))}"


def is_text(side: str) -> bool:
    """Tell whether the side of a pair is a prompt, by its id."""
    return side.startswith("text-")


def sample_id(
    *,
    content_id: str | None,
    style_id: str | None,
    content_strength: float | None,
    style_strength: float | None,
    prompts: Mapping[str, str],
    seed: int,
    sample_settings: Mapping[str, Json] | Canonical,
    base_revision: str,
    colour: Json = None,
) -> str:
    """Name the picture that this drawing makes.

    Args:
        content_id: The adapter_id or mix_id of the content side; None where the prompt alone says the content.
        style_id: The adapter_id or mix_id of the style side; None where the prompt alone says the style.
        content_strength: The user's dial, linear; None without content.
        style_strength: The user's dial, linear; None without style.
        prompts: Every prompt by its name (prompt, content_prompt, negative_prompt).
        seed: The user's seed.
        sample_settings: The settings that change the picture, and no others (no batch size).
        base_revision: The pinned revision of the base model.
        colour: What is done to its colours, and the version of that; None for nothing, which leaves the id as it was.

    Raises:
        ValueError: A strength or a setting is NaN or infinite.
        TypeError: A setting is nothing that JSON can say.
    """
    # `float` and `+ 0.0`: 1 and 1.0, and -0.0 and 0.0, draw the same picture and so must have the same id.
    strengths = [None if dial is None else float(dial) + 0.0 for dial in (content_strength, style_strength)]
    more = [] if colour is None else [colour]
    return digest("sample", content_id, style_id, strengths, prompts, seed, sample_settings, base_revision, *more)


def slug(name: str, max_length: int = 40) -> str:
    """Turn a name into lower-case words joined by "-", safe as a file name; never empty.

    Letters and digits of all scripts stay, in composed form; Latin ones lose their accents. A name that is too long, or
    has no letter and no digit, gets a tail of 8 hex digits of its hash: two such names stay distinct. Names that differ
    only in case, accents of Latin letters, punctuation or symbols do share a slug.

    Args:
        name: Any text.
        max_length: The most characters to return, 16 or more; in UTF-8 they take at most twice as many bytes.

    Raises:
        ValueError: `max_length` is below 16.
    """
    if max_length < _SLUG_SHORTEST:
        raise ValueError(f"slug: received max_length {max_length}; accepted {_SLUG_SHORTEST} or more")
    words = "-".join(_words(name))
    if words and _fits(words, max_length):
        return words
    tail = digest("slug", name)[:_SLUG_DIGITS]
    while words and not _fits(f"{words}-{tail}", max_length):
        words = words[:-1]
    return f"{words.rstrip('-')}-{tail}".lstrip("-")


def _words(name: str) -> list[str]:
    """The words of a name as `slug` writes them: each begins with a letter or digit."""
    plain: list[str] = []
    for character in unicodedata.normalize("NFKD", name):
        if not (unicodedata.combining(character) and plain and plain[-1].isascii()):
            plain.append(character)
    lower = unicodedata.normalize("NFC", "".join(plain).lower())
    words = "".join(c if unicodedata.category(c)[0] in "LMN" else " " for c in lower).split()
    return [word for word in map(_without_lone_marks, words) if word]


def _without_lone_marks(word: str) -> str:
    """The word from its first letter or digit on: a mark belongs to one."""
    return word[next((at for at, c in enumerate(word) if unicodedata.category(c)[0] != "M"), len(word)) :]


def _fits(word: str, max_length: int) -> bool:
    return len(word) <= max_length and len(word.encode()) <= 2 * max_length


def run_id(name: str, content: Json) -> str:
    """Name a run: a readable slug of `name` (at most 40 characters), "-", 12 hex digits of what it works off.

    Raises:
        ValueError: A number in `content` is NaN or infinite.
        TypeError: A value or a key in `content` is nothing that JSON can say.
    """
    return f"{slug(name)}-{digest('run', name, content)[:_RUN_DIGITS]}"


def name_in(run_id: str) -> str:
    """Return the name that a run's id begins with, as `slug` writes it."""
    return run_id.rpartition("-")[0]
