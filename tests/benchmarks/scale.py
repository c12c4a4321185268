"""What planning and orchestration cost as a run grows: ``python -m tests.benchmarks.scale --items 2000 20000``.

The GPU is left out (`tests/stub_slot.py`: same tasks, same objects, no model and no waiting); the Prefect server, the
store and the flow are real. A run of n items has n / 11 adapters and ten pictures of each content. Each size is worked
off in a process of its own, from an empty store. Baseline: the figures an item of the smallest size of the same call;
flat is 1. Where the machine has other work, CPU seconds say more than seconds.

With ``--slots 1 2`` and ``--stub-seconds`` it is one size on one slot and on two: how much sooner two are done with
work that keeps slots waiting, as GPUs do.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from PIL import Image

STYLES = 10


def write_project(folder: Path, items: int) -> Path:
    """Pictures of a colour each, and a grid of them with ten styles; about so many items in all."""
    contents = max(1, items // (STYLES + 1))
    sides: dict[str, list[dict[str, str]]] = {"contents": [], "styles": []}
    for number in range(contents + STYLES):
        side = "contents" if number < contents else "styles"
        name = f"{side[0]}{number}"
        colour = (number % 256, number // 256 % 256, number // 65536)
        picture = Image.new("RGB", (16, 16), colour)
        picture.putpixel((0, 0), (255, 255, 255))
        picture.save(folder / f"{name}.png")
        sides[side].append({"image": f"{name}.png", "name": name, "word": name})
    manifest = folder / "scale.json"
    manifest.write_text(json.dumps({"version": 1, "name": "scale", "grid": True, **sides}))
    return manifest


class Meter:
    """Seconds since the last reading: by the clock, and of the processor in this process and in its ended children."""

    def __init__(self) -> None:
        self._last = self._now()

    @staticmethod
    def _now() -> tuple[float, float, float]:
        here, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
        return time.perf_counter(), here.ru_utime + here.ru_stime, children.ru_utime + children.ru_stime

    def read(self, name: str) -> dict[str, float]:
        """The figures under names that begin with `name`."""
        now = self._now()
        wall, cpu, slots = (after - before for before, after in zip(self._last, now, strict=True))
        self._last = now
        return {f"{name}_seconds": wall, f"{name}_cpu_seconds": cpu, f"{name}_slots_cpu_seconds": slots}


def measure(items: int, slots: int) -> dict[str, float]:
    """Plan, work off and work off again; seconds of each, and the peak memory of this process and of a slot."""
    from flows.params import RunOptions
    from flows.stylize import stylize
    from manifests.loading.load import load_manifest
    from manifests.store.store import Store
    from tasks.planning.make import make_plan

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "project"
        folder.mkdir()
        manifest, root = write_project(folder, items), str(Path(scratch) / "store")
        options = RunOptions(root=root, devices=",".join(["cpu"] * slots))
        meter = Meter()
        plan = make_plan(Store.open(root), load_manifest(str(manifest))).plan
        figures = meter.read("plan") | {"items": float(len(plan.adapters) + len(plan.samples))}
        del plan
        first: Any = stylize(str(manifest), options, return_state=True)
        figures |= meter.read("run")
        second: Any = stylize(str(manifest), options, return_state=True)
        figures |= meter.read("rerun")
        if not (first.is_completed() and second.is_completed()):
            raise RuntimeError(f"{items} items: {first.message}; {second.message}")
    for name, who in (("peak", resource.RUSAGE_SELF), ("slot_peak", resource.RUSAGE_CHILDREN)):
        figures[f"{name}_megabytes"] = resource.getrusage(who).ru_maxrss / 1024
    return figures


def measure_apart(items: int, slots: int, server: psutil.Process) -> dict[str, float]:
    """The same in a process of its own, with what the server spent on it."""
    before = _cpu_seconds(server)
    command = [sys.executable, "-m", "tests.benchmarks.scale", "--one", str(items), str(slots)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    megabytes = server.memory_info().rss / 2**20
    return figures | {
        "slots": slots,
        "server_cpu_seconds": _cpu_seconds(server) - before,
        "server_megabytes": megabytes,
    }


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def line(one: dict[str, float], first: dict[str, float]) -> str:
    """A row of the table: seconds, then CPU seconds, then what an item cost against the first row, then memory."""

    def each(figures: dict[str, float]) -> float:
        return 1000 * figures["run_cpu_seconds"] / figures["items"]

    cells = [f"{one['items']:8.0f} {one['slots']:5.0f}"]
    cells += [f"{one[f'{name}_seconds']:8.1f}" for name in ("plan", "run", "rerun")]
    names = ("plan_cpu", "run_cpu", "rerun_cpu", "run_slots_cpu", "server_cpu")
    cells += [f"{one[f'{name}_seconds']:9.1f}" for name in names]
    cells += [f"{each(one):8.2f} {each(one) / each(first):6.2f} {first['run_seconds'] / one['run_seconds']:8.2f}"]
    cells += [f"{one[f'{name}_megabytes']:7.0f}" for name in ("peak", "slot_peak", "server")]
    return " ".join(cells)


TITLE = (
    "   items slots   plan s    run s  rerun s  plan cpu   run cpu rerun cpu slots cpu   server  ms/item  ratio"
    "  speedup    peak  slot MB server"
)


def main() -> None:
    """Measure each size and print a line for it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--items", type=int, nargs="+", default=[2000, 20000])
    parser.add_argument("--slots", type=int, nargs="+", default=[2])
    parser.add_argument("--stub-seconds", type=float, default=0.0, help="of an adapter and of a batch of pictures")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--one", type=int, nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")  # before Prefect reads its settings
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "ERROR")
    if arguments.one:
        print(json.dumps(measure(*arguments.one)))
        return
    from tests.servers import serve_prefect

    found: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as home, serve_prefect(Path(home)) as server:
        os.environ |= {
            "PREFECT_API_URL": server.api_url,
            "BLORA_SLOT_MODULE": "tests.stub_slot",
            "BLORA_STUB_SECONDS": str(arguments.stub_seconds),
        }
        print(TITLE)
        for items in arguments.items:
            for slots in arguments.slots:
                found.append(measure_apart(items, slots, psutil.Process(server.process_id)))
                print(line(found[-1], found[0]), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
