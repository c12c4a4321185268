"""How the larger scorers are asked for, and the weights that are published for them. No torch.

A scorer is named in one line, ``KIND`` or ``KIND=SOURCE``, either with a checksum ``#sha256:<64 hex digits>``:

    csd                                        the published weights, at a fixed commit and with a fixed checksum
    csd=./csd.safetensors                      a file, or a folder that holds it
    dinov2-base=org/model@<40 hex digits>      a hub repository at one commit
    clip-l14=s3://bucket/clip#sha256:9ce2...   a bucket's file or folder (in runs; the library reads folders)

Only safetensors are read: a pickle can run code when it is opened.

Checksums were taken from public listings of the hub (no file was fetched for it). CSD's authors publish a pickle
(``tomg-group-umd/CSD-ViT-L``); the safetensors are the half-precision copy of ``yuxi-liu-wired/CSD``. blora/README.md
has the command that converts the authors' own file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from blora.errors import ScorerError

__all__ = [
    "ACCEPTED_SOURCES",
    "PICKLES",
    "PUBLISHED",
    "WEIGHTS_SUFFIX",
    "Published",
    "ScorerSpec",
    "parse_scorer",
    "pickled",
]

_CHECKSUM: Final = re.compile(r"sha256:[0-9a-f]{64}")
WEIGHTS_SUFFIX: Final = ".safetensors"
PICKLES: Final = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".tar")
ACCEPTED_SOURCES: Final = (
    "a .safetensors file, a folder that holds one, org/model@<40 hex digits of a commit>, or s3://..."
)


@dataclass(frozen=True)
class Published:
    """Weights as they are published: files that a repository may keep them in, best first, and their checksum."""

    repo: str
    revision: str
    files: tuple[str, ...]
    sha256: str


PUBLISHED: Final[Mapping[str, Published]] = MappingProxyType(
    {
        "csd": Published(
            "yuxi-liu-wired/CSD",
            "cd2dac3ad9398e42906127bc44988a6de47abe68",
            ("model.safetensors",),
            "02d842ed2536e1f883fc832cd1566d0e6c569457979f878379e382e04b2bda84",
        ),
        "dinov2-small": Published(
            "facebook/dinov2-small",
            "ed25f3a31f01632728cabb09d1542f84ab7b0056",
            ("model.safetensors",),
            "ae1e99fcefd534ed978cdeb8326f08030c96e28b7a81ffcbc98a857c84d14be1",
        ),
        "dinov2-base": Published(
            "facebook/dinov2-base",
            "f9e44c814b77203eaa57a6bdbbd535f21ede1415",
            ("model.safetensors",),
            "d73036b56966966d07975d696bde331762f37297e2f095de8cea0040c3aa0841",
        ),
        "dinov2-large": Published(
            "facebook/dinov2-large",
            "47b73eefe95e8d44ec3623f8890bd894b6ea2d6c",
            ("model.safetensors",),
            "399fba97a95f22c36834418bc69373364a99af3a1153da1c0fb31db567c92e23",
        ),
        "clip-l14": Published(
            "timm/vit_large_patch14_clip_224.openai",
            "18d0535469bb561bf468d76c1d73aa35156c922b",
            ("open_clip_model.safetensors",),
            "9ce2e8a8ebfff3793d7d375ad6d3c35cb9aebf3de7ace0fc7308accab7cd207e",
        ),
        "clip-bigg14": Published(
            "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k",
            "743c27bd53dfe508a0ade0f50698f99b39d03bec",
            ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors"),
            "db71bd27925917762c506c1b8a08e191d236e5586b5cd99f77d11aced578ec34",
        ),
    }
)
"""By kind of scorer, in the order in which they are listed."""


@dataclass(frozen=True)
class ScorerSpec:
    """A scorer as it was asked for.

    Attributes:
        kind: A key of `PUBLISHED`; the name that stands beside its scores.
        source: A file, folder, hub repository or bucket; empty for the published weights.
        sha256: What the weights must hash to; empty where nobody says it.
    """

    kind: str
    source: str
    sha256: str

    @property
    def identity(self) -> tuple[str, str]:
        """What fixes its scores: kind and checksum, or the source where no checksum is known."""
        return self.kind, f"sha256:{self.sha256}" if self.sha256 else self.source


def parse_scorer(text: str) -> ScorerSpec:
    """Read a line such as ``csd`` or ``dinov2-base=./weights#sha256:...``.

    Raises:
        ScorerError: An unknown kind, a checksum that is none, or a source of another kind.
    """
    named, marked, checksum = text.strip().partition("#")
    kind, given, source = (part.strip() for part in named.partition("="))
    if kind not in PUBLISHED:
        raise ScorerError("unknown scorer", repr(kind), ", ".join(PUBLISHED), "score.scorers")
    if given and not source:
        raise ScorerError("a scorer without its source", repr(text), ACCEPTED_SOURCES, f"scorer {kind}")
    if marked and not _CHECKSUM.fullmatch(checksum.strip()):
        raise ScorerError("not a checksum", repr(checksum), "sha256: and 64 hex digits after the #", f"scorer {kind}")
    if Path(source).suffix in PICKLES:
        raise pickled(kind, source)
    digest = checksum.strip().removeprefix("sha256:")
    return ScorerSpec(kind, source, digest or ("" if source else PUBLISHED[kind].sha256))


def pickled(kind: str, source: str) -> ScorerError:
    """What to say of weights that may hold a pickle."""
    hint = "convert it once with torch.load(..., weights_only=True) and safetensors, as blora/README.md shows"
    return ScorerError(
        "weights that are not safetensors are not read", source, ACCEPTED_SOURCES, f"scorer {kind}", hint
    )
