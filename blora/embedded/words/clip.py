"""Train one small CLIP on the drawn pictures and their words.

    python -m blora.embedded.words.clip --data DIR --seed 1 --minutes 10
    python -m blora.embedded.words.clip --data DIR --seed 2 --minutes 60 [--visual-only]

The text tower of seed 1 becomes `text_encoder`, that of seed 2 `text_encoder_2`, and the whole of seed 2 is the offline
scorer. Three kinds of batch alternate, so that neither words of things nor words of looks can be ignored: many things,
looks alone, and few things in several looks each (full captions). Goes on from DIR/clip1.pt or clip2.pt if that exists;
once a UNet was trained on the text towers, only with `--visual-only`.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import open_clip
import torch
import torch.nn.functional as F

from blora.embedded.drawings.pictures import Pictures
from blora.embedded.learning import progress, schedule
from blora.embedded.learning.muon import shared_out
from blora.embedded.words import captions

CONFIG: dict = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 64, "layers": [1, 1, 2, 1], "width": 16, "patch_size": None},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 3},
}
MEAN_STD = (0.5, 0.5, 0.5)
OUTER = ("token_embedding", "positional_embedding", "text_projection", "visual.conv1", "visual.attnpool")
"""Layers that words and pixels come in and features go out by, which AdamW trains."""
PADS, END = 13, 49407
"""Captions end before this place; the places from here on are never trained and are replaced (see `text`)."""


def build() -> open_clip.CLIP:
    """A small ResNet sees; in minutes of CPU time it learns what a ViT of equal cost does not."""
    return open_clip.model.CLIP(**CONFIG)


def cut(tokens: torch.Tensor) -> torch.Tensor:
    """The trained places only; a caption that is longer loses its last words, not its end."""
    tokens = tokens[:, :PADS].clone()
    tokens[~(tokens == END).any(1), -1] = END
    return tokens


def encode_text(model: open_clip.CLIP, tokens: torch.Tensor) -> torch.Tensor:
    """Same as model.encode_text for captions shorter than the cut, at a fifth of its cost (the mask is causal)."""
    tokens = cut(tokens)
    x = model.token_embedding(tokens) + model.positional_embedding[:PADS]
    x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask[:PADS, :PADS]))
    return F.normalize(x[torch.arange(len(x)), tokens.argmax(-1)] @ model.text_projection, dim=-1)


class CaptionedBatches:
    """Draws rows of pictures and their captions."""

    def __init__(self, pictures: Pictures, rng: np.random.Generator, size: int) -> None:
        """Group the training rows by thing and by look."""
        self.pictures, self.rng, self.size = pictures, rng, size
        rows = pictures.for_training()
        rows = rows[np.array(["icon" not in thing for thing in pictures.things])[pictures.thing[rows]]]
        worded = np.array([bool(k["words"]) for k in pictures.looks])[pictures.look]
        by_thing, by_look = pictures.thing[rows], pictures.look[rows]
        self.of_thing = {int(c): rows[by_thing == c] for c in np.unique(by_thing)}
        self.worded_of_thing = {c: r[worded[r]] for c, r in self.of_thing.items()}
        self.of_look = {int(k): rows[by_look == k] for k in np.unique(by_look) if pictures.looks[k]["words"]}

    def draw(self) -> tuple[np.ndarray, list[str]]:
        """One batch of one of the three kinds."""
        p, rng = self.pictures, self.rng
        kind = int(rng.choice(3, p=[0.45, 0.15, 0.4]))
        if kind == 0:
            things = rng.choice(list(self.of_thing), min(self.size, len(self.of_thing)), replace=False)
            rows = np.array([rng.choice(self.of_thing[c]) for c in things])
            return rows, [captions.thing_caption(p.things[p.thing[r]]["name"], rng) for r in rows]
        if kind == 1:
            rows = np.array([rng.choice(self.of_look[k]) for k in self.of_look])
            return rows, [captions.look_caption(p.looks[p.look[r]]["words"], rng) for r in rows]
        things = rng.choice(list(self.worded_of_thing), max(1, self.size // 3), replace=False)
        rows = np.concatenate([self._distinct_looks(self.worded_of_thing[c]) for c in things])
        pairs = [(p.things[p.thing[r]]["name"], p.looks[p.look[r]]["words"]) for r in rows]
        return rows, [captions.caption(thing, look, rng) for thing, look in pairs]

    def _distinct_looks(self, rows: np.ndarray) -> np.ndarray:
        rows = self.rng.permutation(rows)
        _, first = np.unique(self.pictures.look[rows], return_index=True)
        return rows[self.rng.permutation(first)[:3]]


def images(pixels: np.ndarray, rows: np.ndarray, device: str) -> torch.Tensor:
    """Pictures at the scorer's side, in -1..1."""
    x = torch.from_numpy(np.stack([pixels[r] for r in rows])).to(device).permute(0, 3, 1, 2).float()
    return F.adaptive_avg_pool2d(x, CONFIG["vision_cfg"]["image_size"]) / 127.5 - 1


@torch.no_grad()
def retrieval(model: open_clip.CLIP, pictures: Pictures, device: str) -> dict[str, float]:
    """Recall at 1: held-out things by another set's drawing, looks of held-out things and known things by words."""
    model.eval()
    tokenizer, pixels = open_clip.get_tokenizer("ViT-B-32"), pictures.pixels()

    def features(rows: np.ndarray) -> torch.Tensor:
        parts = np.array_split(rows, max(1, len(rows) // 128))
        return torch.cat([model.encode_image(images(pixels, part, device), normalize=True) for part in parts])

    def texts(words: list[str]) -> torch.Tensor:
        return encode_text(model, tokenizer(words).to(device))

    held, known_look = pictures.held_out_thing(), ~pictures.held_out_look()
    plain = [np.flatnonzero(held & (pictures.look == k)) for k in (0, 2)]  # Noto and Twemoji on white
    both = np.intersect1d(pictures.thing[plain[0]], pictures.thing[plain[1]])
    noto, twemoji = (rows[np.isin(pictures.thing[rows], both)] for rows in plain)
    match = features(noto) @ features(twemoji).T
    looks = [k for k, look in enumerate(pictures.looks) if look["words"] and not look["held_out"]]
    rows = np.concatenate([np.flatnonzero(held & known_look & (pictures.look == k))[:8] for k in looks])
    words = texts([f"{pictures.looks[k]['words']} style" for k in looks])
    named = (features(rows) @ words.T).argmax(1).cpu().numpy()
    known = np.flatnonzero(~held & (pictures.look == 0) & pictures.judged)
    names = texts([captions.with_article(pictures.things[pictures.thing[r]]["name"]) for r in known])
    found = (features(known) @ names.T).argmax(1).cpu() == torch.arange(len(known))
    model.train()
    return {
        "held_out_thing_across_sets": float((match.argmax(1).cpu() == torch.arange(len(match))).float().mean()),
        "look_by_words": float((np.array(looks)[named] == pictures.look[rows]).mean()),
        "known_thing_by_words": float(found.float().mean()),
    }


class ClipTraining:
    """The model, its optimiser and its batches."""

    def __init__(self, pictures: Pictures, args: argparse.Namespace) -> None:
        """Begin anew."""
        torch.manual_seed(args.seed)
        self.args, self.pictures, self.steps, self.seen = args, pictures, 0, 0
        self.batches = CaptionedBatches(pictures, np.random.default_rng(args.seed), args.batch)
        self.pixels, self.tokenizer = pictures.pixels(), open_clip.get_tokenizer("ViT-B-32")
        self.model = build().to(args.device).train()
        for name, value in self.model.named_parameters():
            value.requires_grad_(not args.visual_only or name.startswith("visual.") or name == "logit_scale")
        self.optimisers = shared_out(self.model.named_parameters(), args.lr, OUTER)

    def step(self, done: float) -> float:
        """One batch; returns its loss."""
        args, (rows, words) = self.args, self.batches.draw()
        with progress.passes(args):
            x = self.model.encode_image(images(self.pixels, rows, args.device), normalize=True)
            y = encode_text(self.model, self.tokenizer(words).to(args.device))
        logits = self.model.logit_scale.exp().clamp(max=50) * x.float() @ y.float().T
        same = torch.arange(len(rows), device=logits.device)
        loss = (F.cross_entropy(logits, same) + F.cross_entropy(logits.T, same)) / 2
        rate = args.lr * schedule.cosine(done, self.steps, warmup=100)
        self.model.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([q for q in self.model.parameters() if q.requires_grad], 1.0)
        for optimiser in self.optimisers:
            schedule.set_rate(optimiser, rate)
            optimiser.step()
        self.steps, self.seen = self.steps + 1, self.seen + len(rows)
        return loss.item()

    def measure(self) -> dict[str, float]:
        """Recalls of `retrieval`."""
        return retrieval(self.model, self.pictures, self.args.device)

    def sheet(self) -> None:
        """Nothing to see."""

    def state(self) -> dict[str, Any]:
        """All that going on needs."""
        parts = {"model": self.model.state_dict(), "optimisers": [one.state_dict() for one in self.optimisers]}
        return {**parts, "steps": self.steps, "seen": self.seen, "visual_only": self.args.visual_only}

    def resume(self, state: dict[str, Any]) -> None:
        """Go on from `state`, with another stretch of the random stream."""
        self.model.load_state_dict(state["model"])
        if state["visual_only"] == self.args.visual_only:
            for optimiser, kept in zip(self.optimisers, state["optimisers"], strict=True):
                optimiser.load_state_dict(kept)
        self.steps, self.seen = state["steps"], state["seen"]
        self.batches.rng = np.random.default_rng((self.args.seed, self.steps))


def main(given: list[str] | None = None) -> None:
    """Command line."""
    parser = progress.arguments(__doc__, minutes=20, batch=128, lr=3e-3, save_minutes=2)
    parser.add_argument("--seed", type=int, required=True, help="1 or 2; names the checkpoint")
    parser.add_argument("--visual-only", action="store_true", help="keep the text tower, which a UNet was trained on")
    args = progress.parsed(parser, given)
    training = ClipTraining(Pictures.read(args.data), args)
    progress.spend(training, args.data / f"clip{args.seed}.pt", args.minutes, args.save_minutes, args.device)


if __name__ == "__main__":
    main()
