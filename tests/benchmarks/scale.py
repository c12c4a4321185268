"""What planning and orchestration cost as a run grows: ``python -m tests.benchmarks.scale --items 2000 20000``.

The GPU is left out (`tests/stub_slot.py`: same tasks, same objects, no model and no waiting); the Prefect server, the
store and the flow are real. A run of n items has n / 11 adapters and ten pictures of each content. Baseline: the
seconds an item of the smallest size in the same call; flat is 1. Each size starts with an empty store.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

from PIL import Image

STYLES = 10


def write_project(folder: Path, items: int) -> Path:
    """Pictures of one colour each, and a grid of them with ten styles; about so many items in all."""
    contents = max(1, items // (STYLES + 1))
    sides: dict[str, list[dict[str, str]]] = {"contents": [], "styles": []}
    for number in range(contents + STYLES):
        side = "contents" if number < contents else "styles"
        name = f"{side[0]}{number}"
        colour = (number % 256, number // 256 % 256, number // 65536)
        Image.new("RGB", (16, 16), colour).save(folder / f"{name}.png")
        sides[side].append({"image": f"{name}.png", "name": name, "word": name})
    manifest = folder / "scale.json"
    manifest.write_text(json.dumps({"version": 1, "name": "scale", "grid": True, **sides}))
    return manifest


def measure(items: int, slots: int) -> dict[str, float]:
    """Plan, work off and work off again; seconds of each, and the peak memory of this process so far."""
    from flows.params import RunOptions
    from flows.stylize import stylize
    from manifests.schema import load_manifest
    from manifests.store import Store
    from tasks.plan import make_plan

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "project"
        folder.mkdir()
        manifest, root = write_project(folder, items), str(Path(scratch) / "store")
        options = RunOptions(root=root, devices=",".join(["cpu"] * slots))
        started = time.perf_counter()
        plan = make_plan(Store.open(root), load_manifest(str(manifest))).plan
        planned = time.perf_counter()
        first: Any = stylize(str(manifest), options, return_state=True)
        done = time.perf_counter()
        second: Any = stylize(str(manifest), options, return_state=True)
        ended = time.perf_counter()
        if not (first.is_completed() and second.is_completed()):
            raise RuntimeError(f"{items} items: {first.message}; {second.message}")
        return {
            "items": len(plan.adapters) + len(plan.samples),
            "plan_seconds": planned - started,
            "run_seconds": done - planned,
            "rerun_seconds": ended - done,
            "peak_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }


def main() -> None:
    """Measure each size and print a line for it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, nargs="+", default=[2000, 20000])
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")  # before Prefect reads its settings
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "ERROR")
    os.environ["BLORA_SLOT_MODULE"] = "tests.stub_slot"
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from tests.servers import serve_prefect

    found: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as home, serve_prefect(Path(home)) as server:
        with temporary_settings({PREFECT_API_URL: server.api_url}):
            print("   items   plan s    run s  rerun s  ms/item   ratio  peak MB")
            for items in arguments.items:
                one = measure(items, arguments.slots)
                found.append(one)
                each = 1000 * one["run_seconds"] / one["items"]
                ratio = each / (1000 * found[0]["run_seconds"] / found[0]["items"])
                print(
                    f"{one['items']:8.0f} {one['plan_seconds']:8.1f} {one['run_seconds']:8.1f} "
                    f"{one['rerun_seconds']:8.1f} {each:8.2f} {ratio:7.2f} {one['peak_megabytes']:8.0f}",
                    flush=True,
                )
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
