"""Vision transformers as judges: CSD for style, DINOv2 for the subject, CLIP's large ones for pictures and texts.

    kind                    network                          content feature       style feature        pictures
    csd                     CLIP ViT-L/14, two heads         content head (768)    style head (768)     224 px
    dinov2-small|base|large ViT-S, -B, -L/14                 CLS token (384, 768, 1024), for both       256, middle 224
    clip-l14                CLIP ViT-L/14, OpenAI            embedding (768), for both; texts           224 px
    clip-bigg14             CLIP ViT-bigG/14, LAION-2B       embedding (1280), for both; texts          224 px

Pictures are resized (bicubic, antialiased) so that the shorter side has that length, and the middle square is kept.
`content_dinov2_*` is what the field calls the DINO score; CSD's content head was trained to hold what its style head
shall not, and is no measure of likeness by itself. A network is built empty and takes the tensors of the file as they
are mapped into memory, so that nothing is drawn by lot first; a file that does not fit is refused by name and shape.

Source: CSD arXiv 2404.01292 and learn2phoenix/CSD (preprocessing of its loss_utils.py, heads of its model.py); DINOv2
arXiv 2304.07193 and facebookresearch/dinov2 (data/transforms.py, evaluation), in transformers' layout; CLIP and its
preprocessing as open_clip configures them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision import transforms

from blora.errors import ScorerError
from blora.metrics.clip import ClipEncoder
from blora.metrics.lite0 import Features
from blora.metrics.weights import Weights

__all__ = ["CLIP", "CSD_TOWER", "DINOV2", "Encoder", "load_encoder"]

INPUT_PX: Final = 224
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

DINOV2: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "dinov2-small": {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6},
        "dinov2-base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12},
        "dinov2-large": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16},
    }
)
"""What the published configurations differ in; all have patches of 14 px and positions for 518 px."""

CSD_TOWER: Final[Mapping[str, Any]] = MappingProxyType({"width": 1024, "layers": 24, "heads": 16, "output_dim": 768})
"""CLIP ViT-L/14's picture tower, whose projection CSD replaces by two."""

CLIP: Final[Mapping[str, str]] = MappingProxyType({"clip-l14": "ViT-L-14-quickgelu", "clip-bigg14": "ViT-bigG-14"})
"""open_clip's architectures; OpenAI's weights were trained with QuickGELU, LAION's with GELU."""

Heads = Callable[[Tensor], tuple[Tensor, Tensor]]
"""From prepared pictures (n, 3, 224, 224) to a content and a style feature each, of any length."""


class Encoder:
    """A network that turns pictures into a content and a style feature; see the table above."""

    def __init__(self, name: str, version: str, prepare: Callable[[Image.Image], Tensor], heads: Heads, device: str):
        """Keep the network's function; it must run on the device."""
        self.name, self.version = name, version
        self.short_name = name.replace("-", "_")
        self._prepare, self._heads, self._device = prepare, heads, device

    @torch.inference_mode()
    def extract(self, pictures: Sequence[NDArray[np.uint8]]) -> Features:
        """Content and style features of RGB pictures (height, width, 3) of any sizes."""
        batch = torch.stack([self._prepare(Image.fromarray(picture)) for picture in pictures])
        content, style = self._heads(batch.to(self._device))
        return Features(content=_unit(content), style=_unit(style))


def load_encoder(kind: str, weights: Weights, device: str = "cpu") -> Encoder | ClipEncoder:
    """Build a network and give it its weights, in fp32.

    Args:
        kind: A key of `blora.settings.scorer_spec.PUBLISHED`.
        weights: Found and checked by `blora.metrics.weights.locate_weights`.
        device: Where it runs.

    Raises:
        ScorerError: The file is no safetensors, or holds other tensors than the network has.
    """
    tensors = _read(kind, weights.path)
    version = weights.version
    if kind in CLIP:
        return _clip(kind, version, tensors, device)
    if kind in DINOV2:
        return Encoder(
            kind, version, _preparation(256, IMAGENET_MEAN, IMAGENET_STD), _dinov2(kind, tensors, device), device
        )
    return Encoder(kind, version, _preparation(INPUT_PX, CLIP_MEAN, CLIP_STD), _csd(tensors, device), device)


def _dinov2(kind: str, tensors: dict[str, Tensor], device: str) -> Heads:
    from transformers import Dinov2Config, Dinov2Model

    with torch.device("meta"):
        network = Dinov2Model(Dinov2Config(image_size=518, patch_size=14, **DINOV2[kind]))
    model = _filled(network, tensors, kind, device)

    def heads(pictures: Tensor) -> tuple[Tensor, Tensor]:
        cls = model(pixel_values=pictures).last_hidden_state[:, 0]
        return cls, cls

    return heads


def _csd(tensors: dict[str, Tensor], device: str) -> Heads:
    from open_clip.transformer import QuickGELU, VisionTransformer

    plain = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    with torch.device("meta"):
        tower = VisionTransformer(image_size=INPUT_PX, patch_size=14, mlp_ratio=4.0, act_layer=QuickGELU, **CSD_TOWER)
        width, length = tower.proj.shape
        tower.proj = None
        network = nn.Module()
        network.backbone = tower
        network.last_layer_content = nn.Parameter(torch.empty(width, length))
        network.last_layer_style = nn.Parameter(torch.empty(width, length))
    model = _filled(network, plain, "csd", device)

    def heads(pictures: Tensor) -> tuple[Tensor, Tensor]:
        hidden = model.backbone(pictures)
        return hidden @ model.last_layer_content, hidden @ model.last_layer_style

    return heads


def _clip(kind: str, version: str, tensors: dict[str, Tensor], device: str) -> ClipEncoder:
    import open_clip

    architecture = CLIP[kind]
    with torch.device("meta"):
        network = open_clip.CLIP(**open_clip.get_model_config(architecture))
    # Not a weight, so no file has it: each token sees itself and those before it.
    length = network.context_length
    network.attn_mask = torch.full((length, length), float("-inf")).triu(1)
    model = _filled(network, tensors, kind, device)
    prepare = _preparation(INPUT_PX, CLIP_MEAN, CLIP_STD)
    return ClipEncoder(
        model, prepare, open_clip.get_tokenizer(architecture), kind, version, device, short_name=kind.replace("-", "_")
    )


def _preparation(side_px: int, mean: Sequence[float], std: Sequence[float]) -> Callable[[Image.Image], Tensor]:
    """From a picture to (3, 224, 224): shorter side to `side_px`, middle square of 224, colours centred and scaled."""
    prepare: Callable[[Image.Image], Tensor] = transforms.Compose(
        [
            transforms.Resize(side_px, transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(INPUT_PX),
            transforms.ToTensor(),
            transforms.Normalize(mean, std),
        ]
    )
    return prepare


def _read(kind: str, path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        hint = "fetch or convert it again"
        raise ScorerError(
            "unreadable weights", f"{path.name}: {error}", "a whole safetensors file", f"scorer {kind}", hint
        ) from error


def _filled(network: nn.Module, tensors: Mapping[str, Tensor], kind: str, device: str) -> Any:
    """Give an empty network the tensors of a file, all of them and no others, as fp32 on the device.

    Raises:
        ScorerError: A tensor is missing, has another shape, or belongs to another network.
    """
    wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    faults = [f"{name} is missing" for name in wanted if name not in shapes]
    faults += [f"{name} is unknown" for name in shapes if name not in wanted]
    faults += [
        f"{name} has shape {shapes[name]} instead of {shape}"
        for name, shape in wanted.items()
        if shapes.get(name, shape) != shape
    ]
    if faults:
        shown = "; ".join(faults[:3]) + (f"; and {len(faults) - 3} more" if len(faults) > 3 else "")
        raise ScorerError(
            "these weights are of another network",
            shown,
            f"the {len(wanted)} tensors of {kind}",
            f"scorer {kind}",
            "name the scorer that they belong to, or other weights",
        )
    network.load_state_dict(dict(tensors), assign=True)
    return network.float().requires_grad_(False).eval().to(device)


def _unit(features: Tensor) -> Tensor:
    return nn.functional.normalize(features.float(), dim=-1).cpu()
