"""Words for a picture: of its thing, of its look, or of both, in several wordings.

All are short: the text encoders' places from `words.clip.PADS` on are never trained.
"""

from __future__ import annotations

import numpy as np


def with_article(words: str) -> str:
    """The words with "a" or "an"."""
    return f"{'an' if words[:1].lower() in 'aeiou' else 'a'} {words}"


def caption(thing: str, look: str, rng: np.random.Generator) -> str:
    """Thing and look."""
    kinds = (
        f"A {thing} in {look} style",
        f"{with_article(thing)} in {look} style",
        f"{thing}, {look}",
        f"{with_article(thing)}, {look} style",
    )
    return kinds[rng.integers(len(kinds))]


def thing_caption(thing: str, rng: np.random.Generator) -> str:
    """The thing alone."""
    article = with_article(thing)
    kinds = (f"a drawing of {article}", f"A {thing}", article, thing, f"a picture of {article}")
    return kinds[rng.integers(len(kinds))]


def look_caption(look: str, rng: np.random.Generator) -> str:
    """The look alone."""
    kinds = (f"{look} style", look, f"a drawing in {look} style", f"in {look} style")
    return kinds[rng.integers(len(kinds))]


def any_caption(thing: str, look: str, rng: np.random.Generator) -> str:
    """What is given of the two; empty for neither."""
    if thing and look:
        return caption(thing, look, rng)
    if thing:
        return thing_caption(thing, rng)
    return look_caption(look, rng) if look else ""
