"""What a person may ask of a flow: the form in Prefect's UI, and the options of the command line, in one place."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from manifests.schema.fields import PresetName
from manifests.schema.forms import as_form, without_null
from manifests.schema.rows import DocumentRow, ImageRow, PairRow

INLINE_MOST = 20
"""Contents, styles or pairs of a manifest that is filled in by hand."""

Address = Annotated[str, Field(title="address")]
"""Of a manifest: a path or s3://...; its title is what a form calls it."""

_MANIFEST_FIRST = ("contents", "styles", "base", "preset", "name")
_OPTIONS_FIRST = ("preset", "base", "overrides", "methods", "hours", "only", "on_fault", "root", "allowed_roots")


def _as_form(schema: dict[str, Any]) -> None:
    """What is asked for most stands first, and nothing is of the kind "None"."""
    without_null(schema)
    fields = schema["properties"]
    schema["properties"] = _placed({name: fields[name] for name in (*_OPTIONS_FIRST, *fields) if name in fields})


def _as_small_form(schema: dict[str, Any]) -> None:
    """The same of a manifest, with all that is hardly needed in a block of its own; `InlineManifest` takes it so."""
    as_form(schema)
    schema.pop("additionalProperties", None)  # of the block may also be given beside it
    fields = schema["properties"]
    others = {name: field for name, field in fields.items() if name not in _MANIFEST_FIRST and name != "version"}
    block = {
        "type": "object",
        "title": "Advanced",
        "description": "All else that a manifest may say, once for all pairs (manifests/README.md).",
        "properties": _placed(others),
        "additionalProperties": False,
        "default": {},
    }
    schema["properties"] = _placed({name: fields[name] for name in _MANIFEST_FIRST} | {"advanced": block})


def _placed(fields: dict[str, Any]) -> dict[str, Any]:
    """Fields that say their place, because a server's database may keep them in another order."""
    return {name: field | {"position": number} for number, (name, field) in enumerate(fields.items())}


class InlineManifest(DocumentRow):
    """A small manifest, filled in by hand; a larger one belongs in a file, whose address is given instead.

    Pictures are s3:// addresses or absolute paths below the allowed roots of the options.
    """

    model_config = ConfigDict(title="written here", json_schema_extra=_as_small_form)

    @model_validator(mode="before")
    @classmethod
    def _unfolded(cls, said: Any) -> Any:
        """Take what stands in the block of the form as if it stood beside it."""
        if not isinstance(said, dict) or not isinstance(said.get("advanced"), dict):
            return said
        beside = {name: value for name, value in said.items() if name != "advanced"}
        if twice := sorted(beside.keys() & said["advanced"].keys()):
            raise ValueError(f"{', '.join(twice)}: given in advanced and beside it; keep one of them")
        return beside | said["advanced"]

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

    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_extra=_as_form)

    root: str = Field(
        "", description="The store: a folder or s3://bucket/prefix. Empty: BLORA_ROOT, else ./blora-store."
    )
    devices: str = Field(
        "auto",
        description="Slots of the machine that does the work: auto (every GPU, else the CPU), cpu, or a list such as "
        "cuda:0,cuda:1. Workers of the work pool have their own.",
    )


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
        description="Where the work is done: here, in the slots of the machine that takes this run, or pool, by the "
        "workers of the GPUs (flow runs of the deployment shard/shard).",
    )
    queue: Literal["on-demand", "nightly"] = Field(
        "on-demand", description="Of the work pool of the GPUs, with shards: pool. on-demand is served first."
    )
    at_once: int = Field(
        8,
        ge=1,
        le=256,
        description="Flow runs on the work pool at once, with shards: pool; at least as many as there are workers.",
    )


class RunOptions(WorkOptions):
    """How one run is worked off."""

    only: tuple[str, ...] = Field(
        (),
        description="A part of the run: faults, content=NAME, style=NAME, seed=NUMBER. Empty: all that is missing.",
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

    queue: Literal["on-demand", "nightly"] = Field(
        "nightly", description="Of the work pool of the GPUs, with shards: pool."
    )
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
    blocks: tuple[str, ...] = Field(
        (),
        description="Blocks and stretches to compare, e.g. single_transformer_blocks.0-9. Empty: a UNet's inner "
        "blocks; of FLUX all, five at once.",
    )
    preset: PresetName | None = Field(
        None,
        description="Empty: demo for the embedded model, flux for FLUX, else paper at the size that the model was made "
        "for.",
    )
    overrides: dict[str, Any] = Field(
        default_factory=dict, description='Settings laid over the preset\'s own, e.g. {"sample": {"steps": 20}}.'
    )
