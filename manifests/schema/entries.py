"""The manifest as the rest of the program sees it: checked, absolute, expanded, frozen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from manifests.schema.fields import PresetName


class _EntryModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FrameOf(_EntryModel):
    """Which frame of a clip a content is."""

    clip: str = Field(description="name of the clip")
    position: int = Field(description="within the clip, from 0")
    number: int | None = Field(default=None, description="frame of the animated file, from 0; None: a file of its own")
    frames_per_second: float = Field(description="of the clip, as far as it is taken")


class ImageEntry(_EntryModel):
    """A content or a style: pictures to train an adapter on, or a finished adapter."""

    name: str = Field(description="unique among the contents, or among the styles")
    images: tuple[str, ...] = Field(description="absolute paths or s3:// addresses of one object or look")
    adapter: str | None = Field(default=None, description="the same of a finished adapter, in place of images")
    word: str | None = Field(default=None, description="what the picture shows, in a word or two")
    class_word: str | None = Field(default=None, description="what kind of thing it is; part of its training's prompt")
    frame: FrameOf | None = Field(default=None, description="which frame of which clip it is; None: of none")
    file: str = Field(default="", description="the manifest it stands in")
    row: int | None = Field(default=None, description="1-based line, or record of a Parquet file")

    @property
    def keys(self) -> tuple[str, ...]:
        """What its pictures are held under: their addresses, and for a frame of an animated file its number, too."""
        return self.images if self.frame is None else (frame_key(self.images[0], self.frame.number),)


def frame_key(address: str, number: int | None) -> str:
    """Return what a picture is held under; no address has a line break in it."""
    return address if number is None else f"{address}\nframe {number}"


def split_key(key: str) -> tuple[str, int | None]:
    """Return the address and the number of a frame, if any, that `frame_key` made a key of."""
    address, _, frame = key.partition("\nframe ")
    return address, int(frame) if frame else None


class Part(_EntryModel):
    """One of several contents, or styles, in a mix."""

    name: str = Field(description="name of the content or style")
    weight: float = Field(description="factor of its weight delta, before the strength of the side")


Parts: TypeAlias = tuple[Part, ...]
"""What a side of a pair is made of: none where a prompt says it, one, or several in a mix."""


class PairEntry(_EntryModel):
    """A content and a style that meet, and how; where it says None, the settings say it.

    One of the two may be missing: the prompt then says what is drawn, or how.
    """

    content: str | None = Field(default=None, description="name of the content; None: the prompt says it")
    style: str | None = Field(default=None, description="name of the style; None: the prompt says it")
    content_mix: tuple[Part, ...] = Field(default=(), description="what the content is mixed of; empty for one alone")
    style_mix: tuple[Part, ...] = Field(default=(), description="what the style is mixed of; empty for one alone")
    prompt: str | None = Field(default=None, description="[c] and [s] stand for the content and the style")
    content_prompt: str | None = Field(default=None, description="a prompt for the content block alone")
    negative_prompt: str | None = Field(default=None, description="what to stay away from")
    content_strength: float | None = Field(default=None, description="the dial of the content; 1 is as trained")
    style_strength: float | None = Field(default=None, description="the dial of the style; 1 is as trained")
    own_style: float | None = Field(default=None, description="weight of the content's own style beside the style's 1")
    colour_of: Literal["content", "style"] | None = Field(default=None, description="whose colours the picture gets")
    colour_by: Literal["transfer", "subject", "guidance"] | None = Field(
        default=None, description="on the result, on its subject alone, or while it is drawn"
    )
    colour_amount: float | None = Field(default=None, description="how far, 0 (off) to 1")
    seeds: tuple[int, ...] = Field(default=(0,), description="one sample for each")
    candidates: int = Field(default=1, description="pictures drawn for each seed, of which the best is chosen")
    sweep: str = Field(default="", description="what it is a step of, in words; empty for nothing")
    step: str = Field(default="", description="which step of the sweep, in words")
    file: str = Field(default="", description="the manifest it stands in")
    row: int | None = Field(default=None, description="1-based line or record; None for a pair of the grid")


CHANGES_NO_PICTURE = frozenset({"seeds", "candidates", "sweep", "step", "file", "row"})
"""What of a pair says how many pictures there are and where it was written: pairs that differ in these alone draw the
same. Two that differ in any other field draw differently."""


def parts_of(names: str | tuple[str, ...] | Mapping[str, float] | None) -> Parts:
    """Return the parts of a side as a row writes it: none, one, several in equal parts, or by weight."""
    if names is None:
        return ()
    if isinstance(names, str):
        return (Part(name=names, weight=1.0),)
    if isinstance(names, Mapping):
        return tuple(Part(name=name, weight=weight) for name, weight in names.items())
    return tuple(Part(name=name, weight=1 / len(names)) for name in names)


def content_parts(pair: PairEntry) -> Parts:
    """Return the contents of a pair that is drawn, with their weights."""
    return pair.content_mix or parts_of(pair.content)


def style_parts(pair: PairEntry) -> Parts:
    """Return the styles of a pair that is drawn, with their weights."""
    return pair.style_mix or parts_of(pair.style)


class Manifest(_EntryModel):
    """What a run is to make: the good rows of a manifest."""

    name: str = Field(description="for people, and for the run's id")
    base: str = Field(default="", description="in one line, its paths absolute; empty: as the preset says")
    preset: PresetName = Field(default="demo", description="the settings to start from")
    settings: dict[str, Any] = Field(default_factory=dict, description="what differs from the preset, nested")
    strength_reading: Literal["linear", "reference"] = Field(
        default="linear", description="reference squares the strengths"
    )
    on_fault: Literal["record", "stop"] = Field(default="record", description="whether the rest goes on")
    contents: tuple[ImageEntry, ...] = Field(description="in the order of the manifest")
    styles: tuple[ImageEntry, ...] = Field(description="in the order of the manifest")
    pairs: tuple[PairEntry, ...] = Field(description="in the order of the manifest; the grid row by row of contents")
    source: str = Field(description="where it was read, without credentials")

    @property
    def entries(self) -> tuple[ImageEntry, ...]:
        """Contents and styles."""
        return (*self.contents, *self.styles)
