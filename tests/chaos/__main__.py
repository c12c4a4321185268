"""Faults on purpose, from a seed: ``python -m tests.chaos --seed 7 --kills 200``; exit code 1 if a rule was broken."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from tests.conftest import pytest_configure as scrub_environment


def main() -> int:
    """Play a session and print what came of it."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=7, help="fixes the schedule of faults of every episode")
    parser.add_argument("--kills", type=int, default=20, help="play episodes until there were so many")
    parser.add_argument("--only-run", type=int, metavar="N", help="play episode N of this seed alone")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no further episode after so many")
    parser.add_argument("--part", default="1/1", metavar="K/N", help="play every N-th episode from the K-th on")
    parser.add_argument("--server", choices=("production", "sqlite", "auto"), default="auto",
                        help="production is Postgres, Redis, API and services apart")  # fmt: skip
    parser.add_argument("--pool", action=argparse.BooleanOptionalAction, default=True,
                        help="every eighth episode hands its work to two workers, which are killed, too")  # fmt: skip
    parser.add_argument("--model", action="store_true", help="the embedded model in place of the stub; minutes a run")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep logs, ledgers and local stores there")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    arguments = parser.parse_args()
    scrub_environment()
    from tests.chaos.session import open_stage, play
    from tests.production import missing_servers

    server, missing = arguments.server, missing_servers()
    if server == "auto":
        server = "sqlite" if missing else "production"
        print(f"server: {server}" + (f" ({missing})" if missing else ""))
    print(f"seed {arguments.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="blora-chaos-") as scratch:
        folder = arguments.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        with open_stage(folder, server, arguments.seed, not arguments.model) as stage:
            which, of = (int(number) for number in arguments.part.split("/"))
            summary = play(stage, arguments.seed, arguments.kills, arguments.pool, arguments.only_run, (which, of),
                           lambda line: print(line, flush=True), 60 * arguments.minutes)  # fmt: skip
    figures = summary.to_dict()
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1))
    print(f"{figures['kills']} kills in {len(summary.results)} runs, {summary.seconds:.0f} s: {dict(summary.kills)}")
    print(f"in flight when slots, commands and workers were killed: {dict(summary.hit)}")
    print(f"calls through the bad network: {summary.calls}")
    print(f"the server's picture: {summary.picture}; parts that ended by themselves: {summary.parts_returned}")
    print("\n".join(f"BROKEN: {fault}" for fault in summary.faults) or "no rule was broken")
    return 1 if summary.faults else 0


if __name__ == "__main__":
    os.umask(0o022)  # the folder of Postgres belongs to another user
    sys.exit(main())
