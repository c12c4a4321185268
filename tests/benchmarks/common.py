"""What the benchmarks of the library share: their command line, and what they say of themselves beside the figures."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from blora.models.model import Base
from blora.settings.presets import Settings
from blora.settings.resolve import resolve


def parser_of(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options that every benchmark of the library has."""
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument("--base", default="embedded", help="base model: embedded, a folder, org/model@revision")
    parser.add_argument("--preset", default="demo", help="settings to start from")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="e.g. train.resolution_px=256")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=0, help="of torch on a CPU; 0 leaves its choice")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    return parser


def settings_of(given: argparse.Namespace, fixed: Mapping[str, Any]) -> Settings:
    """Resolve preset, the user's overrides and what the benchmark itself fixes; sets torch's threads on the way."""
    if given.threads:
        torch.set_num_threads(given.threads)
    overrides = {name: json.loads(value) for name, value in (pair.split("=", 1) for pair in given.set)}
    return resolve(given.preset, {**overrides, **fixed})


def write_figures(given: argparse.Namespace, base: Base, figures: Mapping[str, Any]) -> None:
    """Write figures with what they were measured on, if the user named a file."""
    if given.json:
        about = {"base": given.base, "revision": base.revision, "device": given.device, "torch": torch.__version__}
        about["threads"] = torch.get_num_threads()
        given.json.write_text(json.dumps({**about, **figures}, indent=2))


@contextmanager
def convolutions(*, tf32: bool) -> Iterator[None]:
    """While the context is open, cuDNN's convolutions of fp32 numbers keep ten bits of them (TF32), or all 23.

    Ten is torch's own choice and the product's; products of matrices keep all in both. On a CPU nothing changes.
    """
    kept, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, tf32
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = kept
