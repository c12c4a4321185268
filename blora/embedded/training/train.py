"""Train the small UNet, from nothing, from DIR/unet.pt, or from the weights of an export.

    python -m blora.embedded.training.train --data DIR --minutes 1200 [--start FOLDER --seen PICTURES]

Needs latents.npy (`vae`), text/ (`text`), content.npy and style.npy (`encoders`). Can be stopped at any time: SIGTERM
saves first, a kill loses at most `--save-minutes`. Every `--judge-minutes` it writes how much the content tokens lower
the error (`judge`) to unet.jsonl, and every second time a sheet of pictures to sheets/. To end early, give fewer
minutes: the learning rate then falls at once.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler
from safetensors.torch import load_file
from torch import nn

from blora.embedded.drawings.pictures import Pictures
from blora.embedded.learning import progress, schedule
from blora.embedded.learning.budget import Budget, Every, Stop
from blora.embedded.learning.muon import shared_out
from blora.embedded.training import judge, vae
from blora.embedded.training.batches import ConditionedBatch, ConditionedBatches
from blora.embedded.training.encoders import read_beside
from blora.embedded.training.unet import (
    BETAS,
    CONTEXT,
    BlockContexts,
    PlacedTokens,
    SideTasks,
    build,
    lookup,
    start_open,
    watch_lookup,
)
from blora.embedded.words.text import TextPair

WEIGHTS = {"denoise": 1.0, "deep": 1.0, "layout": 0.5, "lookup": 0.5}
OUTER = ("unet.conv_in", "unet.conv_out", "unet.time_embedding", "unet.add_embedding", "tokens.", "tasks.")
"""Layers that join no hidden ones, which AdamW trains."""
LOCAL, SETTLED = 0.85, 0.95
"""Shares of attention on the right token from which batches are large, and from which the lookup needs no teaching."""


class Trainee(nn.Module):
    """The UNet with all that is trained beside it, and what a pass needs."""

    def __init__(self, channels: int, side_px: int, text: TextPair, **sizes: object) -> None:
        """An untrained one; `sizes` are those of `unet.build`."""
        super().__init__()
        self.sizes, self.unet = sizes, build(channels, **sizes)
        start_open(self.unet)
        self.tokens, self.tasks = PlacedTokens(CONTEXT), SideTasks(self.unet)
        self.contexts, self.seen = BlockContexts(self.unet), watch_lookup(self.unet)
        self.noise, self.text, self.side_px = DDPMScheduler(**BETAS), text, side_px

    def take(self, folder: Path) -> None:
        """Take the weights of an export."""
        self.unet.load_state_dict(load_file(folder / "model" / "unet" / "diffusion_pytorch_model.safetensors"))
        self.tokens.load_state_dict(read_beside(folder, "tokens."))
        self.tasks.load_state_dict(read_beside(folder, "tasks."))

    def predict(self, x: torch.Tensor, t: torch.Tensor, context: torch.Tensor, pooled: torch.Tensor) -> torch.Tensor:
        """V at the timesteps `t`; while training, half of the pictures say that they have another size and crop."""
        side = self.side_px
        ids = torch.tensor((side, side, 0, 0, side, side), device=x.device, dtype=torch.float32).repeat(len(x), 1)
        if torch.is_grad_enabled():
            other = torch.rand(len(x), 1) < 0.5
            sizes, crops = torch.randint(64, 1025, (len(x), 2)), torch.randint(0, 129, (len(x), 2))
            said = torch.cat([sizes, crops, sizes], 1).float()
            said[:, 4:] = side
            ids = torch.where(other.to(x.device), said.to(x.device), ids)
        self.seen.clear()
        return self.unet(x, t, context, added_cond_kwargs={"text_embeds": pooled, "time_ids": ids}).sample

    def tell(
        self, content: torch.Tensor | None, style: torch.Tensor | None, size: int, prompt: str = ""
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Give the two blocks codes, or nothing; returns context and pooled embedding of the other blocks."""
        context, pooled = self.text([prompt])
        self.contexts.set(
            None if content is None else self.tokens.content(context, content),
            None if style is None else self.tokens.style(context, style),
        )
        return context.expand(size, -1, -1), pooled.expand(size, -1)

    def losses(self, batch: ConditionedBatch, power: float) -> dict[str, torch.Tensor]:
        """The parts of the loss, unweighted.

        References tell nothing that a picture with little noise does not tell better: so t is drawn from the noisy end,
        the more strongly the larger `power`.
        """
        self.contexts.set(batch.content, batch.style)
        size = len(batch.latents)
        eps = torch.randn(batch.latents.shape).to(batch.latents.device)
        t = 999 - (1000 * torch.rand(size) ** power).long().clamp(max=999).to(batch.latents.device)
        noisy, goal = self.noise.add_noise(batch.latents, eps, t), self.noise.get_velocity(batch.latents, eps, t)
        found = self.predict(noisy, t, batch.context, batch.pooled)
        parts = {
            "denoise": F.mse_loss(found.float(), goal),
            "deep": F.mse_loss(self.tasks.deep().float(), batch.latents),
        }
        if batch.placed.any():
            told = self.tasks.layout()[batch.placed].float()
            parts["layout"] = F.mse_loss(told, batch.plain[batch.placed])
        if not batch.worded.all():
            own = torch.stack([lookup(weights)[~batch.worded] for weights in self.seen]).float()
            parts["lookup"] = -(own + 1e-6).log().mean()
            parts["local"] = own.detach().mean()
        return parts


class UnetTraining:
    """A trainee, its optimiser, its batches and its averaged weights; a state that goes on to the bit."""

    def __init__(self, trainee: Trainee, batches: ConditionedBatches, args: argparse.Namespace) -> None:
        """Begin anew."""
        self.trainee, self.batches, self.args = trainee, batches, args
        self.averaged = schedule.Averaged(trainee.parameters(), args.ema)
        self.optimisers = shared_out(trainee.named_parameters(), args.lr, OUTER)
        self.steps = self.seen = 0
        self.means: dict[str, float] = {}

    @property
    def batch(self) -> int:
        """Small until the lookup is learnt, which takes steps and not pictures."""
        return self.args.batch if self.steps > 100 and self.means.get("local", 0) > LOCAL else self.args.first_batch

    @property
    def power(self) -> float:
        """Exponent for the timesteps: 4 for 8,000 pictures, 2.5 after 20,000, 1.5 after 50,000."""
        return float(np.interp(self.seen, [8_000, 20_000, 50_000], [4.0, 2.5, 1.5]))

    def step(self, done: float) -> None:
        """One batch, at the given share of the budget."""
        size = self.batch
        with progress.passes(self.args):
            parts = self.trainee.losses(self.batches.draw(size), self.power)
        weights = WEIGHTS | ({"lookup": 0.0} if self.means.get("local", 0) > SETTLED else {})
        loss = sum(weights[name] * value for name, value in parts.items() if weights.get(name))
        rate = self.args.lr * schedule.flat_then_down(done, self.steps)
        self.trainee.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.trainee.parameters(), 1.0)
        for optimiser in self.optimisers:
            schedule.set_rate(optimiser, rate)
            optimiser.step()
        self.averaged.update(self.steps)
        self.steps, self.seen = self.steps + 1, self.seen + size
        for name, value in parts.items():
            self.means[name] = 0.97 * self.means.get(name, value.item()) + 0.03 * value.item()

    def state(self) -> dict:
        """All that going on needs, the random streams included."""
        return {
            "sizes": self.trainee.sizes,
            "model": self.trainee.state_dict(),
            "averaged": self.averaged.values,
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "steps": self.steps,
            "seen": self.seen,
            "means": self.means,
            "torch_random": torch.get_rng_state(),
            "numpy_random": self.batches.rng.bit_generator.state,
        }

    def start(self, folder: Path, seen: int) -> None:
        """Begin with the weights of an export that has seen so many pictures; the optimisers begin anew."""
        self.trainee.take(folder)
        self.averaged = schedule.Averaged(self.trainee.parameters(), self.args.ema)
        self.seen = seen

    def resume(self, state: dict) -> None:
        """Go on from `state` as if there had been no break."""
        self.trainee.load_state_dict(state["model"])
        self.averaged.load(state["averaged"])
        for optimiser, kept in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(kept)
        self.steps, self.seen, self.means = state["steps"], state["seen"], state["means"]
        torch.set_rng_state(state["torch_random"].cpu())
        self.batches.rng.bit_generator.state = state["numpy_random"]


def train(args: argparse.Namespace) -> None:
    """Spend the budget, with a checkpoint, a line of the log and a sheet every few minutes."""
    torch.manual_seed(args.seed)
    pictures, path, log = Pictures.read(args.data), args.data / "unet.pt", args.data / "unet.jsonl"
    text = TextPair(args.data / "text", args.device)
    trainee = Trainee(vae.CHANNELS, pictures.pixels().shape[1], text).to(args.device)
    batches = ConditionedBatches(pictures, text, trainee.tokens, np.random.default_rng(args.seed), args.device)
    training = UnetTraining(trainee, batches, args)
    before = progress.load(path, args.device)
    if before:
        training.resume(before)
    elif args.start:
        training.start(args.start, args.seen)
    budget = Budget(args.minutes, before["spent"] if before else 0, args.device)
    bench = judge.GainJudge(pictures, batches, args.device)
    saves = Every(args.save_minutes * 60, time.monotonic())
    judged = Every(args.judge_minutes * 60, before["judged"] if before else 0.0)
    count = before["judgements"] if before else 0

    def checkpoint() -> None:
        extra = {"spent": budget.spent, "judged": judged.last, "judgements": count}
        progress.save(path, training.state() | extra)

    def judge_average(drawn: bool) -> None:
        training.averaged.swap()
        found = bench.measure(trainee)
        progress.log(log, kind="judge", seconds=budget.spent, pictures=training.seen, **found)
        if drawn:
            bench.sheet(trainee, args.data / "sheets" / f"{training.seen:08d}.png")
        training.averaged.swap()

    with Stop() as stop:
        while budget.done < 1 and not stop:
            training.step(budget.done)
            if training.steps % 50 == 0:
                now = {"steps": training.steps, "pictures": training.seen, "batch": training.batch}
                progress.log(log, kind="step", seconds=budget.spent, **now, **training.means)
            if judged.due(budget.spent):
                judge_average(drawn=count % 2 == 0)
                count += 1
            if saves.due(time.monotonic()):
                checkpoint()
    if not stop:
        judge_average(drawn=True)
    checkpoint()


def main(given: list[str] | None = None) -> None:
    """Command line."""
    parser = progress.arguments(__doc__, minutes=1200, batch=16, lr=1.2e-3, save_minutes=4)
    parser.add_argument("--first-batch", type=int, default=8, help="until the content block finds its tokens")
    parser.add_argument("--ema", type=float, default=0.998)
    parser.add_argument("--judge-minutes", type=float, default=10, help="as --minutes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=Path, help="folder of an export to begin with, where there is no checkpoint")
    parser.add_argument("--seen", type=int, default=0, help="pictures that it has seen, which set the timesteps")
    args = progress.parsed(parser, given)
    train(args)


if __name__ == "__main__":
    main()
