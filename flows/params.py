"""What a person may ask of a flow: the form in Prefect's UI, and the options of the command line, in one place."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from manifests.schema.fields import PresetName
from manifests.schema.rows import DocumentRow, ImageRow, PairRow

INLINE_MOST = 20
"""Contents, styles or pairs of a manifest that is filled in by hand."""


class InlineManifest(DocumentRow):
    """A small manifest, filled in by hand; a larger one belongs in a file, whose address is given instead.

    Pictures are s3:// addresses or absolute paths below the allowed roots of the options.
    """

    contents: tuple[ImageRow, ...] = Field(
        min_length=1, max_length=INLINE_MOST, description="Pictures whose content is drawn."
    )
    styles: tuple[ImageRow, ...] = Field(
        min_length=1, max_length=INLINE_MOST, description="Pictures whose look is given."
    )
    pairs: tuple[PairRow, ...] | None = Field(
        None,
        min_length=1,
        max_length=INLINE_MOST**2,
        description="Which of them meet. Empty: every content, every style.",
    )


class SlotOptions(BaseModel):
    """In which store work is done, and in which slots."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    root: str = Field(
        "", description="The store: a folder or s3://bucket/prefix. Empty: BLORA_ROOT, else ./blora-store."
    )
    devices: str = Field("auto", description="Slots: auto, cpu, or a list such as cuda:0,cuda:1.")


class ManifestOptions(SlotOptions):
    """What is laid over a manifest, and from where its pictures may come."""

    preset: PresetName | None = Field(None, description="Replaces the manifest's preset.")
    base: str = Field(
        "",
        description="Replaces the manifest's base: sdxl, embedded, org/model@<40 hex digits>, a folder or a "
        ".safetensors file. Empty: as the manifest, else sdxl (embedded with preset demo).",
    )
    overrides: dict[str, Any] = Field(
        default_factory=dict, description='Settings laid over the manifest\'s own, e.g. {"train": {"steps": 200}}.'
    )
    allowed_roots: tuple[str, ...] = Field(
        (), description="Folders or s3:// prefixes, beside the manifest's own, that its pictures may lie under."
    )


class WorkOptions(ManifestOptions):
    """Where and how manifests are worked off; what is drawn stands in them."""

    on_fault: Literal["record", "stop"] | None = Field(
        None,
        description="record: bad rows are recorded, the rest goes on. stop: nothing starts. Empty: as the manifest.",
    )
    shards: Literal["here", "pool"] = Field(
        "here",
        description="Where the work is done: in this machine's slots, or as flow runs of the deployment shard/shard on "
        "the work pool of the GPUs.",
    )
    queue: Literal["on-demand", "nightly"] = Field(
        "on-demand", description="Of the work pool, if that is where the work is done. on-demand is served first."
    )
    at_once: int = Field(
        8, ge=1, le=256, description="Flow runs on the work pool at once: at least as many as there are workers."
    )


class RunOptions(WorkOptions):
    """How one run is worked off."""

    only: tuple[str, ...] = Field(
        (),
        description="Do a part of the run: faults, content=NAME, style=NAME, seed=NUMBER. Empty: all that is missing.",
    )
    take_over: bool = Field(
        False,
        description="Take the leases of this run's trainings away from whoever holds them, in place of waiting until "
        "they end: where you know that nobody is at work there. Somebody who is goes on in vain.",
    )
    retry_permanent: bool = Field(
        True, description="Try items again that failed for good the last time, such as a training that diverged."
    )


class NightOptions(WorkOptions):
    """How a night works off the manifests of the inbox; each becomes a run of its own."""

    queue: Literal["on-demand", "nightly"] = Field("nightly", description="Of the work pool, if work is done there.")
    hours: float | None = Field(
        None, gt=0, le=168, description="Begin no further manifest after this many hours. Empty: until all are done."
    )


class MethodOptions(ManifestOptions):
    """Which methods are compared on a manifest's pairs, and where."""

    methods: tuple[str, ...] = Field(
        ("blora", "all_attention", "prompt", "magenta"),
        description="Some of all_attention, prompt and magenta; blora is always among them.",
    )


class ProbeOptions(SlotOptions):
    """How the blocks of a base are probed."""

    pairs: int = Field(20, ge=1, description="Pairs of prompts of each kind, drawn by lot. The paper has 400 in all.")
    seeds: int = Field(1, ge=1, le=100, description="Pictures for each pair and block.")
    seed: int = Field(0, ge=0, lt=2**63, description="Of everything that is drawn by lot.")
    prompts: str = Field("", description="Address of a CSV file with the columns kind, p and q, instead of a lot.")
    preset: PresetName | None = Field(
        None, description="Empty: demo for the embedded model, else paper at the size that the model was made for."
    )
    overrides: dict[str, Any] = Field(
        default_factory=dict, description='Settings laid over the preset\'s own, e.g. {"sample": {"steps": 20}}.'
    )
