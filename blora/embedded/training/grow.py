"""Widen a trained checkpoint without changing what it says, so that a longer training does not begin anew.

    python -m blora.embedded.training.grow --data DIR --part vae|unet

Every channel that a level gains is a copy of one it had, and whoever reads the copies splits the old weight between
them at random, so that copies part ways in training. Only two norms, over a mixture of levels that grow and levels that
do not, see other groups than before. Moments of the optimiser are not carried over.

Source: Chen et al. 2016 (Net2Net, arXiv 1511.05641), with the groups of GroupNorm and the scale of attention minded.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import torch
from torch import Tensor, nn

from blora.embedded.training.common import save

Segments = list[tuple[int, int]]
"""Runs of channels that lie side by side: how many there were, how many there are."""


def grow(old: dict[str, Tensor], new: nn.Module, mixed: dict[str, Segments], seed: int = 0) -> dict[str, Tensor]:
    """State of the wider model.

    Args:
        old: State of the narrow one.
        new: The wide one, for its shapes; every size is a multiple of the old one except where `mixed` says.
        mixed: By a pattern for the names of weights, what the channels they read are made of.
        seed: Of the random shares.
    """
    lot, state = torch.Generator().manual_seed(seed), {}
    for name, wide in new.state_dict().items():
        value = old[name].clone()
        runs = next((runs for pattern, runs in mixed.items() if re.fullmatch(pattern, name)), None)
        if value.dim() == 1:
            state[name] = _copied(value, 0, runs or [(value.shape[0], wide.shape[0])])
            continue
        value = _copied(value, 0, [(value.shape[0], wide.shape[0])])
        state[name] = _split(value, runs or [(value.shape[1], wide.shape[1])], lot)
    return state


def _copied(value: Tensor, dim: int, runs: Segments) -> Tensor:
    parts = value.split([had for had, _ in runs], dim)
    return torch.cat(
        [part.repeat_interleave(has // had, dim) for part, (had, has) in zip(parts, runs, strict=True)], dim
    )


def _split(value: Tensor, runs: Segments, lot: torch.Generator) -> Tensor:
    """Copies along the second dimension, with shares that sum to one."""
    parts = []
    for part, (had, has) in zip(value.split([had for had, _ in runs], 1), runs, strict=True):
        copies = has // had
        wide = part.repeat_interleave(copies, 1)
        if copies > 1:
            share = 1 + 0.5 * (torch.rand(len(part), had, copies, generator=lot) - 0.5)
            share = (share / share.sum(2, keepdim=True)).reshape(len(part), has, *[1] * (part.dim() - 2))
            wide = wide * share
        parts.append(wide)
    return torch.cat(parts, 1)


def grow_unet(old: dict[str, Tensor], narrow: tuple[int, ...], new: nn.Module) -> dict[str, Tensor]:
    """The UNet with wider outer levels; the innermost keeps its width."""
    wide, inner = new.config.block_out_channels, narrow[-1]
    skip = [(inner, inner), (narrow[1], wide[1])]
    mixed = {
        rf"up_blocks\.{block}\.resnets\.{n}\.(norm1\..*|conv1\.weight|conv_shortcut\.weight)": skip
        for block, n in ((0, 2), (1, 0))
    }
    first = "time_embedding.linear_1.weight"
    state = grow({**old, first: _between(old[first])}, new, mixed)
    for name in state:
        if re.fullmatch(r".*attn[12]\.to_q\.weight", name) and state[name].shape[0] > old[name].shape[0]:
            state[name] *= (old[name].shape[0] / state[name].shape[0]) ** 0.5  # heads are wider, scores are not
    return state


def _between(weight: Tensor) -> Tensor:
    """Columns for twice the frequencies of the timestep: the old ones are every second of the new."""
    wide = torch.zeros(len(weight), 2, weight.shape[1] // 2, 2)
    wide[..., 0] = weight.unflatten(1, (2, -1))
    return wide.flatten(1)


def main() -> None:
    from blora.embedded.training import unet, vae

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--part", choices=("vae", "unet"), required=True)
    args = parser.parse_args()
    path = args.data / f"{args.part}.pt"
    state = torch.load(path, map_location="cpu", weights_only=True)
    if args.part == "vae":
        state["model"] = grow(state["model"], vae.build(state["channels"]), {})
        save(path, {**state, "optimiser": None, "spent": 0.0})
        return
    new = unet.build(state["weights"][0].shape[1])
    names = [name for name, _ in new.named_parameters()]
    narrow = tuple(
        state["weights"][names.index(f"down_blocks.{level}.resnets.0.conv1.bias")].shape[0] for level in range(3)
    )
    for key in ("weights", "ema"):
        own, others = state[key][: len(names)], state[key][len(names) :]
        grown = grow_unet(dict(zip(names, own, strict=True)), narrow, new)
        state[key] = [grown[name] for name in names] + others
    save(path, {**state, "optimiser": None, "spent": 0.0})


if __name__ == "__main__":
    main()
