"""Stage 0: the two encoders that turn a picture into tokens, trained alone with a small decoder that is thrown away.

    python -m blora.embedded.training.encoders --data DIR --minutes 60 [--start FOLDER]
    python -m blora.embedded.training.encoders --data DIR --encode [--start FOLDER]

A small convolutional decoder sees ten times as many pictures in a minute as the UNet and shows sooner what is worth
saying. `--encode` writes what both encoders say of every picture (content.npy, style.npy, float16): from then on they
are frozen, and the UNet's training reads codes in place of running them. `--start` begins with the nets of an export,
or encodes with them, so that both trainings can go on where their checkpoints are lost.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from blora.embedded.drawings.pictures import Pictures
from blora.embedded.drawings.references import TripleSampler, judged_triples
from blora.embedded.learning import progress, schedule
from blora.embedded.learning.muon import shared_out
from blora.embedded.training import vae

BESIDE = Path("training", "beside.safetensors")
"""Where `export` leaves in its folder what was trained beside the UNet, for `--start` of later trainings."""

OUTER = ("content.trunk.0", "style.layers.0", "decoder.out")
"""Layers that latents come in and go out by."""
GRID, CODE, STYLES = 8, 32, 8
"""Content: a code of CODE numbers at each of GRID x GRID places; style: STYLES codes of CODE numbers."""


def _conv(inner: int, outer: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inner, outer, 3, stride, 1), nn.GroupNorm(8, outer), nn.SiLU())


class UnitCodes(nn.Module):
    """Unit deviation over pictures for every number of every code.

    With a layer norm the tokens went all alike: nine tenths of each was the same for every picture, because a constant
    is the easiest way to unit size.
    """

    def __init__(self, codes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(codes * CODE, affine=False, momentum=0.02)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x.flatten(1)).view_as(x)


class ContentEncoder(nn.Module):
    """Latents to GRID x GRID codes, row by row."""

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        layers, width = [_conv(channels, 32, 1)], 32
        while side > GRID:
            layers.append(_conv(width, 2 * width, 2))
            side, width = side // 2, 2 * width
        self.trunk = nn.Sequential(*layers, _conv(width, 128, 1), nn.Conv2d(128, CODE, 3, 1, 1))
        self.unit = UnitCodes(GRID * GRID)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        return self.unit(self.trunk(latents).flatten(2).transpose(1, 2))


class StyleEncoder(nn.Module):
    """Latents to a few codes from pooled statistics, which know no place."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([_conv(channels, 32, 1), _conv(32, 64, 2), _conv(64, 128, 2)])
        statistics = 2 * (channels + 32 + 64 + 128)
        self.head = nn.Sequential(nn.Linear(statistics, 256), nn.SiLU(), nn.Linear(256, STYLES * CODE))
        self.unit = UnitCodes(STYLES)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        maps = [latents]
        for layer in self.layers:
            maps.append(layer(maps[-1]))
        pooled = torch.cat([part for m in maps for part in (m.mean((2, 3)), m.std((2, 3)))], 1)
        return self.unit(self.head(pooled).unflatten(1, (STYLES, CODE)))


class ThrowawayDecoder(nn.Module):
    """Latents from both codes: content laid out in place, style as scale and shift of every channel."""

    def __init__(self, channels: int, side: int, width: int = 128) -> None:
        super().__init__()
        self.enter = nn.Conv2d(CODE, width, 1)
        self.films = nn.ModuleList([nn.Linear(STYLES * CODE, 2 * width) for _ in range(2)])
        self.norms = nn.ModuleList([nn.GroupNorm(8, width, affine=False) for _ in range(2)])
        self.convs = nn.ModuleList([nn.Conv2d(width, width, 3, 1, 1) for _ in range(2)])
        self.grow = nn.Conv2d(width, width // 2 * 4, 1)
        self.last_norm = nn.GroupNorm(8, width // 2, affine=False)
        self.last_film = nn.Linear(STYLES * CODE, width)
        self.last_conv = nn.Conv2d(width // 2, width // 2, 3, 1, 1)
        self.factor = side // (2 * GRID)
        self.out = nn.Conv2d(width // 2, channels * self.factor**2, 3, 1, 1)

    @staticmethod
    def _film(x: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        scale, shift = numbers[:, :, None, None].chunk(2, 1)
        return F.silu(x * (1 + scale) + shift)

    def forward(self, content: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
        style = style.flatten(1)
        x = self.enter(content.transpose(1, 2).unflatten(2, (GRID, GRID)))
        for film, norm, conv in zip(self.films, self.norms, self.convs, strict=True):
            x = x + conv(self._film(norm(x), film(style)))
        x = F.pixel_shuffle(self.grow(x), 2)
        x = x + self.last_conv(self._film(self.last_norm(x), self.last_film(style)))
        return F.pixel_shuffle(self.out(x), self.factor)


def read_beside(folder: Path, prefix: str) -> dict[str, torch.Tensor]:
    """What an export has beside its UNet under names that begin so, without that beginning."""
    kept = load_file(folder / BESIDE)
    return {name.removeprefix(prefix): value for name, value in kept.items() if name.startswith(prefix)}


class EncoderTraining:
    """Both encoders and the decoder that teaches them; latents are read from disk."""

    def __init__(self, pictures: Pictures, args: argparse.Namespace) -> None:
        """Begin anew."""
        torch.manual_seed(args.seed)
        self.latents = np.load(pictures.folder / "latents.npy", mmap_mode="r")
        channels, side = self.latents.shape[1:3]
        self.nets = nn.ModuleDict(
            {
                "content": ContentEncoder(channels, side),
                "style": StyleEncoder(channels),
                "decoder": ThrowawayDecoder(channels, side),
            }
        ).to(args.device)
        self.args, self.pictures, self.steps, self.seen = args, pictures, 0, 0
        encoded = np.array([bool(z.any()) for z in self.latents[:, :, 0, 0]])  # `vae --encode` may still be at work
        self.sampler = TripleSampler(pictures, np.random.default_rng(args.seed), encoded)
        self.fixed = judged_triples(pictures)
        self.optimisers = shared_out(self.nets.named_parameters(), args.lr, OUTER)

    def take(self, rows: np.ndarray) -> torch.Tensor:
        """Latents of some pictures."""
        return torch.from_numpy(np.stack([self.latents[r] for r in rows])).to(self.args.device).float()

    def step(self, done: float) -> float:
        """One batch; returns its squared error of the latents."""
        draw = self.sampler.draw(self.args.batch)
        rate = self.args.lr * schedule.cosine(done, self.steps)
        with progress.passes(self.args):
            codes = self.nets["content"](self.take(draw.content)), self.nets["style"](self.take(draw.style))
            made = self.nets["decoder"](*codes)
        loss = F.mse_loss(made.float(), self.take(draw.target))
        self.nets.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.nets.parameters(), 1.0)
        for optimiser in self.optimisers:
            schedule.set_rate(optimiser, rate)
            optimiser.step()
        self.steps, self.seen = self.steps + 1, self.seen + self.args.batch
        return loss.item()

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """Squared error of the latents on fixed triples, and the same with another picture's content."""
        self.nets.eval()
        out = {}
        for name, rows in self.fixed.items():
            target = self.take(rows.target)
            content, style = self.nets["content"](self.take(rows.content)), self.nets["style"](self.take(rows.style))
            out[name] = float(F.mse_loss(self.nets["decoder"](content, style), target))
            wrong = self.nets["decoder"](content.roll(1, 0), style)
            out[f"{name}_wrong_content"] = float(F.mse_loss(wrong, target))
        self.nets.train()
        return out

    @torch.no_grad()
    def sheet(self) -> np.ndarray:
        """Held-out triples, from above: content reference, style reference, target, what the decoder draws."""
        rows = self.fixed["held_out"]
        content, style, target = rows.content[:12], rows.style[:12], rows.target[:12]
        model, pixels = vae.load(self.pictures.folder, self.args.device), self.pictures.pixels()
        self.nets.eval()
        codes = self.nets["content"](self.take(content)), self.nets["style"](self.take(style))
        made = model.decode(self.nets["decoder"](*codes) / model.config.scaling_factor).sample
        self.nets.train()
        shown = [np.stack([pixels[r] for r in part]) for part in (content, style, target)]
        return progress.grid([*shown, vae.to_pixels(made)])

    def state(self) -> dict[str, Any]:
        """All that going on needs."""
        parts = {"nets": self.nets.state_dict(), "optimisers": [one.state_dict() for one in self.optimisers]}
        return {**parts, "steps": self.steps, "seen": self.seen}

    def start(self, folder: Path) -> None:
        """Take the encoders and the decoder of an export."""
        self.nets.load_state_dict(read_beside(folder, "encoders."))

    def resume(self, state: dict[str, Any]) -> None:
        """Go on from `state`, with another stretch of the random stream."""
        self.nets.load_state_dict(state["nets"])
        for optimiser, kept in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(kept)
        self.steps, self.seen = state["steps"], state["seen"]
        self.sampler.rng = np.random.default_rng((self.args.seed, self.steps))


@torch.no_grad()
def encode(args: argparse.Namespace) -> None:
    """What both encoders say of every picture, in the order of index.npz."""
    pictures = Pictures.read(args.data)
    training = EncoderTraining(pictures, args)
    state = progress.load(args.data / "encoders.pt", args.device)
    if args.start:
        training.start(args.start)
    elif state is None:
        raise SystemExit(f"no encoders.pt in {args.data}: train the encoders first")
    else:
        training.resume(state)
    training.nets.eval()
    for name, codes in (("content", GRID * GRID), ("style", STYLES)):
        part = args.data / f"{name}.part.npy"
        out = np.lib.format.open_memmap(part, "w+", np.float16, (len(pictures), codes, CODE))
        for begin in range(0, len(pictures), 64):
            rows = np.arange(begin, min(begin + 64, len(pictures)))
            out[begin : begin + 64] = training.nets[name](training.take(rows)).cpu().numpy()
        out.flush()
        part.replace(args.data / f"{name}.npy")
    print(f"encoded {len(pictures)} pictures", flush=True)


def main(given: list[str] | None = None) -> None:
    """Command line."""
    parser = progress.arguments(__doc__, minutes=60, batch=16, lr=2e-3, save_minutes=3)
    parser.add_argument("--encode", action="store_true")
    parser.add_argument(
        "--start", type=Path, help="folder of an export to begin with; --encode prefers it to a checkpoint"
    )
    parser.add_argument("--seed", type=int, default=0)
    args = progress.parsed(parser, given)
    if args.encode:
        encode(args)
        return
    training = EncoderTraining(Pictures.read(args.data), args)
    if args.start:
        training.start(args.start)
    progress.spend(training, args.data / "encoders.pt", args.minutes, args.save_minutes, args.device)


if __name__ == "__main__":
    main()
