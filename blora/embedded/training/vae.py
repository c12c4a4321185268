"""Train the small AutoencoderKL (factor 4) and encode every picture with it.

    python -m blora.embedded.training.vae --data DIR --minutes 14
    python -m blora.embedded.training.vae --data DIR --encode

Trains on crops (it is fully convolutional and has no attention, so crops lose nothing and cost a quarter) and ends on
whole pictures. `--encode` writes latents.npy (fp16, already scaled) for the UNet, which then never touches pixels.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from diffusers.models.resnet import ResnetBlock2D

from blora.embedded.training.common import SIDE_PX, Budget, Pictures, learning_rate, save, to_unit


def build(channels: int = 4) -> AutoencoderKL:
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 64),
        layers_per_block=1,
        norm_num_groups=1,
        latent_channels=channels,
        sample_size=SIDE_PX,
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
    """The trained model, with its scaling and shift set."""
    state = torch.load(data / "vae.pt", map_location=device, weights_only=True)
    vae = build(state["channels"]).to(device)
    vae.load_state_dict(state["model"])
    vae.register_to_config(scaling_factor=state["scaling_factor"])
    return vae.eval().requires_grad_(False)


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    """Mean over pictures, of pixels in -1..1."""
    error = ((a - b.clamp(-1, 1)) ** 2).flatten(1).mean(1)
    return float((10 * torch.log10(4 / error)).mean())


@torch.no_grad()
def measure(vae: AutoencoderKL, pictures: Pictures, device: str, count: int = 256) -> tuple[float, float]:
    """PSNR on held-out things in known looks, and standard deviation of the latents."""
    rows = np.flatnonzero(pictures.held_out_thing() & ~pictures.held_out_look())
    rows = np.sort(np.random.default_rng(0).choice(rows, count, replace=False))
    x = to_unit(pictures.pixels()[rows]).to(device)
    z = torch.cat([vae.encode(part).latent_dist.mode() for part in x.split(64)])
    y = torch.cat([vae.decode(part).sample for part in z.split(64)])
    return psnr(x, y), float(z.std())


def train(args: argparse.Namespace) -> None:
    pictures = Pictures.read(args.data)
    rows, pixels = pictures.for_training(), pictures.pixels()
    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    vae = build(args.channels).to(args.device)
    if args.decoder_only:
        for part in (vae.encoder, vae.quant_conv):
            part.requires_grad_(False)
    tuned = [q for q in vae.parameters() if q.requires_grad]
    optimiser = torch.optim.AdamW(tuned, lr=args.lr, betas=(0.9, 0.99), weight_decay=1e-4)
    path, step, seen, budget = args.data / "vae.pt", 0, 0, Budget(args.minutes)
    if args.resume and path.exists():
        state = torch.load(path, map_location=args.device, weights_only=True)
        vae.load_state_dict(state["model"])
        step, seen = state["step"], state["seen"]
        if not args.decoder_only and state["optimiser"]:  # a model that has just grown brings none
            optimiser.load_state_dict(state["optimiser"])
            budget = Budget(args.minutes, state["spent"])

    def checkpoint() -> None:
        score, deviation = measure(vae, pictures, args.device)
        if args.decoder_only:  # the latents on disk were scaled by the first value
            deviation = 1 / state["scaling_factor"]
        save(
            path,
            {
                "model": vae.state_dict(),
                "optimiser": optimiser.state_dict(),
                "step": step,
                "seen": seen,
                "spent": budget.spent,
                "channels": args.channels,
                "scaling_factor": 1 / deviation,
                "psnr": score,
            },
        )
        print(
            f"step {step} crops {seen} minutes {budget.spent / 60:.1f} psnr {score:.2f} latent std {deviation:.3f}",
            flush=True,
        )

    while budget.done < 1:
        whole = budget.done > 0.9
        batch = args.batch // 4 if whole else args.batch
        chosen = np.sort(rng.choice(rows, batch, replace=False))
        x = to_unit(pixels[chosen]).to(args.device)
        if not whole:
            top, left = rng.integers(0, SIDE_PX // 2 + 1, 2)
            x = x[:, :, top : top + SIDE_PX // 2, left : left + SIDE_PX // 2]
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(args.lr, budget.done, step)
        with torch.set_grad_enabled(not args.decoder_only):
            posterior = vae.encode(x).latent_dist
        y = vae.decode(posterior.sample()).sample
        loss = F.l1_loss(y, x) + 2 * F.mse_loss(y, x) + 1e-6 * posterior.kl().mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(tuned, 1.0)
        optimiser.step()
        step, seen = step + 1, seen + batch
        if step % args.every == 0:
            checkpoint()
    checkpoint()


@torch.no_grad()
def encode(args: argparse.Namespace) -> None:
    """Latents of all pictures, scaled to unit deviation, in the order of index.npz."""
    vae, pixels = load(args.data, args.device), Pictures.read(args.data).pixels()
    parts = range(len(pixels) * args.part // args.parts, len(pixels) * (args.part + 1) // args.parts)
    path, shape = args.data / "latents.npy", (len(pixels), vae.config.latent_channels, SIDE_PX // 4, SIDE_PX // 4)
    if not path.exists():
        np.lib.format.open_memmap(path, "w+", np.float16, shape).flush()
    latents = np.lib.format.open_memmap(path, "r+")
    for begin in range(parts.start, parts.stop, 64):
        rows = slice(begin, min(begin + 64, parts.stop))
        x = to_unit(pixels[rows]).to(args.device)
        latents[rows] = (vae.encode(x).latent_dist.mode() * vae.config.scaling_factor).cpu().numpy()
    latents.flush()
    print(f"encoded {len(parts)} pictures", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--encode", action="store_true")
    parser.add_argument("--minutes", type=float, default=14)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--channels", type=int, default=8)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--every", type=int, default=500, help="steps between checkpoints")
    parser.add_argument("--part", type=int, default=0)
    parser.add_argument("--parts", type=int, default=1, help="split --encode over this many processes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--decoder-only", action="store_true", help="with --resume: keep the latents as they are")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    encode(args) if args.encode else train(args)


if __name__ == "__main__":
    main()
