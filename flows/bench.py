"""The paired benchmark: draw and judge, write the tables, write the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks import bench


def run(
    folder: str,
    split: str,
    pairs: int,
    rows: Sequence[str],
    base: str,
    preset: str,
    overrides: Mapping[str, Any],
    device: str,
    tell: Callable[[str, int, int], None],
) -> str:
    """Run the benchmark into a folder and return its table as text; see `blora.bench` for what is measured."""
    place = Path(folder)
    found = bench.measure(place, split, pairs, rows, base, preset, overrides, device, tell)
    bench.write_tables(place, found)
    return bench.write_report(place, found)
