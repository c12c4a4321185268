"""Default prompts of the block probe, by base: the paper's sentences, or the embedded model's own few words.

Source of the sentences: arXiv 2403.14572, section 4.1. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations, product
from typing import TYPE_CHECKING, Final

import numpy as np

from blora.errors import SettingFault, SettingsError

if TYPE_CHECKING:
    from blora.probe.readings import Kind

__all__ = ["default_prompts", "noise_seeds"]

_OBJECTS: Final = (
    "car bicycle boat train airplane house chair lamp clock teapot cup vase bowl bottle backpack hat shoe guitar piano "
    "camera umbrella book candle ball dog cat horse bird fish elephant butterfly apple pumpkin flower tree mushroom"
).split()
_COLOURS: Final = "red blue green yellow purple orange pink black white brown".split()

# The embedded model has been shown drawings with these names, under these captions (embedded/words/captions.py).
_DRAWN: Final = (
    "cat dog tiger fox elephant penguin dolphin turtle snake octopus butterfly banana tomato watermelon pineapple "
    "carrot guitar trumpet umbrella bicycle bus rocket key crown anchor bomb radio backpack"
).split()
_LOOKS: Final = (
    "sky blue paper",
    "pink paper",
    "yellow paper",
    "green paper",
    "black paper",
    "red paper",
    "sunset sky",
    "candy stripes",
    "blueprint",
    "moonlit night",
    "sunset duotone",
    "acid neon",
    "forest duotone",
    "ocean duotone",
    "glowing embers",
    "chalk on a blackboard",
)


def default_prompts(base: str, count: int, seed: int) -> list[tuple[Kind, str, str]]:
    """Draw pairs of prompts by lot: ``count`` that differ in the object, then as many that differ in the look.

    The same seed gives the same pairs, and fewer of them are the first ones of more.

    Args:
        base: "embedded", or any other base, which gets the paper's sentences.
        count: Pairs of each kind.
        seed: Of the lot.

    Returns:
        Kind, p and q of each pair; no pair comes twice.

    Raises:
        SettingsError: There are not that many different pairs.
    """
    content, style = _embedded_pairs() if base == "embedded" else _paper_pairs()
    most = min(len(content), len(style))
    if not 1 <= count <= most:
        raise SettingsError([SettingFault("pairs", "out of range", str(count), f"1 to {most}, or prompts of your own")])
    chosen: list[tuple[Kind, str, str]] = []
    kinds: tuple[tuple[Kind, Sequence[tuple[str, str]]], ...] = (("content", content), ("style", style))
    for number, (kind, pairs) in enumerate(kinds):
        order = np.random.default_rng([seed, number]).permutation(len(pairs))
        chosen += [(kind, *pairs[index]) for index in order[:count]]
    return chosen


def noise_seeds(seed: int, pair: int, count: int) -> tuple[int, ...]:
    """Return the seeds of a pair's pictures, 32 bits each: made of the probe's seed and the pair's number alone."""
    return tuple(int(value) for value in np.random.SeedSequence([seed, pair]).generate_state(count))


def _paper_pairs() -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    content = [(_photo(p), _photo(q)) for p, q in permutations(_OBJECTS, 2)]
    style = [
        (_photo(f"{p} {thing}"), _photo(f"{q} {thing}"))
        for thing, (p, q) in product(_OBJECTS, permutations(_COLOURS, 2))
    ]
    return content, style


def _embedded_pairs() -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    content = [(f"a drawing of {_a(p)}", f"a drawing of {_a(q)}") for p, q in permutations(_DRAWN, 2)]
    style = [
        (f"{_a(thing)} in {p} style", f"{_a(thing)} in {q} style")
        for thing, (p, q) in product(_DRAWN, permutations(_LOOKS, 2))
    ]
    return content, style


def _photo(words: str) -> str:
    return f"A photo of {_a(words)}"


def _a(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"
