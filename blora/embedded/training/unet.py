"""Train the small UNet.

    python -m blora.embedded.training.unet --data DIR --minutes 80 --threads 1 --helpers 1

Needs latents.npy, and in DIR/text the tokenizers and text encoders (`export --text`). Resumes from DIR/unet.pt by
itself. Every few minutes it writes a checkpoint (with averaged weights) and a sheet of pictures whose rows share a
content reference and whose columns share a style reference, some of both never trained on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, EulerDiscreteScheduler, UNet2DConditionModel
from PIL import Image

from blora.embedded.training import clip as words_of
from blora.embedded.training.common import SIDE_PX, Budget, Pictures, learning_rate, save, to_unit
from blora.embedded.training.helper import Helpers
from blora.embedded.training.references import (
    IMAGE,
    WORDS,
    BlockContexts,
    ContentEncoder,
    LayoutTask,
    Sampler,
    SharedContext,
    StyleEncoder,
    draw_kinds,
)
from blora.embedded.training.text import TextPair
from blora.embedded.training.vae import load as load_vae

CONTEXT, SIZE = 128, SIDE_PX
BETAS = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
}
TIME_IDS = (SIZE, SIZE, 0, 0, SIZE, SIZE)


def build(channels: int = 4) -> UNet2DConditionModel:
    """SDXL's block names and conditioning; narrow outside, deep in up_blocks.0."""
    return UNet2DConditionModel(
        sample_size=SIDE_PX // 4,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=(64, 96, 128),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DCrossAttn",
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=(1, 1, 2),
        transformer_layers_per_block=[1, 1, 1],
        reverse_transformer_layers_per_block=[[3, 3, 1], 1, 1],
        attention_head_dim=(1, 2, 4),
        norm_num_groups=8,
        use_linear_projection=True,
        cross_attention_dim=CONTEXT,
        addition_embed_type="text_time",
        addition_time_embed_dim=16,
        projection_class_embeddings_input_dim=64 + 6 * 16,
    )


class Trainee(torch.nn.Module):
    """The UNet, its two reference encoders, and everything a step needs."""

    def __init__(self, data: Path, seed: int, device: str) -> None:
        super().__init__()
        pictures = Pictures.read(data)
        self.latents = np.load(data / "latents.npy", mmap_mode="r")
        self.unet = build(self.latents.shape[1])
        if device == "cpu":
            self.unet.set_attn_processor(SharedContext())
        self.content = ContentEncoder(self.latents.shape[1], CONTEXT)
        self.style = StyleEncoder(self.latents.shape[1], CONTEXT)
        self.layout = LayoutTask(self.unet, pictures, self.latents.shape)
        self.contexts = BlockContexts(self.unet)
        self.text = TextPair(data / "text", device)
        self.noise = DDPMScheduler(**BETAS)
        self.pictures, self.device = pictures, device
        self.rng = np.random.default_rng(seed)
        self.sampler = Sampler(pictures, self.rng)
        self.to(device)

    def trained(self) -> list[torch.nn.Parameter]:
        """Everything with a gradient; the UNet first."""
        return [q for part in (self.unet, self.content, self.style, self.layout) for q in part.parameters()]

    def take(self, rows: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.stack([self.latents[r] for r in rows])).to(self.device).float()

    def neutral(self) -> str:
        """What the other blocks read when the two are told something of their own."""
        number = self.rng.integers(100)
        return str(
            self.rng.choice(
                ["", "A [v]", f"A [v{number}]", "A [c] in [s] style", "A [c]"], p=[0.4, 0.25, 0.1, 0.15, 0.1]
            )
        )

    def conditions(self, size: int) -> tuple[str, np.ndarray, torch.Tensor, torch.Tensor]:
        """Kind, target rows, common context and pooled embedding of one batch; the hooks hold the two own contexts."""
        rng, p = self.rng, self.pictures
        kinds = draw_kinds(rng)
        draw = self.sampler.draw(size, worded=kinds is None or WORDS in kinds)
        things = [p.things[c]["name"] for c in p.thing[draw.target]]
        looks = [p.looks[k]["words"] for k in p.look[draw.target]]
        if kinds is None:
            texts = [words_of.caption(thing, look, rng) for thing, look in zip(things, looks, strict=True)]
            self.contexts.set(None, None)
            return "caption", draw.target, *self.text(texts)
        context, pooled = self.text([self.neutral()])
        context, pooled = context.expand(size, -1, -1), pooled.expand(size, -1)
        sides: list[torch.Tensor | None] = [None, None]
        if kinds[0] == IMAGE:
            sides[0] = self.content(self.take(draw.content))
        elif kinds[0] == WORDS:
            sides[0] = self.text([words_of.thing_caption(thing, rng) for thing in things])[0]
        if kinds[1] == IMAGE:
            sides[1] = self.style(self.take(draw.style))
        elif kinds[1] == WORDS:
            sides[1] = self.text([words_of.look_caption(look, rng) for look in looks])[0]
        self.contexts.set(*sides)
        return "/".join(kinds), draw.target, context, pooled

    def predict(self, x: torch.Tensor, t: torch.Tensor, context: torch.Tensor, pooled: torch.Tensor) -> torch.Tensor:
        ids = torch.tensor(TIME_IDS, device=x.device, dtype=torch.float32).repeat(len(x), 1)
        if torch.is_grad_enabled():  # pictures come in all sizes and crops; here that must mean nothing
            other = torch.rand(len(x), 1, device=x.device) < 0.5
            ids[:, :2] = torch.where(other, torch.randint(64, 1025, (len(x), 2), device=x.device).float(), ids[:, :2])
            ids[:, 2:4] = torch.where(other, torch.randint(0, 129, (len(x), 2), device=x.device).float(), ids[:, 2:4])
        return self.unet(x, t, context, added_cond_kwargs={"text_embeds": pooled, "time_ids": ids}).sample

    def loss(self, size: int) -> tuple[str, torch.Tensor]:
        """Kind of the batch drawn and its loss: squared error of v, and how well the content block knows the layout.

        The references tell nothing that a picture with little noise does not tell better: measured after 75,000
        pictures with t uniform, style tokens lowered the loss by 29 % at t = 999, by 5 % at 850 and not at all below
        750, content tokens nowhere. So t is drawn from the noisy end, with density rising towards 999.
        """
        with torch.autocast(self.device.split(":")[0], torch.bfloat16):
            kind, rows, context, pooled = self.conditions(size)
            x = self.take(rows)
            eps, t = (
                torch.randn_like(x),
                999 - (1000 * torch.rand(size, device=self.device) ** 2.5).long().clamp(max=999),
            )
            noisy, goal = self.noise.add_noise(x, eps, t), self.noise.get_velocity(x, eps, t)
            found = self.predict(noisy, t, context, pooled)
        loss = F.mse_loss(found.float(), goal)
        if kind.startswith(IMAGE):
            loss = loss + self.layout.loss(self.take(self.layout.plain(rows)))
        return kind, loss

    @torch.no_grad()
    def draw(self, content: np.ndarray, style: np.ndarray, guidance: float = 2.5, steps: int = 12) -> torch.Tensor:
        """Latents of all combinations of content rows and style rows, from image tokens, content-major."""
        many = len(content) * len(style)
        own = (
            self.content(self.take(content)).repeat_interleave(len(style), 0),
            self.style(self.take(style)).repeat(len(content), 1, 1),
        )
        context, pooled = self.text([""])
        context, pooled = context.expand(many, -1, -1), pooled.expand(many, -1)
        scheduler = EulerDiscreteScheduler(**BETAS)
        scheduler.set_timesteps(steps)
        x = torch.randn(many, *self.latents.shape[1:], generator=torch.Generator().manual_seed(0)).to(self.device)
        x = x * scheduler.init_noise_sigma
        for t in scheduler.timesteps:
            scaled, time = scheduler.scale_model_input(x, t), t.to(self.device).expand(many)
            self.contexts.set(None, None)
            free = self.predict(scaled, time, context, pooled)
            self.contexts.set(*own)
            told = self.predict(scaled, time, context, pooled)
            x = scheduler.step(free + guidance * (told - free), t, x).prev_sample
        return x


@torch.no_grad()
def sheet(trainee: Trainee, path: Path) -> None:
    """Rows share a content reference, columns a style reference; the references lie along the edges."""
    p = trainee.pictures
    held = p.held_out_thing()
    name = {k["name"]: i for i, k in enumerate(p.looks)}
    content = np.concatenate(
        [
            np.flatnonzero(held & (p.look == name[k]))[n::97][:1]
            for n, k in ((17, "noto"), (38, "twemoji"), (40, "fluent-flat"), (88, "openmoji"), (5, "noto"))
        ]
    )
    style = np.concatenate(
        [
            np.flatnonzero(p.look == name[k])[40:41]
            for k in ("noto", "blueprint", "sunset", "openmoji-line", "autumn", "coral", "random-7")
        ]
    )
    vae, pixels = load_vae(path.parent, trainee.device), p.pixels()
    z = trainee.draw(content, style) / vae.config.scaling_factor
    made = (torch.cat([vae.decode(part).sample for part in z.split(16)]).clamp(-1, 1) + 1) * 127.5
    made = made.byte().permute(0, 2, 3, 1).cpu().numpy().reshape(len(content), len(style), SIZE, SIZE, 3)

    def shown(rows: np.ndarray) -> np.ndarray:
        return ((to_unit(pixels[rows]) + 1) * 127.5).byte().permute(0, 2, 3, 1).numpy()

    top = np.concatenate([np.full((1, SIZE, SIZE, 3), 255, np.uint8), shown(style)])
    rows = [top] + [np.concatenate([shown(content[n : n + 1]), line]) for n, line in enumerate(made)]
    Image.fromarray(np.concatenate([np.concatenate(list(r), 1) for r in rows], 0)).save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=80, help="the whole budget, which the cosine ends with")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=1.2e-3)
    parser.add_argument("--ema", type=float, default=0.998)
    parser.add_argument("--save-minutes", type=float, default=4)
    parser.add_argument("--sheet-every", type=int, default=2, help="checkpoints between sheets of pictures")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--helpers", type=int, default=0, help="CPU only: low-priority processes that add gradients")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    trainee = Trainee(args.data, args.seed, args.device)
    trained = trainee.trained()
    optimiser = torch.optim.AdamW(trained, lr=args.lr, betas=(0.9, 0.99), weight_decay=0.01)
    path, step, seen, budget = args.data / "unet.pt", 0, 0, Budget(args.minutes)
    if path.exists():
        state = torch.load(path, map_location=args.device, weights_only=True)
        for q, value in zip(trained, state["weights"], strict=True):
            q.data.copy_(value)
        if state["optimiser"]:  # a model that has just grown brings none
            optimiser.load_state_dict(state["optimiser"])
        step, seen, budget = state["step"], state["seen"], Budget(args.minutes, state["spent"])
        buffers = [b for part in (trainee.content, trainee.style) for b in part.buffers()]
        for b, value in zip(buffers, state["norms"], strict=True):
            b.copy_(value)
        # Another stretch of the random stream, not the first one over again.
        trainee.rng.bit_generator.state = np.random.default_rng((args.seed, step)).bit_generator.state
        torch.manual_seed(args.seed + step)
    mean = [q.detach().clone() for q in trained] if step == 0 else [v.clone() for v in state["ema"]]
    helpers = Helpers(trainee, trained, args.helpers, args.batch, args.data)
    losses: dict[str, float] = {}
    saved, saves = budget.spent, 0
    while budget.done < 1:
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(args.lr, budget.done, step)
        kind, loss = trainee.loss(args.batch)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        seen += args.batch * (1 + helpers.add(trained))
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        step += 1
        keep = min(args.ema, (1 + step) / (10 + step))
        torch._foreach_lerp_(mean, [q.detach() for q in trained], 1 - keep)
        losses[kind] = loss.item() if kind not in losses else 0.95 * losses[kind] + 0.05 * loss.item()
        if step % 50 == 0:
            text = " ".join(f"{k}={v:.4f}" for k, v in sorted(losses.items()))
            print(f"step {step} pictures {seen} minutes {budget.spent / 60:.1f} {text}", flush=True)
        if budget.spent - saved > args.save_minutes * 60 or budget.done >= 1:
            saved = budget.spent
            save(
                path,
                {
                    "weights": [q.detach() for q in trained],
                    "ema": mean,
                    "optimiser": optimiser.state_dict(),
                    "step": step,
                    "seen": seen,
                    "spent": budget.spent,
                    "losses": losses,
                    "norms": [b.clone() for part in (trainee.content, trainee.style) for b in part.buffers()],
                },
            )
            saves += 1
            if saves % args.sheet_every == 0:
                now = [q.detach().clone() for q in trained]
                with torch.no_grad():
                    torch._foreach_copy_([q.data for q in trained], mean)
                    sheet(trainee, args.data / f"sheet_{step:06d}.png")
                    torch._foreach_copy_([q.data for q in trained], now)
    helpers.stop()


if __name__ == "__main__":
    main()
