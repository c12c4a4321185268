"""How busy `blora run` keeps its GPU, from pictures to scores: ``python -m tests.benchmarks.end_to_end WORK``.

Every content in every style, with SDXL at full size and random weights, or another base. The share comes from the run's
own slots.parquet: seconds inside calls that train or draw, over seconds that the slot was at the run's disposal, the
start of its process and the loading of the model included. Beside it stands what was seen from outside: the GPU's
utilisation by its driver's tool once a second, on a CPU the computing time of the slots' processes.
``--kills 0 1`` runs twice, each time in a fresh store; in the second run a slot is killed while adapters are missing.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import psutil
from PIL import Image

from manifests.store.run_folder import RunFolder
from manifests.store.store import Store
from manifests.tables.run import SLOTS_FILE
from tasks.devices import chosen_devices, gpu_name
from tasks.run.outcome import read_records
from tests.benchmarks.whole_run import write_model
from tests.tiny import picture, save_tiny_base

GOAL: Final = 0.95
"""Of the time, in which a GPU is to be busy."""
_WORKER: Final = "tasks.worker.main"
_LOOK_SECONDS: Final = 0.1
_QUERY: Final = ("--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "--loop=1")


class Slots:
    """The processes of a command's slots, seen from outside.

    Attributes:
        cpu_seconds: of each that was seen, by its process id, when it was last looked at.
    """

    def __init__(self, command: subprocess.Popen[bytes], kind: str) -> None:
        """Watch those of a kind of device, "cuda" or "cpu"."""
        self._command, self._kind = psutil.Process(command.pid), kind
        self.cpu_seconds: dict[int, float] = {}

    def look(self) -> list[psutil.Process]:
        """Those that live, and what they have computed."""
        found = []
        for process in self._family():
            with suppress(psutil.Error):
                words = process.cmdline()
                if _WORKER in words and words[words.index(_WORKER) + 1].startswith(self._kind):
                    times = process.cpu_times()
                    self.cpu_seconds[process.pid] = times.user + times.system
                    found.append(process)
        return found

    def _family(self) -> list[psutil.Process]:
        with suppress(psutil.Error):
            return list(self._command.children(recursive=True))
        return []


@contextmanager
def utilisation(kind: str, log: Path) -> Iterator[None]:
    """Have the driver's tool write how busy the GPU is, in per cent, once a second; nothing without a GPU."""
    tool = shutil.which("nvidia-smi") if kind == "cuda" else None
    if tool is None:
        yield
        return
    with log.open("wb") as output, subprocess.Popen([tool, "--id=0", *_QUERY], stdout=output) as watching:
        try:
            yield
        finally:
            watching.terminate()


def base_of(folder: Path, name: str) -> str:
    """Write the model that is asked for, with random weights, if it is none that is there; what a manifest names."""
    if name == "sdxl":
        return str(write_model(folder, "fp16"))
    return str(save_tiny_base(folder / "model")) if name == "tiny" else name


def write_manifest(folder: Path, base: str, given: argparse.Namespace) -> Path:
    """Write pictures and a manifest of every content in every style."""
    names: dict[str, list[dict[str, str]]] = {"contents": [], "styles": []}
    for number in range(2 * given.side):
        Image.fromarray(picture(number, given.px, given.px)).save(folder / f"{number}.png")
        names["contents" if number < given.side else "styles"].append({"image": f"{number}.png", "name": f"n{number}"})
    settings = {
        "pack_size": given.pack_size,
        "train": {"steps": given.train_steps, "resolution_px": given.px},
        "sample": {"steps": given.sample_steps, "width_px": given.px, "height_px": given.px},
        "score": {"features": given.features},
    }
    body = {"version": 1, "name": "busy", "base": base, "preset": given.preset, "settings": settings, "grid": True}
    path = folder / "busy.json"
    path.write_text(json.dumps(body | names))
    return path


def run(folder: Path, manifest: Path, given: argparse.Namespace, kills: int) -> dict[str, Any]:
    """Run the command, kill slots in it, and return what it and its slots did."""
    root, log = folder / f"store-{kills}", folder / f"utilisation-{kills}"
    kind = chosen_devices(given.devices)[0].partition(":")[0]
    command = [sys.executable, "-m", "flows.cli", "run", str(manifest), "--root", str(root), "--devices", given.devices]
    killed_at: list[str] = []
    started = time.monotonic()
    with utilisation(kind, log):
        process = subprocess.Popen(command)
        slots = Slots(process, kind)
        while process.poll() is None:
            living, done = slots.look(), len(list(root.glob("adapters/*/adapter.json")))
            if len(killed_at) < kills and living and len(killed_at) < done < 2 * given.side:
                living[0].kill()
                killed_at.append(f"with {done} of {2 * given.side} adapters done")
            time.sleep(_LOOK_SECONDS)
    seconds = time.monotonic() - started
    pictures = len(list(root.glob("samples/*/*/*.png")))
    store = Store.open(str(root))
    (record,) = read_records(store)
    rows = RunFolder(store, record.run_id).read(SLOTS_FILE).to_pylist()
    seen = sum(map(float, log.read_text().split())) / 100 if log.exists() else sum(slots.cpu_seconds.values())
    timings = {name: value for name, value in record.timings.items() if name != "slots"}
    return {
        "kills": killed_at,
        "exit_code": process.returncode,
        "pictures": pictures,
        "seconds": seconds,
        "slot_processes": len(slots.cpu_seconds),
        **shares(rows, kind, seen),
        "timings": timings,
        "faults": faults(process.returncode, pictures, kills, killed_at, rows, seconds, given.side),
    }


def shares(rows: Sequence[Mapping[str, Any]], kind: str, seen_seconds: float) -> dict[str, Any]:
    """Return how busy the slots of a kind of device were: by their own table, and as seen from outside."""
    ours = [row for row in rows if row["slot"].split()[-1].startswith(kind) and not row["slot"].startswith("scoring")]
    wall, busy = (sum(row[name] for row in ours) for name in ("wall_seconds", "busy_seconds"))
    return {
        "wall_seconds": wall,
        "busy_seconds": busy,
        "busy_share": busy / wall if wall else 0.0,
        "seen_seconds": seen_seconds,
        "seen_share": seen_seconds / wall if wall else 0.0,
        "goal": GOAL,
    }


def faults(
    code: int, pictures: int, kills: int, killed: Sequence[str], rows: Sequence[Mapping[str, Any]], seconds: float,
    side: int,
) -> list[str]:  # fmt: skip
    """Return what does not hold of a run: how it ends, and that no slot is busy longer than there was time."""
    held = {
        "the command ends with 0": code == 0,
        "every picture is there": pictures == side**2,
        "as many slots were killed as asked for": len(killed) == kills,
        "a share is busy over wall": all(
            abs(row["busy_share"] * row["wall_seconds"] - row["busy_seconds"]) < 1e-6 for row in rows
        ),
        "busy at most as long as there, and there at most as long as the command": all(
            0 < row["busy_seconds"] <= row["wall_seconds"] <= seconds for row in rows
        ),
    }
    return [what for what, holds in held.items() if not holds]


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the model, run once for each number of kills, print and write; 1 if something that must hold does not."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("work", type=Path, help="a folder for weights and stores; must not exist")
    parser.add_argument("--base", default="sdxl", choices=["sdxl", "tiny", "embedded"], help="sdxl: full size")
    parser.add_argument("--preset", default="paper")
    parser.add_argument("--devices", default="auto")
    parser.add_argument("--side", type=int, default=4, help="contents, and styles")
    parser.add_argument("--px", type=int, default=1024)
    parser.add_argument("--pack-size", type=int, default=4)
    parser.add_argument("--train-steps", type=int, default=50)
    parser.add_argument("--sample-steps", type=int, default=50)
    parser.add_argument("--features", default="efficientnet-lite0", help="none: where its weights, 17 MB, are missing")
    parser.add_argument("--kills", type=int, nargs="+", default=[0, 1], help="slots killed, of a run each")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    given = parser.parse_args(arguments)
    given.work.mkdir(parents=True)
    runs: list[dict[str, Any]] = []
    try:
        base = base_of(given.work, given.base)
        manifest = write_manifest(given.work, base, given)
        device = gpu_name(chosen_devices(given.devices)) or "cpu"
        for kills in given.kills:
            runs.append(run(given.work, manifest, given, kills))
            print(json.dumps(runs[-1]), flush=True)
            if given.json:
                given.json.write_text(json.dumps({"device": device, "base": given.base, "runs": runs}, indent=2))
    finally:
        shutil.rmtree(given.work)
    return int(any(one["faults"] for one in runs))


if __name__ == "__main__":
    sys.exit(main())
