"""What a person may ask of a flow: the form in Prefect's UI, and the options of the command line, in one place."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class RunOptions(BaseModel):
    """How a run is worked off; what is drawn stands in the manifest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    root: str = Field(
        "", description="The store: a folder or s3://bucket/prefix. Empty: BLORA_ROOT, else ./blora-store."
    )
    preset: Literal["demo", "draft", "paper"] | None = Field(None, description="Replaces the manifest's preset.")
    overrides: dict[str, Any] = Field(
        default_factory=dict, description='Settings laid over the manifest\'s own, e.g. {"train": {"steps": 200}}.'
    )
    on_fault: Literal["record", "stop"] | None = Field(
        None,
        description="record: bad rows are recorded, the rest goes on. stop: nothing starts. Empty: as the manifest.",
    )
    devices: str = Field("auto", description="Slots: auto, cpu, or a list such as cuda:0,cuda:1.")
    allowed_roots: tuple[str, ...] = Field(
        (), description="Folders or s3:// prefixes, beside the manifest's own, that its pictures may lie under."
    )


class ProbeOptions(BaseModel):
    """How the blocks of a base are probed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    root: str = Field(
        "", description="The store: a folder or s3://bucket/prefix. Empty: BLORA_ROOT, else ./blora-store."
    )
    pairs: int = Field(20, ge=1, description="Pairs of prompts of each kind, drawn by lot. The paper has 400 in all.")
    seeds: int = Field(1, ge=1, le=100, description="Pictures for each pair and block.")
    seed: int = Field(0, ge=0, lt=2**63, description="Of everything that is drawn by lot.")
    prompts: str = Field("", description="Address of a CSV file with the columns kind, p and q, instead of a lot.")
    preset: Literal["demo", "draft", "paper"] | None = Field(
        None, description="Empty: demo for the embedded model, else paper at the size that the model was made for."
    )
    overrides: dict[str, Any] = Field(
        default_factory=dict, description='Settings laid over the preset\'s own, e.g. {"sample": {"steps": 20}}.'
    )
    devices: str = Field("auto", description="Slots: auto, cpu, or a list such as cuda:0,cuda:1.")
