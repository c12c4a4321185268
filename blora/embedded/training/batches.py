"""Batches of the UNet's training: targets, and what each of the two blocks is told about them.

Each side of each picture is told, independently, a picture (74 %), words (20 %) or nothing (6 %); in 6 % of the batches
the full caption goes to all blocks, as in SDXL. Words of one side come half of the time with words of the other's that
are not the target's, and half of what is nothing is such words alone: so each block learns to hear its own side of a
prompt, whatever else the prompt says.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from blora.embedded.drawings.pictures import Pictures
from blora.embedded.drawings.references import TripleSampler
from blora.embedded.training.unet import PlacedTokens
from blora.embedded.words import captions
from blora.embedded.words.text import TextPair

CAPTIONS = 0.06
PICTURE, WORDS, NOTHING = 0, 1, 2
SHARES = (0.74, 0.20, 0.06)
NEUTRAL = {"": 0.4, "A [v]": 0.35, "A [c] in [s] style": 0.15, "A [c]": 0.1}
"""What the other blocks read when the two are told something of their own."""


@dataclass(frozen=True)
class ConditionedBatch:
    """One batch, on the training's device.

    Attributes:
        latents: Targets.
        plain: Latents of the plain drawings that the targets are redrawings of.
        context: What all blocks read.
        pooled: Pooled embeddings of the same prompts.
        content: What the content block reads in its place, or None.
        style: The same for the style block.
        placed: Whether the content block is told a picture of the very layout, one entry a target.
        worded: Whether it is told words.
    """

    latents: torch.Tensor
    plain: torch.Tensor
    context: torch.Tensor
    pooled: torch.Tensor
    content: torch.Tensor | None
    style: torch.Tensor | None
    placed: torch.Tensor
    worded: torch.Tensor


class ConditionedBatches:
    """Draws batches from what `vae` and `encoders` left on disk."""

    def __init__(
        self, pictures: Pictures, text: TextPair, tokens: PlacedTokens, rng: np.random.Generator, device: str
    ) -> None:
        """Open the files, which are read as they are used; `tokens` puts codes into prompts, and is trained."""
        names = ("latents", "content", "style")
        self.latents, self.content, self.style = (
            np.load(pictures.folder / f"{name}.npy", mmap_mode="r") for name in names
        )
        self.pictures, self.text, self.tokens, self.rng, self.device = pictures, text, tokens, rng, device
        self.sampler, self.plain = TripleSampler(pictures, rng), pictures.plain()

    def take(self, table: np.ndarray, rows: np.ndarray) -> torch.Tensor:
        """Some rows of one of the three tables."""
        return torch.from_numpy(np.stack([table[r] for r in rows])).to(self.device).float()

    def draw(self, size: int) -> ConditionedBatch:
        """One batch of the training set."""
        p, rng = self.pictures, self.rng
        captioned = rng.random() < CAPTIONS
        rows = self.sampler.draw(size, worded=captioned)
        things = [p.things[c]["name"] for c in p.thing[rows.target]]
        looks = [p.looks[k]["words"] for k in p.look[rows.target]]
        latents = self.take(self.latents, rows.target)
        plain = self.take(self.latents, np.array([self.plain[int(g)] for g in p.geometry[rows.target]]))
        if captioned:
            words = [captions.caption(thing, look, rng) for thing, look in zip(things, looks, strict=True)]
            none = torch.zeros(size, dtype=torch.bool, device=self.device)
            return ConditionedBatch(latents, plain, *self.text(words), None, None, none, ~none)
        prompt, pooled = self.text([str(rng.choice(list(NEUTRAL), p=list(NEUTRAL.values())))])
        kinds = rng.choice(3, (2, size), p=SHARES)
        kinds[1, [not look for look in looks] & (kinds[1] == WORDS)] = NOTHING
        said = self._say(things, looks, kinds)
        content = self.tokens.content(prompt, self._codes(self.content, rows.content, kinds[0] == PICTURE))
        style = self.tokens.style(prompt, self._codes(self.style, rows.style, kinds[1] == PICTURE))
        content, style = (
            self._with_words(context, kind == WORDS, words)
            for context, kind, words in zip((content, style), kinds, said, strict=True)
        )
        own = p.geometry[rows.content] == p.geometry[rows.target]  # another hand's drawing does not say this layout
        placed = torch.from_numpy((kinds[0] == PICTURE) & own).to(self.device)
        worded = torch.from_numpy(kinds[0] == WORDS).to(self.device)
        context, pooled = prompt.expand(size, -1, -1), pooled.expand(size, -1)
        return ConditionedBatch(latents, plain, context, pooled, content, style, placed, worded)

    def _say(self, things: list[str], looks: list[str], kinds: np.ndarray) -> tuple[list[str], list[str]]:
        """Words for the two blocks, of use where `kinds` says so; nothing that says something becomes words there."""
        rng, nothing = self.rng, kinds == NOTHING
        beside = rng.random(kinds.shape) < 0.5
        other_things, other_looks = ([told[i] for i in rng.permutation(len(things))] for told in (things, looks))
        said: tuple[list[str], list[str]] = ([], [])
        for i in range(len(things)):
            look, thing = other_looks[i] if beside[0, i] else "", other_things[i] if beside[1, i] else ""
            said[0].append(captions.any_caption("" if nothing[0, i] else things[i], look, rng))
            said[1].append(captions.any_caption(thing, "" if nothing[1, i] else looks[i], rng))
        kinds[nothing & (np.array(said) != "")] = WORDS
        return said

    def _codes(self, table: np.ndarray, rows: np.ndarray, told: np.ndarray) -> torch.Tensor:
        """Codes of some rows; zeros for those that are not told."""
        return self.take(table, rows) * torch.from_numpy(told).to(self.device)[:, None, None]

    def _with_words(self, context: torch.Tensor, worded: np.ndarray, words: list[str]) -> torch.Tensor:
        """The context with whole rows replaced by the hidden states of words."""
        chosen = np.flatnonzero(worded)
        if not len(chosen):
            return context
        own = self.text([words[i] for i in chosen])[0]
        return context.index_copy(0, torch.from_numpy(chosen).to(self.device), own)
