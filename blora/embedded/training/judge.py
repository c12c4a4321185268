"""How well a UNet under training uses what its blocks are told: errors on fixed triples, and a sheet of pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, EulerDiscreteScheduler
from PIL import Image

from blora.embedded.drawings.pictures import Pictures
from blora.embedded.drawings.references import Triples, judged_triples
from blora.embedded.learning import progress
from blora.embedded.training import vae
from blora.embedded.training.batches import ConditionedBatches
from blora.embedded.training.unet import BETAS

TIMESTEP, SEEN_PX, PART = 985, 64, 16
CONTENTS = ((17, "noto"), (38, "twemoji"), (40, "fluent-flat"), (5, "noto"), (60, "twemoji"), (90, "noto"))
"""Number among its set's drawings and set of each row of a sheet; the last two are things that were trained on."""
TRAINED_ROWS = 2
STYLES = ("noto", "blueprint", "sunset", "openmoji-line", "autumn", "coral", "gold")
"""Looks of a sheet's columns; openmoji-line, autumn and coral were never trained on."""


def denoise(
    noise: torch.Tensor, steps: int, predict: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """Latents out of noise; `predict` gives v of scaled latents at a timestep."""
    scheduler = EulerDiscreteScheduler(**BETAS)
    scheduler.set_timesteps(steps)
    x = noise * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        x = scheduler.step(predict(scheduler.scale_model_input(x, t), t), t, x).prev_sample
    return x


class Told(Protocol):
    """A model that can be told a content and a style."""

    noise: DDPMScheduler

    def tell(
        self, content: torch.Tensor | None, style: torch.Tensor | None, size: int, prompt: str = ""
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Give the two blocks codes, or nothing; returns context and pooled embedding of the other blocks."""

    def predict(self, x: torch.Tensor, t: torch.Tensor, context: torch.Tensor, pooled: torch.Tensor) -> torch.Tensor:
        """V at the timesteps `t`."""


class GainJudge:
    """Fixed triples of things seen and held out, and the VAE that shows what is predicted."""

    def __init__(self, pictures: Pictures, batches: ConditionedBatches, device: str) -> None:
        """Choose the triples and the rows of the sheet."""
        self.pictures, self.batches, self.device = pictures, batches, device
        self.vae = vae.load(pictures.folder, device)
        self.triples = judged_triples(pictures)

    def pixels(self, rows: np.ndarray) -> np.ndarray:
        """The pictures themselves."""
        pixels = self.pictures.pixels()
        return np.stack([pixels[r] for r in rows])

    @torch.no_grad()
    def measure(self, trainee: Told) -> dict[str, float]:
        """x0_*: squared error (of -1..1, at 64 px) of the picture predicted in one step from almost pure noise.

        *_both: content and style told by pictures; *_style: style alone. gain_*: the share of the error that content
        takes away. *_wrong: another picture's content, which must be worse than none.
        """
        out = {}
        for name, rows in self.triples.items():
            for kind in ("both", "style", "wrong"):
                out[f"x0_{name}_{kind}"] = self._error(trainee, rows, kind)
            out[f"gain_{name}"] = 1 - out[f"x0_{name}_both"] / out[f"x0_{name}_style"]
        return out

    def _error(self, trainee: Told, rows: Triples, kind: str) -> float:
        b, errors = self.batches, []
        content = np.roll(rows.content, 1) if kind == "wrong" else rows.content
        noise = torch.randn(len(content), *b.latents.shape[1:], generator=torch.Generator().manual_seed(5))
        for begin in range(0, len(content), PART):
            part = slice(begin, begin + PART)
            x, eps = b.take(b.latents, rows.target[part]), noise[part].to(self.device)
            t = torch.full((len(x),), TIMESTEP, device=self.device)
            noisy, signal = trainee.noise.add_noise(x, eps, t), trainee.noise.alphas_cumprod[TIMESTEP]
            told = None if kind == "style" else b.take(b.content, content[part])
            texts = trainee.tell(told, b.take(b.style, rows.style[part]), len(x), "A [v]")
            v = trainee.predict(noisy, t, *texts)
            found = self.decode(signal.sqrt() * noisy - (1 - signal).sqrt() * v)
            true = vae.to_unit(self.pixels(rows.target[part])).to(self.device)
            seen = (F.adaptive_avg_pool2d(y, SEEN_PX) for y in (found, true))
            errors.append(F.mse_loss(*seen, reduction="none").flatten(1).mean(1))
        return float(torch.cat(errors).mean())

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Pixels in -1..1."""
        scaled = latents / self.vae.config.scaling_factor
        return torch.cat([self.vae.decode(part).sample for part in scaled.split(PART)]).clamp(-1, 1)

    @torch.no_grad()
    def draw(
        self, trainee: Told, content: np.ndarray, style: np.ndarray, guidance: float = 2.0, steps: int = 12
    ) -> torch.Tensor:
        """Latents of all combinations of content rows and style rows, content-major."""
        b, many = self.batches, len(content) * len(style)
        codes = (
            b.take(b.content, content).repeat_interleave(len(style), 0),
            b.take(b.style, style).repeat(len(content), 1, 1),
        )
        noise = torch.randn(many, *b.latents.shape[1:], generator=torch.Generator().manual_seed(0)).to(self.device)

        def guided(scaled: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            told = []
            for begin in range(0, many, PART):
                part = slice(begin, begin + PART)
                size, time = len(scaled[part]), t.to(self.device).expand(len(scaled[part]))
                free = trainee.predict(scaled[part], time, *trainee.tell(None, None, size))
                own = trainee.predict(scaled[part], time, *trainee.tell(codes[0][part], codes[1][part], size))
                told.append(free + guidance * (own - free))
            return torch.cat(told)

        return denoise(noise, steps, guided)

    def sheet_rows(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the data set that a sheet's contents and styles are."""
        p, held = self.pictures, self.pictures.held_out_thing()
        look = {k["name"]: i for i, k in enumerate(p.looks)}
        content = []
        for place, (number, name) in enumerate(CONTENTS):
            trained = place >= len(CONTENTS) - TRAINED_ROWS
            rows = np.flatnonzero((held != trained) & (p.look == look[name]) & p.judged)
            content.append(rows[number % len(rows)])
        columns = [np.flatnonzero((p.look == look[name]) & p.judged) for name in STYLES]
        return np.array(content), np.array([rows[40 % len(rows)] for rows in columns])

    def sheet(self, trainee: Told, path: Path) -> None:
        """Rows share a content reference, columns a style reference; the references lie along the edges."""
        content, style = self.sheet_rows()
        made = vae.to_pixels(self.decode(self.draw(trainee, content, style)))
        made = made.reshape(len(content), len(style), *made.shape[1:])
        shown = self.pixels(content)
        lines = [np.concatenate([np.full_like(shown[:1], 255), self.pixels(style)])]
        lines += [np.concatenate([shown[n : n + 1], line]) for n, line in enumerate(made)]
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(progress.grid(lines)).save(path)
