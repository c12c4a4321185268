"""Train one small CLIP on the drawn pictures and their words.

    python -m blora.embedded.training.clip --data DIR --seed 1 --minutes 8

Run it twice with different seeds: the text tower of seed 1 becomes `text_encoder`, that of seed 2 `text_encoder_2`,
and the whole of seed 2 is the offline scorer. Three kinds of batch alternate, so that neither words of things nor words
of looks can be ignored: many things ("a drawing of a ..."), few things in several looks each (full captions), and
looks alone ("... style").
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import open_clip
import torch
import torch.nn.functional as F

from blora.embedded.training.common import Budget, Pictures, learning_rate, save

CONFIG: dict = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 64, "layers": [1, 1, 2, 1], "width": 16, "patch_size": None},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 3},
}
MEAN_STD = (0.5, 0.5, 0.5)
SHORT = 24  # training captions are far shorter than 77 tokens; the causal mask makes the cut exact


def build() -> open_clip.CLIP:
    """A small ResNet sees; in minutes of CPU time it learns what a ViT of equal cost does not."""
    return open_clip.model.CLIP(**CONFIG)


def a(words: str) -> str:
    """The words with their article."""
    return f"{'an' if words[:1].lower() in 'aeiou' else 'a'} {words}"


def caption(thing: str, look: str, rng: np.random.Generator) -> str:
    """A full caption, in one of several wordings."""
    kinds = (
        f"a drawing of {a(thing)}, {look} style",
        f"A {thing} in {look} style",
        f"{a(thing)} in {look} style",
        f"{thing}, {look}",
        f"{a(thing)}, {look} style",
    )
    return kinds[rng.integers(len(kinds))]


def thing_caption(thing: str, rng: np.random.Generator) -> str:
    kinds = (f"a drawing of {a(thing)}", f"A {thing}", a(thing), thing, f"a picture of {a(thing)}")
    return kinds[rng.integers(len(kinds))]


def look_caption(look: str, rng: np.random.Generator) -> str:
    kinds = (f"{look} style", look, f"a drawing in {look} style", f"in {look} style")
    return kinds[rng.integers(len(kinds))]


def encode_text(model: open_clip.CLIP, tokens: torch.Tensor) -> torch.Tensor:
    """Same as model.encode_text for captions shorter than the cut, at a third of its cost."""
    tokens = tokens[:, :SHORT]
    x = model.token_embedding(tokens) + model.positional_embedding[:SHORT]
    x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask[:SHORT, :SHORT]))
    return F.normalize(x[torch.arange(len(x)), tokens.argmax(-1)] @ model.text_projection, dim=-1)


class Batches:
    """Draws rows of pictures and their captions."""

    def __init__(self, pictures: Pictures, rng: np.random.Generator, size: int) -> None:
        self.pictures, self.rng, self.size = pictures, rng, size
        rows = pictures.for_training()
        worded = np.array([bool(k["words"]) for k in pictures.looks])[pictures.look]
        by_thing, by_look = pictures.thing[rows], pictures.look[rows]
        self.of_thing = {int(c): rows[by_thing == c] for c in np.unique(by_thing)}
        self.worded_of_thing = {c: r[worded[r]] for c, r in self.of_thing.items()}
        self.of_look = {int(k): rows[by_look == k] for k in np.unique(by_look) if pictures.looks[k]["words"]}

    def draw(self, kind: int) -> tuple[np.ndarray, list[str]]:
        p, rng = self.pictures, self.rng
        if kind == 0:
            things = rng.choice(list(self.of_thing), self.size, replace=False)
            rows = np.array([rng.choice(self.of_thing[c]) for c in things])
            return rows, [thing_caption(p.things[p.thing[r]]["name"], rng) for r in rows]
        if kind == 1:
            looks = list(self.of_look)
            rows = np.array([rng.choice(self.of_look[k]) for k in looks])
            return rows, [look_caption(p.looks[p.look[r]]["words"], rng) for r in rows]
        things = rng.choice(list(self.worded_of_thing), self.size // 3, replace=False)
        rows = np.concatenate([self._distinct_looks(self.worded_of_thing[c]) for c in things])
        return rows, [caption(p.things[p.thing[r]]["name"], p.looks[p.look[r]]["words"], rng) for r in rows]

    def _distinct_looks(self, rows: np.ndarray) -> np.ndarray:
        rows = self.rng.permutation(rows)
        _, first = np.unique(self.pictures.look[rows], return_index=True)
        return rows[self.rng.permutation(first)[:3]]


def images(pixels: np.ndarray, rows: np.ndarray, device: str) -> torch.Tensor:
    """Pictures at 64 px in -1..1."""
    x = torch.from_numpy(np.stack([pixels[r] for r in rows])).to(device).permute(0, 3, 1, 2).float()
    return F.avg_pool2d(x, 2) / 127.5 - 1


@torch.no_grad()
def retrieval(model: open_clip.CLIP, pictures: Pictures, device: str) -> dict[str, float]:
    """Recall at 1 on pictures of held-out things, by image, against plain drawings; and of looks by their words."""
    model.eval()
    tokenizer, pixels = open_clip.get_tokenizer("ViT-B-32"), pictures.pixels()

    def features(rows: np.ndarray) -> torch.Tensor:
        return torch.cat(
            [
                model.encode_image(images(pixels, part, device), normalize=True)
                for part in np.array_split(rows, max(1, len(rows) // 128))
            ]
        )

    held, known_look = pictures.held_out_thing(), ~pictures.held_out_look()
    plain = [np.flatnonzero(held & (pictures.look == k)) for k in (0, 2)]  # Noto and Twemoji on white
    match = features(plain[0]) @ features(plain[1]).T
    looks = [k for k, look in enumerate(pictures.looks) if look["words"] and not look["held_out"]]
    rows = np.concatenate([np.flatnonzero(held & known_look & (pictures.look == k))[:8] for k in looks])
    words = tokenizer([f"{pictures.looks[k]['words']} style" for k in looks]).to(device)
    named = (features(rows) @ encode_text(model, words).T).argmax(1).cpu().numpy()
    known = np.flatnonzero(~held & (pictures.look == 0))
    text = encode_text(model, tokenizer([a(pictures.things[pictures.thing[r]]["name"]) for r in known]).to(device))
    found = (features(known) @ text.T).argmax(1).cpu() == torch.arange(len(known))
    model.train()
    return {
        "held-out thing across sets R@1": float((match.argmax(1).cpu() == torch.arange(len(match))).float().mean()),
        "look of held-out things by words": float((np.array(looks)[named] == pictures.look[rows]).mean()),
        "known thing by words R@1": float(found.float().mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seed", type=int, required=True, help="1 or 2; names the checkpoint")
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--batch", type=int, default=192)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument(
        "--visual-only",
        action="store_true",
        help="with --resume: a fresh visual tower for the text tower that the UNet was trained on",
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    pictures = Pictures.read(args.data)
    batches, pixels = Batches(pictures, np.random.default_rng(args.seed), args.batch), pictures.pixels()
    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    model = build().to(args.device).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=args.lr, betas=(0.9, 0.98), weight_decay=0.05)
    path, step, seen, budget = args.data / f"clip{args.seed}.pt", 0, 0, Budget(args.minutes)
    if args.resume and path.exists():
        state = torch.load(path, map_location=args.device, weights_only=True)
        if args.visual_only:
            model.load_state_dict(
                {k: v for k, v in state["model"].items() if not k.startswith("visual.")}, strict=False
            )
            for key, value in model.named_parameters():
                value.requires_grad_(key.startswith("visual.") or key == "logit_scale")
        else:
            model.load_state_dict(state["model"])
            optimiser.load_state_dict(state["optimiser"])
            step, seen, budget = state["step"], state["seen"], Budget(args.minutes, state["spent"])

    def checkpoint() -> None:
        scores = retrieval(model, pictures, args.device)
        save(
            path,
            {
                "model": model.state_dict(),
                "optimiser": optimiser.state_dict(),
                "step": step,
                "seen": seen,
                "spent": budget.spent,
                "scores": scores,
            },
        )
        print(
            f"step {step} pictures {seen} minutes {budget.spent / 60:.1f} loss {loss.item():.3f} {scores}", flush=True
        )

    while budget.done < 1:
        rows, words = batches.draw(int(np.random.default_rng((args.seed, step)).choice(3, p=[0.4, 0.15, 0.45])))
        with torch.autocast(args.device.split(":")[0], torch.bfloat16):
            x = model.encode_image(images(pixels, rows, args.device), normalize=True)
            y = encode_text(model, tokenizer(words).to(args.device))
        logits = model.logit_scale.exp().clamp(max=50) * x.float() @ y.float().T
        same = torch.arange(len(rows), device=logits.device)
        loss = (F.cross_entropy(logits, same) + F.cross_entropy(logits.T, same)) / 2
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(args.lr, budget.done, step)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        step, seen = step + 1, seen + len(rows)
        if step % 100 == 0:
            checkpoint()
    checkpoint()


if __name__ == "__main__":
    main()
