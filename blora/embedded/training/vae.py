"""Train the small AutoencoderKL (factor 4), and encode every picture with it.

    python -m blora.embedded.training.vae --data DIR --minutes 14 [--start FOLDER]
    python -m blora.embedded.training.vae --data DIR --encode
    python -m blora.embedded.training.vae --data DIR --minutes 28 --decoder-only

Trains on crops (it is fully convolutional and has no attention, so crops lose nothing and cost a fifth) and ends on
whole pictures; goes on from DIR/vae.pt if that exists. `--start` begins with the weights of a diffusers folder.
`--encode` writes latents.npy (float16, already scaled): what comes after never touches pixels, and from then on only
the decoder may be trained further.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from diffusers.models.resnet import ResnetBlock2D

from blora.embedded.drawings.pictures import Pictures
from blora.embedded.drawings.references import judged_triples
from blora.embedded.learning import progress, schedule

CHANNELS, FACTOR = 8, 4


def build(side: int = 128, channels: int = CHANNELS) -> AutoencoderKL:
    """The untrained model, which starts as a nearly linear code."""
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 64),
        layers_per_block=1,
        norm_num_groups=1,
        latent_channels=channels,
        sample_size=side,
        mid_block_add_attention=False,
        force_upcast=False,
    )
    _start_linear(vae)
    return vae


@torch.no_grad()
def _start_linear(vae: AutoencoderKL, loud: float = 8.0) -> None:
    """Begin as a nearly linear code, which a few thousand small crops can then improve.

    From the usual beginning this model was at 20.2 dB after 14,000 crops, where a linear code of four numbers a patch
    has 24.4: each picture's own scale is lost in the last group norm, and the network has to find a way round it. Here
    every residual branch starts at zero, and the last norm sees each signal with both signs next to two constants of
    far greater size: so its scale is fixed, and silu(x) - silu(-x) = x makes the rest linear.
    """
    for part in (vae.encoder, vae.decoder):
        for module in part.modules():
            if isinstance(module, ResnetBlock2D):
                module.conv2.weight.zero_()
                module.conv2.bias.zero_()
    for part, last, signals in (
        (vae.encoder, vae.encoder.down_blocks[-1].resnets[-1].conv_shortcut, 15),
        (vae.decoder, vae.decoder.up_blocks[-1].resnets[0].conv_shortcut, 3),
    ):
        width = last.weight.shape[0]
        last.weight[signals : 2 * signals] = -last.weight[:signals]
        last.weight[2 * signals :] = 0
        last.bias.zero_()
        last.bias[2 * signals : 2 * signals + 2] = torch.tensor([loud, -loud])
        scale = loud * (2 / width) ** 0.5
        part.conv_out.weight.mul_(0.1)
        part.conv_out.bias.zero_()
        out = min(part.conv_out.weight.shape[0], signals)
        mix = torch.eye(signals)[:out] if signals == 3 else torch.nn.init.orthogonal_(torch.empty(out, signals))
        centre = part.conv_out.weight[:out, :, 1, 1]
        centre[:, :signals], centre[:, signals : 2 * signals] = mix * scale, -mix * scale
    moments = vae.quant_conv.weight
    moments[moments.shape[0] // 2 :] *= 0.01
    vae.quant_conv.bias[moments.shape[0] // 2 :] = -6


def load(data: Path, device: str = "cpu") -> AutoencoderKL:
    """The trained model, with its scaling set, in eval mode."""
    state = torch.load(data / "vae.pt", map_location=device, weights_only=True)
    vae = build().to(device)
    vae.load_state_dict(state["model"])
    vae.register_to_config(scaling_factor=state["scaling_factor"])
    return vae.eval().requires_grad_(False)


def to_unit(pixels: np.ndarray) -> torch.Tensor:
    """Pixels uint8 (N, H, W, 3) as float (N, 3, H, W) in -1..1."""
    return torch.from_numpy(np.array(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_pixels(x: torch.Tensor) -> np.ndarray:
    """The way back, clipped."""
    return ((x.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    """Mean over pictures, of pixels in -1..1."""
    error = ((a - b.clamp(-1, 1)) ** 2).flatten(1).mean(1)
    return float((10 * torch.log10(4 / error)).mean())


class VaeTraining:
    """The model, its optimiser and the draws of crops."""

    def __init__(self, pictures: Pictures, args: argparse.Namespace) -> None:
        """Begin anew, or with the weights of `args.start`."""
        torch.manual_seed(args.seed)
        self.pixels, self.rows = pictures.pixels(), pictures.for_training()
        self.rng = np.random.default_rng(args.seed)
        side = self.pixels.shape[1]
        self.vae = AutoencoderKL.from_pretrained(args.start).float() if args.start else build(side)
        self.vae.to(args.device).train()
        if args.decoder_only:
            for part in (self.vae.encoder, self.vae.quant_conv):
                part.requires_grad_(False)
        self.trained = [q for q in self.vae.parameters() if q.requires_grad]
        self.args, self.steps, self.seen = args, 0, 0
        self.scaling_factor = self.vae.config.scaling_factor if args.start else 1.0
        self.optimiser = torch.optim.AdamW(self.trained, lr=args.lr, betas=(0.9, 0.99), weight_decay=1e-4)
        held = np.flatnonzero(pictures.held_out_thing() & ~pictures.held_out_look())
        self.held = np.sort(np.random.default_rng(0).choice(held, min(64, len(held)), replace=False))

    def step(self, done: float) -> float:
        """One batch; returns its loss."""
        args, side = self.args, self.pixels.shape[1]
        whole = done > 0.85
        batch, crop = (max(1, args.batch // 4), side) if whole else (args.batch, args.crop)
        chosen = np.sort(self.rng.choice(self.rows, batch, replace=False))
        top, left = self.rng.integers(0, side - crop + 1, 2)
        x = to_unit(self.pixels[chosen, top : top + crop, left : left + crop]).to(args.device)
        schedule.set_rate(self.optimiser, args.lr * schedule.cosine(done, self.steps))
        posterior = self.vae.encode(x).latent_dist
        y = self.vae.decode(posterior.sample()).sample
        loss = F.l1_loss(y, x) + 2 * F.mse_loss(y, x) + 1e-6 * posterior.kl().mean()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimiser.step()
        self.steps, self.seen = self.steps + 1, self.seen + batch
        return loss.item()

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """PSNR on held-out things in known looks, also with noise on the latents, and the latents' deviation."""
        x = to_unit(self.pixels[self.held]).to(self.args.device)
        self.vae.eval()
        z = torch.cat([self.vae.encode(part).latent_dist.mode() for part in x.split(16)])
        noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(0)).to(z.device)
        shaken = z + 0.2 * z.std((0, 2, 3), keepdim=True) * noise
        clean, rough = (torch.cat([self.vae.decode(q).sample for q in code.split(16)]) for code in (z, shaken))
        self.vae.train()
        is_as_it_was = self.args.decoder_only or (self.args.start and not self.steps)
        if not is_as_it_was:  # else latents on disk, and a UNet to go on with, know them scaled by the first value
            self.scaling_factor = 1 / float(z.std())
        return {"psnr": psnr(x, clean), "psnr_with_noise": psnr(x, rough), "deviation": float(z.std())}

    @torch.no_grad()
    def sheet(self) -> np.ndarray:
        """Held-out pictures above what comes back."""
        true = self.pixels[self.held[:12]]
        self.vae.eval()
        back = self.vae.decode(self.vae.encode(to_unit(true).to(self.args.device)).latent_dist.mode()).sample
        self.vae.train()
        return progress.grid([true, to_pixels(back)])

    def state(self) -> dict[str, Any]:
        """All that going on needs, and the scaling by the last measurement."""
        return {
            "model": self.vae.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "steps": self.steps,
            "seen": self.seen,
            "scaling_factor": self.scaling_factor,
        }

    def resume(self, state: dict[str, Any]) -> None:
        """Go on from `state`, with another stretch of the random stream."""
        self.vae.load_state_dict(state["model"])
        if len(state["optimiser"]["param_groups"][0]["params"]) == len(self.trained):
            self.optimiser.load_state_dict(state["optimiser"])
        self.steps, self.seen, self.scaling_factor = state["steps"], state["seen"], state["scaling_factor"]
        self.rng = np.random.default_rng((self.args.seed, self.steps))
        torch.manual_seed(self.args.seed + self.steps)


@torch.no_grad()
def encode(args: argparse.Namespace) -> None:
    """Latents of all pictures, scaled to unit deviation, in the order of index.npz; what trainings need comes first.

    Pictures that have their latents are left as they are. With `args.half` in bfloat16, which differs by half a
    hundredth of a deviation from float32. It is 3.4 times as fast on a CPU with AMX, and on one without it a sixth as
    fast. Batches are small, so that they stay in the CPU's cache.
    """
    pictures = Pictures.read(args.data)
    number = torch.bfloat16 if args.half else torch.float32
    vae, pixels = load(args.data, args.device).to(number, memory_format=torch.channels_last), pictures.pixels()
    side, path = pixels.shape[1] // FACTOR, args.data / "latents.npy"
    if not path.exists():
        np.lib.format.open_memmap(path, "w+", np.float16, (len(pixels), CHANNELS, side, side)).flush()
    latents = np.lib.format.open_memmap(path, "r+")
    judged = judged_triples(pictures).values()
    first = [*(rows for t in judged for rows in (t.target, t.content, t.style)), pictures.for_training()]
    order = np.concatenate([*first, np.arange(len(pixels))])
    order = order[np.sort(np.unique(order, return_index=True)[1])]
    order = order[~latents[:, :, 0, 0].any(1)[order]][args.part :: args.parts]
    for begin in range(0, len(order), 8):
        rows = np.sort(order[begin : begin + 8])
        x = to_unit(pixels[rows]).to(args.device, number, memory_format=torch.channels_last)
        latents[rows] = (vae.encode(x).latent_dist.mode().float() * vae.config.scaling_factor).cpu().numpy()
        if begin % 800 == 0:
            print(f"encoded {begin} of {len(order)}", flush=True)
    latents.flush()


def main(given: list[str] | None = None) -> None:
    """Command line."""
    parser = progress.arguments(__doc__, minutes=14, batch=16, lr=3e-3, save_minutes=2)
    parser.add_argument("--encode", action="store_true")
    parser.add_argument("--start", type=Path, help="folder of a diffusers AutoencoderKL to begin with")
    parser.add_argument("--decoder-only", action="store_true", help="keep the latents as they are")
    parser.add_argument("--crop", type=int, default=48)
    parser.add_argument("--part", type=int, default=0)
    parser.add_argument("--parts", type=int, default=1, help="split --encode over this many processes")
    parser.add_argument("--seed", type=int, default=0)
    args = progress.parsed(parser, given)
    if args.encode:
        encode(args)
        return
    training = VaeTraining(Pictures.read(args.data), args)
    progress.spend(training, args.data / "vae.pt", args.minutes, args.save_minutes, args.device)


if __name__ == "__main__":
    main()
