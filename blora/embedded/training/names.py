"""Things by their names: the first text encoder learns to say in a caption's padding what a drawing's tokens would say.

    python -m blora.embedded.training.names --data DIR --minutes 24 [--start FOLDER]

The UNet draws things from content tokens and, after hundreds of thousands of pictures, still not from words: its
content block reads the places of the padding, which hardly hear the words before them. So words are put into the
language that it knows. Of each thing's drawings the one nearest to their mean is taken, and layers put in before the
encoder's last are taught to add its codes, through the numbers that this encoder has a part in, wherever a caption
names the thing. All else stays as it was, above all what "A [v]" says, by which B-LoRAs are trained.

`--start` takes the UNet and its tokens of an export in place of DIR/unet.pt. Goes on from DIR/names.pt; at the end the
encoder in DIR/text is replaced.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import CLIPTextModel

from blora.embedded.drawings.pictures import Pictures
from blora.embedded.learning import progress, schedule
from blora.embedded.learning.muon import shared_out
from blora.embedded.training import vae
from blora.embedded.training.batches import NEUTRAL
from blora.embedded.training.export import averaged_trainee
from blora.embedded.training.judge import denoise
from blora.embedded.training.named_codes import NamedCodes, typical_codes
from blora.embedded.training.train import Trainee
from blora.embedded.training.unet import PLACES
from blora.embedded.words import captions
from blora.embedded.words.clip import PADS
from blora.embedded.words.name_layers import UNITS, copy_narrow, heard, lengthened, plain_encoder, share_out_places
from blora.embedded.words.text import LENGTH, TextPair

KINDS = {"thing": 0.45, "both": 0.2, "token": 0.1, "look": 0.1, "neutral": 0.15}
"""Shares of the captions: a thing, a thing in a look, a thing in "[s]" style, a look, and prompts of B-LoRAs."""
SILENT = (*NEUTRAL, "[c]", "[v]", "[s] style", "A [c] in {look} style", "[c] in {look} style")
HEARING = {4: 0.7, 16: 0.2, PLACES: 0.1}
"""Shares of batches by how many places of the padding are looked at; attention is causal, so later ones may go."""
LOUDER = 10.0
"""Weight of captions that name nothing: a B-LoRA multiplies what is added there."""
SHOWN = "cat fox penguin turtle banana watermelon umbrella bicycle key anchor bomb bus".split()


def read_trainee(data: Path, start: Path | None) -> Trainee:
    """The UNet with its tokens, of an export or of the checkpoint in `data` (averaged)."""
    if start:
        trainee = Trainee(vae.CHANNELS, 128, TextPair(data / "text", "cpu"))
        trainee.take(start)
    else:
        trainee, _ = averaged_trainee(data)
    return trainee.eval().requires_grad_(False)


class NamesTraining:
    """The encoder before and after, and captions with what they are to say."""

    def __init__(self, pictures: Pictures, trainee: Trainee, args: argparse.Namespace) -> None:
        """Begin anew."""
        torch.manual_seed(args.seed)
        self.args, self.trainee, self.tokenizer = args, trainee, trainee.text.tokenizers[0]
        self.before = plain_encoder(args.data / "text" / "text_encoder").float().eval()
        self.model = lengthened(self.before).to(args.device)
        self.before.to(args.device)
        self.codes = NamedCodes(typical_codes(pictures), trainee, self.model.config.hidden_size, args.device)
        self.things = {thing: pictures.things[thing]["name"] for thing in self.codes.said}
        self.looks = [look["words"] for look in pictures.looks if look["words"] and not look["held_out"]]
        self.rng = np.random.default_rng(args.seed)
        trained = [(name, weight) for name, weight in self.model.named_parameters() if weight.requires_grad]
        self.optimisers = shared_out(trained, args.lr, ())
        self.steps = self.seen = 0

    def captions(self, size: int) -> tuple[list[str], list[int | None]]:
        """Captions by lot, and the thing that each names, if any."""
        rng, words, named = self.rng, [], []
        for kind in rng.choice(list(KINDS), size, p=list(KINDS.values())):
            thing, look = int(rng.choice(list(self.things))), str(rng.choice(self.looks))
            name = self.things[thing]
            said = {
                "thing": captions.thing_caption(name, rng),
                "both": captions.caption(name, look, rng),
                "token": f"{captions.with_article(name)} in [s] style",
                "look": captions.look_caption(look, rng),
                "neutral": str(rng.choice(SILENT)).format(look=look),
            }[str(kind)]
            words.append(said[0].upper() + said[1:] if said and rng.random() < 0.5 else said)
            named.append(thing if kind in ("thing", "both", "token") else None)
        return words, named

    def ids(self, words: list[str]) -> torch.Tensor:
        """(N, LENGTH), padded."""
        read = self.tokenizer(words, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt")
        return read.input_ids.to(self.args.device)

    def errors(self, words: list[str], named: list[int | None], places: int) -> torch.Tensor:
        """(N,) squared error of the numbers that come to the first places, and of what changes at the words' own."""
        ids = self.ids(words)[:, : PADS + places]
        with torch.no_grad():
            asked = heard(self.before, ids)
            for row, thing in enumerate(named):
                if thing is not None:
                    asked[row, PADS:] += self.codes.numbers[thing]
        wrong = (heard(self.model, ids) - asked).square()
        return (wrong[:, PADS:] * self.codes.weights).mean((1, 2)) + wrong[:, :PADS].mean((1, 2))

    @torch.no_grad()
    def whole(self) -> CLIPTextModel:
        """The encoder as it is shipped: wide enough to tell each place its own."""
        model = lengthened(self.before, PLACES * UNITS).to(self.args.device)
        copy_narrow(self.model.state_dict(), model)
        share_out_places(model, self.before, self.ids(["A [v]"]), self.codes.says)
        return model.eval()

    def step(self, done: float) -> float:
        """One batch, at the given share of the budget; returns its loss."""
        words, named = self.captions(self.args.batch)
        places = int(self.rng.choice(list(HEARING), p=list(HEARING.values())))
        weights = torch.tensor([1.0 if thing is not None else LOUDER for thing in named], device=self.args.device)
        with progress.passes(self.args):
            loss = (self.errors(words, named, places) * weights).mean()
        self.model.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimiser in self.optimisers:
            schedule.set_rate(optimiser, self.args.lr * schedule.cosine(done, self.steps))
            optimiser.step()
        self.steps, self.seen = self.steps + 1, self.seen + self.args.batch
        return loss.item()

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """Share of what names should say that is not said, and how much is added where nothing is named."""
        named = list(self.things)[:: max(1, len(self.things) // 64)]
        words = [f"a drawing of {captions.with_article(self.things[thing])}" for thing in named]
        silent, whole = [text.format(look=self.looks[0]) for text in SILENT], self.whole()
        added = heard(whole, self.ids(words)) - heard(self.before, self.ids(words))
        wrong = added[:, PADS:] - torch.stack([self.codes.said[thing] for thing in named])
        quiet = heard(whole, self.ids(silent)) - heard(self.before, self.ids(silent))
        return {
            "unsaid": float(wrong.square().mean()) / self.codes.size,
            "added_to_words": float(added[:, :PADS].square().mean()) / self.codes.size,
            "added_to_neutral": float(quiet.square().mean()) / self.codes.size,
        }

    @torch.no_grad()
    def sheet(self) -> np.ndarray:
        """What the UNet draws from names alone, told to all blocks."""
        text = self.trainee.text
        plain, text.encoders[0] = text.encoders[0], self.whole()
        text.known.clear()
        told, free = text([f"a drawing of {captions.with_article(name)}" for name in SHOWN]), text([""] * len(SHOWN))
        text.encoders[0] = plain
        text.known.clear()
        self.trainee.contexts.set(None, None)

        def guided(scaled: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            own, away = (self.trainee.predict(scaled, t.expand(len(SHOWN)), *words) for words in (told, free))
            return away + 2 * (own - away)

        noise = torch.randn(len(SHOWN), vae.CHANNELS, 32, 32, generator=torch.Generator().manual_seed(0))
        decoder = vae.load(self.args.data, "cpu")
        latents = denoise(noise, 12, guided) / decoder.config.scaling_factor
        return progress.grid(vae.to_pixels(decoder.decode(latents).sample)[None])

    def state(self) -> dict[str, Any]:
        """All that going on needs."""
        optimisers = [one.state_dict() for one in self.optimisers]
        return {"model": self.model.state_dict(), "optimisers": optimisers, "steps": self.steps, "seen": self.seen}

    def resume(self, state: dict[str, Any]) -> None:
        """Go on from `state`, with another stretch of the random stream."""
        self.model.load_state_dict(state["model"])
        for optimiser, kept in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(kept)
        self.steps, self.seen = state["steps"], state["seen"]
        self.rng = np.random.default_rng((self.args.seed, self.steps))


def main(given: list[str] | None = None) -> None:
    """Command line."""
    parser = progress.arguments(__doc__, minutes=24, batch=64, lr=6e-3, save_minutes=2)
    parser.add_argument("--start", type=Path, help="folder of an export whose UNet is to be spoken to")
    parser.add_argument("--seed", type=int, default=0)
    args = progress.parsed(parser, given)
    training = NamesTraining(Pictures.read(args.data), read_trainee(args.data, args.start), args)
    progress.spend(training, args.data / "names.pt", args.minutes, args.save_minutes, args.device)
    training.whole().cpu().half().save_pretrained(args.data / "text" / "text_encoder")


if __name__ == "__main__":
    main()
