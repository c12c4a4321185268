"""A data set of a few drawings, as the trainings of the embedded model find it after the steps before the UNet."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from blora.embedded import MODEL_DIR
from blora.embedded.training import encoders, vae
from blora.embedded.words import text

THINGS, LOOKS, SIDE = 6, 4, 128


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six things, two held out, each in four looks: flat colours with a square whose place is the thing's.

    The last look is another hand's, who drew nothing else.
    """
    folder = tmp_path_factory.mktemp("built")
    thing, look = (x.ravel() for x in np.mgrid[0:THINGS, 0:LOOKS])
    every, hand = np.ones(len(thing), bool), look == LOOKS - 1
    columns = {"geometry": thing + THINGS * hand, "placing": thing, "native": (look == 0) | hand, "judged": every}
    np.savez(folder / "index.npz", thing=thing, look=look, **columns)
    things = [
        {"code": str(i), "name": f"thing {i}", "category": "", "held_out": i >= THINGS - 2} for i in range(THINGS)
    ]
    looks = [{"name": f"look {i}", "words": f"hue {i}" if i < 3 else "", "held_out": False} for i in range(LOOKS)]
    (folder / "things.json").write_text(json.dumps(things))
    (folder / "looks.json").write_text(json.dumps(looks))
    pixels = np.empty((len(thing), SIDE, SIDE, 3), np.uint8)
    for row, (c, k) in enumerate(zip(thing, look, strict=True)):
        pixels[row] = (60 * k, 255 - 60 * k, 128)
        top = 16 * c
        pixels[row, top : top + 32, top : top + 32] = 255
    np.save(folder / "pictures.npy", pixels)
    return folder


@pytest.fixture(scope="session")
def prepared(built: Path) -> Path:
    """The same with latents by the shipped VAE, codes by untrained encoders, and the shipped text encoders."""
    torch.manual_seed(0)
    vae.main(["--data", str(built), "--start", str(MODEL_DIR / "vae"), "--minutes", "0", "--device", "cpu"])
    vae.main(["--data", str(built), "--encode", "--device", "cpu"])
    encoders.main(["--data", str(built), "--minutes", "0.01", "--batch", "4", "--device", "cpu"])
    encoders.main(["--data", str(built), "--encode", "--device", "cpu"])
    text.main(["--data", str(built), "--start", str(MODEL_DIR)])
    return built
