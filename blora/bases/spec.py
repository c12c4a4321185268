"""What a base model is asked for by: one place, or a place with an autoencoder of its own and LoRAs fused into it.

    embedded                                              the small model shipped with the package
    sdxl, sdxl+fp16vae, sdxl+lightning8                   what `KNOWN` says, each at fixed commits
    org/model@<40 hex digits>                             a repository of the hub in diffusers' layout
    org/model@<40 hex digits>/juggernaut.safetensors      one file of a repository
    ./folder, ./juggernaut.safetensors[#sha256:<64 hex>]  on this machine, and where buckets are known: s3://...

Several parts are one JSON object: ``{"model": "sdxl", "vae": PLACE, "fuse": [{"lora": PLACE, "weight": 1}]}``, which is
also how a manifest writes it. ``"quantize": "nf4"`` in it keeps the denoiser's weights in few bits; ``"rest": PLACE``
is where a file with FLUX's transformer alone gets everything else from. Imports no torch.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any, Final, Literal, get_args

from blora.bases.places import hub_place
from blora.errors import BaseModelError

__all__ = [
    "BACKENDS",
    "KNOWN",
    "SDXL_COMMIT",
    "BaseSpec",
    "Fused",
    "Quantization",
    "parse_base",
    "require_backend",
]

Quantization = Literal["nf4", "int8", "fp8"]
"""What a weight is kept in: 4-bit NormalFloat (QLoRA, arXiv 2305.14314), 8-bit integers, or 8-bit floats (e4m3)."""

BACKENDS: Final[Mapping[Quantization, str]] = MappingProxyType(
    {"nf4": "bitsandbytes", "int8": "torchao", "fp8": "torchao"}
)
"""The package that knows each of them; all come with the extra ``quantize``."""

SDXL_COMMIT: Final = "462165984030d82259a11f4367a4eed129e94a7b"
_SDXL: Final = f"stabilityai/stable-diffusion-xl-base-1.0@{SDXL_COMMIT}"
_FP16_VAE: Final = "madebyollin/sdxl-vae-fp16-fix@207b116dae70ace3637169f1ddd2434b91b3a8cd"
_LIGHTNING: Final = (
    "ByteDance/SDXL-Lightning@c9a24f48e1c025556787b0c58dd67a091ece2e44/sdxl_lightning_8step_lora.safetensors"
)
_FORM: Final = (
    '{"model": PLACE, "vae": PLACE, "fuse": [{"lora": PLACE, "weight": 1}], "quantize": "nf4", "rest": PLACE}'
)


@dataclass(frozen=True)
class Fused:
    """A LoRA that is added to the UNet's weights for good.

    Attributes:
        lora: Where its file lies.
        weight: Factor of its update.
    """

    lora: str
    weight: float = 1.0


@dataclass(frozen=True)
class BaseSpec:
    """The parts of a base.

    Attributes:
        model: Where the model lies.
        vae: Where an autoencoder lies that takes the place of the model's own; empty for the model's own.
        fuse: LoRAs that are part of the base: what makes few steps enough.
        quantize: What the weights of the denoiser's blocks are kept in; empty for the run's own precision.
        rest: Where a model that is one file with a transformer alone gets the other parts, and its configuration: a
            model in diffusers' layout.
    """

    model: str
    vae: str = ""
    fuse: tuple[Fused, ...] = ()
    quantize: Quantization | Literal[""] = ""
    rest: str = ""

    @property
    def is_plain(self) -> bool:
        """Whether the model alone says it all."""
        return not (self.vae or self.fuse or self.quantize or self.rest)

    @property
    def told_by(self) -> str:
        """The place whose configuration says how the model is built."""
        return self.rest or self.model

    @property
    def places(self) -> tuple[str, ...]:
        """Where its parts lie."""
        return tuple(place for place in (self.model, self.vae, self.rest, *(one.lora for one in self.fuse)) if place)

    @property
    def text(self) -> str:
        """The spec in one line; equal parts have equal texts."""
        if self.is_plain:
            return self.model
        parts: dict[str, Any] = {"model": self.model}
        if self.vae:
            parts["vae"] = self.vae
        if self.fuse:
            parts["fuse"] = [{"lora": one.lora, "weight": one.weight} for one in self.fuse]
        if self.quantize:
            parts["quantize"] = self.quantize
        if self.rest:
            parts["rest"] = self.rest
        return json.dumps(parts, ensure_ascii=False)

    def below(self, folder: str) -> BaseSpec:
        """The same with its relative paths taken from a folder, where there is such a file or folder."""

        def absolute(place: str) -> str:
            path = os.path.join(folder, place)
            is_there = bool(place) and place != "embedded" and os.path.exists(path.partition("#sha256:")[0])
            return path if is_there else place

        fuse = tuple(Fused(absolute(one.lora), one.weight) for one in self.fuse)
        return BaseSpec(absolute(self.model), absolute(self.vae), fuse, self.quantize, absolute(self.rest))

    @property
    def label(self) -> str:
        """What others may be shown: no folders of this machine."""
        fused = [f"{_last(one.lora)} x {one.weight:g}" for one in self.fuse]
        whole = " + ".join([_last(self.model), *([_last(self.vae)] if self.vae else []), *fused])
        return f"{whole} in {self.quantize}" if self.quantize else whole


KNOWN: Final = MappingProxyType(
    {
        "sdxl": BaseSpec(_SDXL),
        "sdxl+fp16vae": BaseSpec(_SDXL, _FP16_VAE),
        "sdxl+lightning8": BaseSpec(_SDXL, fuse=(Fused(_LIGHTNING),)),
    }
)
"""Names that stand for fixed commits of the hub."""


def parse_base(spec: str | os.PathLike[str] | BaseSpec) -> BaseSpec:
    """Read a spec; names in `KNOWN` are spelled out, also as the model of several parts.

    Raises:
        BaseModelError: It is an object of another form.
    """
    if isinstance(spec, BaseSpec):
        return spec
    text = os.path.expanduser(spec)
    if not text.lstrip().startswith("{"):
        return KNOWN.get(text, BaseSpec(text))
    try:
        parts = json.loads(text)
        fuse = tuple(map(_fused, parts.pop("fuse", ())))
        model, vae = _place(parts.pop("model")), _place(parts.pop("vae", ""))
        quantize, rest = _quantization(parts.pop("quantize", "")), _place(parts.pop("rest", ""))
        if parts:
            raise ValueError(f"unknown: {', '.join(parts)}")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BaseModelError("unreadable base model", f"{text[:200]} ({error!r})", _FORM, hint="correct it") from error
    known = KNOWN.get(model, BaseSpec(model))
    return BaseSpec(known.model, vae or known.vae, (*known.fuse, *fuse), quantize, rest)


def require_backend(quantize: Quantization | Literal[""], where: str) -> None:
    """Refuse a quantisation whose package this machine lacks; nothing is imported.

    Raises:
        BaseModelError: It is not installed.
    """
    if quantize and find_spec(package := BACKENDS[quantize]) is None:
        hint = f"pip install {package}, or the extra quantize of blora-pipeline; or leave quantize out"
        raise BaseModelError(f"quantize {quantize} needs a package", "it is not installed", package, where, hint)


def _fused(said: Mapping[str, object]) -> Fused:
    if unknown := said.keys() - {"lora", "weight"}:
        raise ValueError(f"unknown: {', '.join(unknown)}")
    return Fused(_place(said["lora"]), _weight(said.get("weight", 1.0)))


def _place(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no place")
    return os.path.expanduser(value)


def _quantization(value: object) -> Quantization | Literal[""]:
    for known in get_args(Quantization):
        if value == known:
            return known
    if value:
        raise ValueError(f"quantize {value!r}, not {', '.join(get_args(Quantization))}")
    return ""


def _weight(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not -10 <= value <= 10:
        raise ValueError(f"weight {value!r}, not a number from -10 to 10")
    return float(value)


def _last(place: str) -> str:
    """A place without the folders of this machine; of a repository the whole name."""
    bare = place.partition("#")[0]
    return bare if "://" in bare or hub_place(bare) else bare.rstrip("/").rpartition("/")[2]
