"""`blora bench` from the command to the files, on two content and two style pictures and hardly any steps."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from flows.cli.main import app
from manifests.store.store import Store
from manifests.tables.measuring import BENCH, BENCH_RATES
from manifests.tables.parquet import from_parquet_bytes
from tasks.measuring.benchmark import FolderOfAdapters

FEW = ("train.steps=2", "train.rank=2", "train.batch_size=1", "sample.steps=2")


@pytest.mark.slow
@pytest.mark.s3
def test_a_small_benchmark_writes_tables_report_and_sheet(s3_root: str) -> None:
    """To a bucket: a folder takes what a bucket takes, and not the other way round."""
    options = [part for pair in FEW for part in ("--set", pair)]
    given = ["bench", s3_root, "--pairs", "2", "--rows", "blora,content", "--split", "test", "--style-pictures", "2"]
    given += options
    done = CliRunner().invoke(app, given)
    assert done.exit_code == 0, done.output
    place = Store.open(s3_root)
    pictures = from_parquet_bytes(place.read("bench.parquet"), BENCH).to_pylist()
    rates = from_parquet_bytes(place.read("rates.parquet"), BENCH_RATES).to_pylist()
    rows = ["blora", "content", "real"]
    pairs = len(pictures) // 3
    assert pairs >= 2 and [one["row"] for one in pictures] == [row for row in rows for _ in range(pairs)]
    assert {one["row"] for one in rates} == set(rows) and all(one["pairs"] == pairs for one in rates)
    for one in pictures:
        assert one["style_right"] == (one["style_named"] == one["style"])
        assert one["thing_right"] == (one["thing_found"] == one["thing"])
    about = json.loads(place.read("bench.json"))
    assert about["settings"]["train"]["steps"] == 2 and len(about["pictures"]) == len(pictures)
    page = place.read("report.md").decode()
    assert "the real drawing" in page
    for style in {str(one["style"]) for one in pictures}:
        own = [one for one in pictures if one["style"] == style and one["row"] == "real"]
        named, found = (sum(one[of] for one in own) / len(own) for of in ("style_right", "thing_right"))
        (line,) = [line for line in page.splitlines() if line.startswith(f"| {style} ") and "/" in line]
        assert f"| {len(own)} |" in line and line.endswith(f"| {named:.2f} / {found:.2f} |")
    assert Image.open(io.BytesIO(place.read("sheet.png"))).height > 96 * pairs
    assert len(FolderOfAdapters(place)) >= 3


def test_a_wrong_split_is_refused_with_what_is_accepted(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["bench", str(tmp_path), "--split", "train"])
    assert done.exit_code == 2 and "validation, test" in done.output
    assert list(tmp_path.iterdir()) == []


def test_adapters_in_a_folder_are_a_mapping(tmp_path: Path) -> None:
    kept = FolderOfAdapters(Store.open(str(tmp_path)))
    kept["one"] = b"1"
    assert "one" in kept and "two" not in kept and dict(kept) == {"one": b"1"}
    del kept["one"]
    assert len(kept) == 0
    with pytest.raises(KeyError):
        kept["one"]
