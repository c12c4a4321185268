"""What a command takes before it does anything: ``python -m tests.benchmarks.startup``.

Processor seconds (of all threads, user and system; the median of several starts) of ``blora --help`` and of ``blora
status`` on a store with one finished run, against two baselines: the start of a bare Python, and an import of all that
each command imported before its imports were put where they are needed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from tests.made_run import finish, plan_run

BEFORE = (
    "flows.cli.main, manifests.store.bucket, aiohttp, botocore.parsers, blora.settings.resolve, "
    "manifests.loading.load, tasks.bases, flows.params"
)
"""The modules of the time when every command imported them, whatever it did."""
MOST_SECONDS = {"blora --help": 0.5, "blora status": 0.8, "blora status latest": 0.8}


def processor_seconds(command: list[str], repetitions: int) -> float:
    """The median of what a command's process takes, after a start that fills the caches of files."""
    taken = []
    for number in range(repetitions + 1):
        before = os.times()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        after = os.times()
        if number:
            taken.append(after.children_user + after.children_system - before.children_user - before.children_system)
    return median(taken)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    given = parser.parse_args()
    python, figures = [sys.executable], dict[str, float]()
    with tempfile.TemporaryDirectory() as folder:
        store, plan = plan_run(Path(folder), ["apple", "owl"], ["wave", "ink"])
        finish(store, plan)
        blora = [*python, "-m", "flows.cli"]
        commands = {
            "bare python": [*python, "-c", ""],
            "import of everything": [*python, "-c", f"import {BEFORE}"],
            "blora --help": [*blora, "--help"],
            "blora status": [*blora, "status", "--root", store.root],
            "blora status latest": [*blora, "status", "latest", "--root", store.root],
        }
        for name, command in commands.items():
            figures[name] = processor_seconds(command, given.repetitions)
    for name, seconds in figures.items():
        ratios = " ".join(f"{seconds / figures[base]:6.2f} x {base}" for base in list(figures)[:2])
        most = f"   (at most {MOST_SECONDS[name]} s)" if name in MOST_SECONDS else ""
        print(f"{name:<22} {seconds:6.3f} s  {ratios}{most}")
    if given.json:
        given.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
