"""CLIP as a judge, through open_clip: one embedding for pictures and texts, and no way to load a wrong one quietly.

CLIP has a single embedding, so its content and its style feature are the same: similarity to the style image is high
for a picture in its style and highest for a copy of it (LoRA.rar). Read both sides together.
"""

from __future__ import annotations

import difflib
import hashlib
import os.path
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from blora.errors import ScorerError
from blora.metrics.lite0 import Features

__all__ = ["ClipEncoder", "load_clip"]


class ClipEncoder:
    """A CLIP model with the preprocessing and the tokenizer that it was trained with."""

    def __init__(
        self,
        model: nn.Module,
        preprocess: Callable[[Image.Image], Tensor],
        tokenizer: Callable[[list[str]], Tensor],
        name: str,
        version: str,
        device: str = "cpu",
        *,
        short_name: str = "clip",
    ) -> None:
        """Keep the model in evaluation mode on the device; name and version go into every row."""
        self.name, self.version, self.short_name = name, version, short_name
        self._model: Any = model.eval().to(device)
        self._preprocess, self._tokenizer = preprocess, tokenizer
        self._device = device

    @torch.inference_mode()
    def extract(self, pictures: Sequence[NDArray[np.uint8]]) -> Features:
        """Embed RGB pictures (height, width, 3): both features are the unit-length embedding (pictures, c)."""
        batch = torch.stack([self._preprocess(Image.fromarray(picture)) for picture in pictures])
        embeddings = _unit(self._model.encode_image(batch.to(self._device)))
        return Features(content=embeddings, style=embeddings)

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Unit-length embeddings of texts (texts, c) on the CPU; what exceeds the model's context is cut off."""
        return _unit(self._model.encode_text(self._tokenizer(list(texts)).to(self._device)))


def load_clip(architecture: str, pretrained: str, device: str = "cpu") -> ClipEncoder:
    """Load the embedded CLIP, or one of open_clip's architectures with a pretrained tag or a file of weights.

    A file of weights does not say which activation it was trained with: name the "-quickgelu" architecture for
    weights that stem from OpenAI's. For tags open_clip knows, and a mismatch is refused before anything is fetched.

    Args:
        architecture: "embedded", or a name such as "ViT-L-14-quickgelu".
        pretrained: A tag such as "openai", or the path of a file; empty with "embedded".
        device: Where the model runs.

    Raises:
        ScorerError: Unknown names, a QuickGELU mismatch, weights that do not fit, or a hub that does not answer.
    """
    if architecture == "embedded":
        from blora.embedded import REVISION  # the embedded model's own package; needed only here
        from blora.embedded.clip import load_embedded_clip

        model, preprocess, tokenizer = load_embedded_clip()
        return ClipEncoder(model, preprocess, tokenizer, "embedded-clip", REVISION[:12], device)
    import open_clip

    pretrained = os.path.expanduser(pretrained)
    _check_names(architecture, pretrained)
    try:
        model, preprocess = open_clip.create_model_from_pretrained(architecture, pretrained=pretrained)
        tokenizer = open_clip.get_tokenizer(architecture)
    except Exception as error:
        raise ScorerError(
            "open_clip could not load this model",
            received=f"{architecture} with {pretrained}: {error}",
            accepted="weights of that architecture, in reach",
            where="score.clip_pretrained",
            hint="check the connection for a tag, and that architecture and weights belong together for a file",
        ) from error
    file = Path(pretrained)
    weights = f"{file.name}-{_sha256(file)[:12]}" if file.is_file() else pretrained
    return ClipEncoder(
        model, preprocess, tokenizer, f"{architecture}/{weights}", f"open_clip {open_clip.__version__}", device
    )


def _check_names(architecture: str, pretrained: str) -> None:
    """Refuse unknown names, and weights trained with another activation than the architecture computes."""
    import open_clip

    known = open_clip.list_models()
    if architecture not in known:
        near = difflib.get_close_matches(architecture, known, n=3)
        raise ScorerError(
            "unknown CLIP architecture",
            received=architecture,
            accepted='"embedded" or one of open_clip.list_models()',
            where="score.clip_model",
            hint=f"did you mean {', '.join(near)}?" if near else "see open_clip.list_models()",
        )
    tag = open_clip.get_pretrained_cfg(architecture, pretrained)
    if not tag:
        if not Path(pretrained).is_file():
            tags = ", ".join(open_clip.list_pretrained_tags_by_model(architecture)) or "none"
            raise ScorerError(
                "neither a pretrained tag of this architecture nor a file",
                received=pretrained,
                accepted=f"a file, or a tag: {tags}",
                where="score.clip_pretrained",
                hint="correct the tag or the path",
            )
        return
    computes = bool(open_clip.get_model_config(architecture).get("quick_gelu", False))
    trained = bool(tag.get("quick_gelu", False))
    if computes != trained:
        other = architecture.removesuffix("-quickgelu") + ("-quickgelu" if trained else "")
        raise ScorerError(
            "QuickGELU mismatch: these weights were trained with the other activation, every score would be off",
            received=f"{architecture} (QuickGELU {_on(computes)}) with {pretrained} (QuickGELU {_on(trained)})",
            accepted="an architecture and a tag that agree",
            where="score.clip_model",
            hint=f"use {other}" if other in known else "choose other weights",
        )


def _on(flag: bool) -> str:
    return "on" if flag else "off"


def _unit(embeddings: Tensor) -> Tensor:
    return nn.functional.normalize(embeddings.float(), dim=-1).cpu()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
