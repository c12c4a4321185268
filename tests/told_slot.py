"""A slot's child without a model that is told, while workers run, how to behave: `tests.stub_slot` and a file.

`BLORA_TOLD` names a file of JSON: ``refuse``, names of adapters whose training fails for good, and ``seconds``, what
an adapter and a batch of pictures take. It is read whenever a child starts.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from manifests.faults import Fault
from tasks.messages import TrainAnswer, TrainPack
from tests import stub_slot

TOLD: dict[str, Any] = json.loads(Path(os.environ["BLORA_TOLD"]).read_text())


class ToldStub(stub_slot.Stub):
    """Refuses what it is told to refuse."""

    def train_pack(self, job: TrainPack) -> TrainAnswer:
        """Train the others; the fault is one that a real training could have."""
        adapters = self.plan(job.run_id).pack(job.pack_id).adapters
        refused = [adapter for adapter in adapters if adapter.name in TOLD.get("refuse", ())]
        wanted = job.only or [adapter.adapter_id for adapter in adapters]
        only = [adapter.adapter_id for adapter in adapters if adapter not in refused and adapter.adapter_id in wanted]
        faults = tuple(
            Fault(
                kind="train",
                item=adapter.adapter_id,
                what=f"the training of {adapter.name} failed",
                received="a slot that was told to",
                accepted="a finished training",
                hint="tell it otherwise",
            )
            for adapter in refused
        )
        return replace(super().train_pack(replace(job, only=tuple(only))), faults=faults)


if __name__ == "__main__":
    stub_slot.SECONDS = float(TOLD.get("seconds", 0))
    stub_slot.Stub = ToldStub  # type: ignore[misc]
    stub_slot.main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
