"""The paper's block analysis of any base: which block answers to the object, which to the look.

1. Choose pairs of prompts; name the probe by its content; keep the plan.
2. Measure what parts are missing, in the slots.
3. Gather table, chart, report and proposal.

Inputs: a base and `flows.params.ProbeOptions`. Outputs: ``<root>/probes/<probe_id>/`` and a markdown artifact. Cost:
pictures = pairs x seeds x (blocks + 2), those of FLUX's stretches twice the work. Safe to run again at any time: parts
that are there are not measured again.
"""

from __future__ import annotations

from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.futures import wait
from prefect.states import Completed

from flows.params import ProbeOptions
from flows.scheduling.slots import slots
from manifests import layout
from manifests.store.store import Store
from tasks import environment, progress
from tasks.devices import chosen_devices
from tasks.dispatch import prefect_tasks
from tasks.measuring.block_probe import Probe, ProbeRequest, finish, make_probe, missing_parts, publish
from tasks.measuring.probe_report import proposal_lines


@flow(name="analyze", flow_run_name="analyze {base}", persist_result=False, validate_parameters=True)
def analyze(base: str = "embedded", options: ProbeOptions = ProbeOptions()) -> State[Any]:
    """Measure a base's blocks and propose one for content and one for style.

    Args:
        base: ``embedded``, ``org/model@<revision>``, a folder in diffusers' layout, or ``s3://bucket/folder``.
        options: How; every field has a default.
    """
    store = Store.open(options.root or environment.store_root())
    asked = {
        name: getattr(options, name) for name in ("preset", "overrides", "pairs", "seeds", "seed", "prompts", "blocks")
    }
    probe = make_probe(ProbeRequest(base, **asked))
    publish(store, probe)
    parts = missing_parts(store, probe)
    get_run_logger().info(
        "%s: %d pairs, %d of %d parts to do", probe.probe_id, len(probe.pairs), len(parts), len(probe.parts)
    )
    progress.publish({"kind": "parts", "id": probe.probe_id, "done": 0, "total": len(parts)})
    _measure(store, probe, parts, chosen_devices(options.devices))
    summary = finish(store, probe)
    text = store.read(layout.probe_key(probe.probe_id, "report.md")).decode()
    lines = proposal_lines(summary)
    create_markdown_artifact(text, key="probe", description=lines[0])
    return Completed(message=" ".join(lines), data={"probe_id": probe.probe_id})


def _measure(store: Store, probe: Probe, parts: list[int], devices: tuple[str, ...]) -> None:
    """Do the parts in slots; each task waits for a free one. The first failure is raised when all have ended."""
    with slots(store, devices):
        futures = [prefect_tasks.probe_part.submit(probe.probe_id, part) for part in parts]
        wait(futures)
    for future in futures:
        future.result()
