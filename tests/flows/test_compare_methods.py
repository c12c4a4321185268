"""Alternatives side by side by the command: a manifest goes in, one table and one sheet come out, on real slots."""

from __future__ import annotations

from pathlib import Path

import pytest

from manifests.store.store import Store
from manifests.tables.measuring import METHODS
from manifests.tables.parquet import from_parquet_bytes
from tests.flows.cli.test_main import blora
from tests.flows.conftest import Project, live_leases

pytestmark = pytest.mark.usefixtures("prefect_api", "warm_slots")


def test_the_command_compares_methods_on_a_manifest(project: Project, tmp_path: Path) -> None:
    one = [{"image": f"{name}.png", "name": name, "word": "thing"} for name in ("c0", "s0", "s1")]
    project.write(contents=one[:1], styles=one[1:])
    root = tmp_path / "store"
    command = ("compare-methods", str(project.path), *project.allow, "--devices", "cpu")
    code, printed, errors = blora(*command, "--methods", "prompt,all_attention", root=root)
    assert code == 0, errors
    head = next(line for line in printed.splitlines() if "all_attention" in line)
    assert head.split() == ["blora", "all_attention", "prompt"]
    for measure in ("transfer", "style_lite0", "training an adapter, s", "an adapter in fp16, MB"):
        assert sum(line.startswith(measure) for line in printed.splitlines()) == 1, measure
    assert "2 of each method" in printed
    store = Store.open(str(root))
    (key,) = [key for key in store.list("runs/") if key.endswith("methods/methods.parquet")]
    rows = from_parquet_bytes(store.read(key), METHODS).to_pylist()
    assert {row["method"] for row in rows} == {"blora", "all_attention", "prompt"}
    assert store.exists(key.replace("methods.parquet", "sheet.png")) and live_leases(store) == []
    made = {
        key: entry.modified for key, entry in store.list("runs/").items() if "/methods/" in key and key.count("/") == 4
    }
    code, again, errors = blora(*command, "--methods", "all_attention", root=root)
    assert code == 0 and "prompt" not in again, errors
    assert {key: entry.modified for key, entry in store.list("runs/").items() if key in made} == made, "made again"
    code, _, errors = blora(*command, "--methods", "lora", root=root)
    assert code == 2 and "received lora; accepted: some of all_attention, prompt, magenta" in errors
