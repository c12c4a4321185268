"""A slot's work without its child process: the jobs of a small run, done by the process that tests them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from manifests import layout
from manifests.loading.load import load_manifest
from manifests.store.store import Store
from manifests.tables.parquet import from_parquet_bytes
from tasks.messages import Advance, TrainAnswer, TrainPack
from tasks.planning.make import make_plan, publish
from tasks.run.plan import Plan
from tasks.worker.session import Session
from tasks.worker.train import train_pack
from tests.flows.conftest import SETTINGS, Project


class InProcessSlot:
    """A store with the plan of a content and its styles in one pack, and a slot that works it off in this process."""

    def __init__(
        self, root: Path, base: Path, check: Mapping[str, Any] | None = None, styles: int = 1, **sample: Any
    ) -> None:
        project = Project(root / "project", base, contents=1, styles=styles)
        settings = SETTINGS | {"sample": SETTINGS["sample"] | sample}
        project.write(settings=settings | ({"check": dict(check)} if check is not None else {}))
        loaded = load_manifest(str(project.path), allowed_roots=[str(base)])
        assert loaded.manifest is not None and loaded.faults == ()
        self.store = Store.open(str(root / "store"))
        self.plan: Plan = publish(self.store, make_plan(self.store, loaded))
        self.steps: list[tuple[int, int]] = []
        self.beats: list[str] = []
        self.session = Session("cpu", self.store, self.note, self.beats.append)

    def note(self, advance: Advance) -> None:
        self.steps.append((advance.done, advance.total))

    def train(self) -> TrainAnswer:
        (pack,) = self.plan.packs
        return train_pack(self.session, TrainPack(self.plan.run.run_id, pack.pack_id))

    def markers(self) -> list[dict[str, Any]]:
        keys = [layout.adapter_marker_key(adapter.adapter_id) for adapter in self.plan.adapters]
        return [json.loads(self.store.read(key)) for key in keys]

    def halves(self) -> dict[str, bytes]:
        keys = [key for key in self.store.list("adapters/") if key.endswith(".safetensors")]
        return {key: self.store.read(key) for key in keys}

    def table(self, name: str, schema: Any) -> list[dict[str, Any]]:
        data = self.store.read(layout.run_key(self.plan.run.run_id, f"{name}.parquet"))
        return list(from_parquet_bytes(data, schema).to_pylist())
