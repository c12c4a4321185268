"""The paired benchmark as a flow, for a worker with a GPU; on a terminal `blora bench` does the same.

1. Train and draw with B-LoRA and its rivals, and judge by drawn truth.
2. Write tables, report and pictures to a folder of the worker's machine; leave the report as an artifact.

Inputs: a folder and `flows.params.BenchOptions`. Safe to run again: adapters in the folder are not trained again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows.params import BenchOptions
from tasks import bench as work


@flow(name="bench", flow_run_name="bench {folder}", persist_result=False, validate_parameters=True)
def bench(folder: str, options: BenchOptions | None = None) -> State[Any]:
    """Measure B-LoRA and its rivals where the truth is drawn.

    Args:
        folder: Where tables, report and adapters go, on the worker's machine.
        options: What is measured; every field has a default.
    """
    chosen = options or BenchOptions()
    log = get_run_logger()
    place = Path(folder)

    def tell(what: str, done: int, total: int) -> None:
        if done in (0, total):
            log.info("%s: %d of %d", what, done, total)

    found = work.measure(
        place,
        chosen.split,
        chosen.pairs,
        chosen.rows,
        chosen.base,
        chosen.preset,
        chosen.overrides,
        chosen.device,
        tell,
    )
    work.write_tables(place, found)
    written = work.write_report(place, found)
    create_markdown_artifact((place / "report.md").read_text(), key="bench", description=f"{chosen.split}, {folder}")
    return Completed(message=written.splitlines()[-1])
