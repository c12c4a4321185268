"""SDXL at full size with random weights through `blora run` on the CPU: seconds, and the memory that it takes.

    OMP_NUM_THREADS=1 nice python -m tests.benchmarks.whole_run /tmp/whole --layouts fp16 folder file

Two contents by two styles in bf16, two steps of training and two of drawing, at 64 px: what is measured is that a base
of this size comes in, in each layout that its users have, and what it costs; the pictures show noise. Weights are
written and deleted one layout after the other: 7 GB in half precision, 14 as a folder of full ones.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from PIL import Image
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from blora.bases.locate import SDXL_FOLDER
from blora.embedded import MODEL_DIR
from tests.ldm import original_names
from tests.tiny import picture

LAYOUTS: Final = {"folder": torch.float32, "fp16": torch.float16, "file": torch.bfloat16}
"""A folder of full weights as SDXL's authors publish it, one of the fp16 variant alone, and a fine-tune's one file."""

_KINDS: Final[dict[str, tuple[Any, str]]] = {
    "unet": (UNet2DConditionModel, "diffusion_pytorch_model"),
    "vae": (AutoencoderKL, "diffusion_pytorch_model"),
    "text_encoder": (CLIPTextModel, "model"),
    "text_encoder_2": (CLIPTextModelWithProjection, "model"),
}
_NAMES: Final = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
_SETTINGS: Final = {
    "train": {"steps": 2, "resolution_px": 64},
    "sample": {"steps": 2, "width_px": 64, "height_px": 64},
}


def write_model(folder: Path, layout: str) -> Path:
    """Write SDXL with random weights in a layout; returns what a manifest names. Holds no more than a tensor."""
    model = shutil.copytree(SDXL_FOLDER, folder / "model")
    for name in ("tokenizer", "tokenizer_2"):
        shutil.copytree(MODEL_DIR / name, model / name)
    states = {part: _shapes(kind, model / part) for part, (kind, _) in _KINDS.items()}
    if layout == "file":
        shutil.rmtree(model)
        return _write(folder / "model.safetensors", original_names(states), LAYOUTS[layout])
    for part, (_, name) in _KINDS.items():
        variant = ".fp16" if layout == "fp16" else ""
        _write(model / part / f"{name}{variant}.safetensors", states[part], LAYOUTS[layout])
    return model


def _shapes(kind: Any, config: Path) -> Mapping[str, Tensor]:
    """The tensors of a part on the device meta."""
    with torch.device("meta"):
        if hasattr(kind, "config_class"):
            return dict(kind(kind.config_class.from_pretrained(config)).state_dict())
        return dict(kind.from_config(kind.load_config(config)).state_dict())


def _write(path: Path, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> Path:
    header: dict[str, Any] = {}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.numel() * dtype.itemsize
        header[name] = {"dtype": _NAMES[dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    noise = torch.randn(1 << 22, generator=torch.Generator().manual_seed(0)).mul_(0.02).to(dtype)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, tensor in tensors.items():
            for values in _values(name, tensor, noise):
                file.write(values.contiguous().view(torch.uint8).numpy().data)
    return path


def _values(name: str, tensor: Tensor, noise: Tensor) -> Iterator[Tensor]:
    """Random weights, norms that scale by one, no biases."""
    left = tensor.numel()
    if tensor.ndim < 2:
        yield torch.full((max(left, 1),), float(not name.endswith("bias")), dtype=noise.dtype)
        return
    while left > 0:
        yield noise[:left]
        left -= len(noise)


def run(folder: Path, base: Path) -> dict[str, float]:
    """Run a manifest of two by two; seconds, peak of the largest process, and of all together, in GB."""
    for number in range(4):
        Image.fromarray(picture(number, 64, 64)).save(folder / f"{number}.png")
    sides = {
        side: [{"image": f"{number}.png", "name": f"{side}{number}"} for number in numbers]
        for side, numbers in {"contents": (0, 1), "styles": (2, 3)}.items()
    }
    manifest = folder / "whole.json"
    body = {"version": 1, "name": "whole", "base": str(base), "preset": "paper", "settings": _SETTINGS, "grid": True}
    manifest.write_text(json.dumps(body | sides))
    command = [
        sys.executable,
        "-m",
        "flows.cli",
        "run",
        str(manifest),
        "--root",
        str(folder / "store"),
        "--devices",
        "cpu",
    ]
    started = time.monotonic()
    process = subprocess.Popen(command)
    watch = _Watch(process.pid)
    watch.start()
    code = process.wait()
    seconds = time.monotonic() - started
    watch.join()
    pictures = len(list((folder / "store" / "samples").rglob("*.png")))
    if code or pictures != 4:
        raise SystemExit(f"blora run ended with {code} and {pictures} of 4 pictures")
    largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    return {"seconds": seconds, "largest_process_gb": largest / 1e9, "all_processes_gb": watch.peak_bytes / 1e9}


class _Watch(threading.Thread):
    """Looks twice a second at the memory that a process and its descendants hold beside files that are mapped."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.peak_bytes = pid, 0

    def run(self) -> None:
        while Path(f"/proc/{self.pid}/stat").exists():
            self.peak_bytes = max(self.peak_bytes, sum(map(_anonymous_bytes, self._family())))
            time.sleep(0.5)

    def _family(self) -> set[str]:
        parents = {}
        for entry in Path("/proc").iterdir():
            try:
                parents[entry.name] = (entry / "stat").read_text().rpartition(")")[2].split()[1]
            except (OSError, IndexError):
                continue
        family, grown = set(), {str(self.pid)}
        while grown:
            family |= grown
            grown = {pid for pid, parent in parents.items() if parent in grown}
        return family


def _anonymous_bytes(pid: str) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))


def main() -> None:
    """Write, run and delete each layout, and print a line for it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("work", type=Path, help="a folder for weights and stores; must not exist")
    parser.add_argument("--layouts", nargs="+", choices=LAYOUTS, default=list(LAYOUTS))
    given = parser.parse_args()
    for layout in given.layouts:
        folder = given.work / layout
        folder.mkdir(parents=True)
        try:
            base = write_model(folder, layout)
            size = sum(path.stat().st_size for path in folder.rglob("*.safetensors")) / 1e9
            print(json.dumps({"layout": layout, "gb": size, **run(folder, base), "load": os.getloadavg()}), flush=True)
        finally:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
