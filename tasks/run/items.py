"""What a plan asks for: adapters to train, and pictures to draw from one, several or none of them a side."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, get_args

from blora.adapters.blocks import Half
from blora.sampling.colour_transfer import RECIPE as COLOUR_RECIPE
from manifests import ids, layout


@dataclass(frozen=True)
class PlannedAdapter:
    """One training: the photos of one object (one image, usually) and what people call it; or a finished adapter.

    `prompt` is what it is trained with where that is not the settings' prompt, such as "A [v] dog". A finished one has
    no images, and the address that it was brought in from under `source_file`.
    """

    adapter_id: str
    name: str
    word: str
    image_ids: tuple[str, ...]
    prompt: str = ""
    source_file: str = ""

    @property
    def is_finished(self) -> bool:
        """Whether it came as a file, and is not trained."""
        return not self.image_ids


@dataclass(frozen=True)
class SidePart:
    """One adapter of a side of a picture; its weight counts before the strength of the side."""

    adapter_id: str
    name: str
    weight: float


_SHARED = ("content_id", "style_id", "content_name", "style_name", "prompt", "negative_prompt")
"""What many samples of a plan have alike: one text in memory for all of them."""


@dataclass(frozen=True, slots=True)  # a run may have hundreds of thousands
class PlannedSample:
    """One picture to draw; `text` says in plain words what it should show, for the text score.

    A side that the prompt says has `ids.text_id` for its id, the prompt as the manifest writes it for its name, and no
    strength; one that is mixed has `ids.mix_id`, and its parts under ``content_mix`` or ``style_mix``. A further
    candidate has the picture that the manifest asks for under `candidate_of`, which is no part of its id.
    """

    sample_id: str
    content_id: str
    style_id: str
    content_name: str
    style_name: str
    text: str
    prompt: str
    content_prompt: str | None
    negative_prompt: str
    content_strength: float | None
    style_strength: float | None
    seed: int
    content_mix: tuple[SidePart, ...] = ()
    style_mix: tuple[SidePart, ...] = ()
    colour_of: str | None = None
    colour_by: str | None = None
    colour_amount: float | None = None
    candidate_of: str | None = None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> PlannedSample:
        """The sample of a row of the plan."""
        values = {name: row[name] for name in cls.__dataclass_fields__}
        for name in ("content_mix", "style_mix"):
            values[name] = tuple(SidePart(**part) for part in row[name] or ())
        for name in _SHARED:
            values[name] = sys.intern(row[name])
        return cls(**values)

    def columns(self) -> dict[str, Any]:
        """The sample as a row of the plan; a side that is not mixed has null for its parts."""
        told = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return told | {name: [asdict(part) for part in told[name]] or None for name in ("content_mix", "style_mix")}

    def parts(self, half: Half) -> tuple[SidePart, ...]:
        """The adapters of a side: one, several of a mix, or none where the prompt says it."""
        side, name, mix = (
            (self.content_id, self.content_name, self.content_mix)
            if half == "content"
            else (self.style_id, self.style_name, self.style_mix)
        )
        return mix or (() if ids.is_text(side) else (SidePart(side, name, 1.0),))

    def named(self, sample_settings: Mapping[str, Any] | ids.Canonical, base_revision: str) -> PlannedSample:
        """The sample under the id that all that shapes it gives; see `ids.sample_id`."""
        colour = {"colour_of": self.colour_of, "colour_by": self.colour_by, "colour_amount": self.colour_amount}
        sample_id = ids.sample_id(
            content_id=None if ids.is_text(self.content_id) else self.content_id,
            style_id=None if ids.is_text(self.style_id) else self.style_id,
            content_strength=self.content_strength,
            style_strength=self.style_strength,
            prompts={
                "prompt": self.prompt,
                "content_prompt": self.content_prompt or "",
                "negative_prompt": self.negative_prompt,
            },
            seed=self.seed,
            sample_settings=sample_settings,
            base_revision=base_revision,
            colour={**colour, "recipe": COLOUR_RECIPE} if self.colour_of else None,
        )
        return replace(self, sample_id=sample_id)

    @property
    def asked_id(self) -> str:
        """The picture that the manifest asks for: this one, or the one that it is a further candidate of."""
        return self.candidate_of or self.sample_id

    @property
    def adapter_ids(self) -> frozenset[str]:
        """Every adapter that must exist before it can be drawn."""
        if self.content_mix or self.style_mix:
            return frozenset(part.adapter_id for half in get_args(Half) for part in self.parts(half))
        return frozenset(side for side in (self.content_id, self.style_id) if not ids.is_text(side))

    @property
    def row(self) -> str:
        """What its shard shares: the content (of a mix, its adapters), or the style where a prompt says the content."""
        parts = self.parts("content") or self.parts("style")
        return " ".join(sorted(part.adapter_id for part in parts))

    @property
    def key(self) -> str:
        """Where the picture lies in the store."""
        return layout.sample_key(self.content_id, self.style_id, self.sample_id)
