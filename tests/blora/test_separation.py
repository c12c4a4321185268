"""What the method is for, on the embedded model: the thing of one picture in the look of another."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from blora.models.model import load_base
from blora.sampling.draw import Draw
from blora.sampling.sample import sample
from blora.settings.resolve import resolve
from blora.training.from_files import train_images
from blora.training.photos import read_pixels

PICTURES = Path(__file__).parents[2] / "manifests" / "examples" / "pictures"
CONTENTS, STYLES = ("owl", "saxophone"), ("sunset", "blueprint")


def paper_of(picture: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Colour of the paper: the median of the picture's edge, (3,) in 0..255."""
    edge = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
    return np.asarray(np.median(edge, axis=0), dtype=np.float64)


def figure_of(picture: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Where something stands out from the paper, whatever its colour: (256,), mean 0 and deviation 1."""
    small = np.asarray(Image.fromarray(picture).resize((16, 16), Image.Resampling.BOX), dtype=np.float64)
    apart = np.linalg.norm(small - paper_of(picture), axis=2).ravel()
    return np.asarray((apart - apart.mean()) / apart.std())


@pytest.mark.slow
def test_things_come_from_the_content_half_and_papers_from_the_style_half() -> None:
    settings = resolve("demo", {"train.steps": 60})  # of the preset's 100: enough for this
    base = load_base("embedded")
    files = [PICTURES / f"{name}.png" for name in (*CONTENTS, *STYLES)]
    adapters = dict(zip((*CONTENTS, *STYLES), train_images(base, files, settings.train, progress=False), strict=True))
    cells = [(content, style) for content in CONTENTS for style in STYLES]
    draws = [Draw(adapters[content], adapters[style], "A [c]", seed=0) for content, style in cells]
    references = {path.stem: read_pixels(path) for path in files}
    for (content, style), picture in zip(cells, sample(base, draws, settings.sample), strict=True):
        alike = {name: float(np.mean(figure_of(picture) * figure_of(references[name]))) for name in CONTENTS}
        away = {name: float(np.linalg.norm(paper_of(picture) - paper_of(references[name]))) for name in STYLES}
        assert max(alike, key=alike.__getitem__) == content, (content, style, alike)
        assert alike[content] > 0.5, (content, style, alike)
        assert min(away, key=away.__getitem__) == style, (content, style, away)
