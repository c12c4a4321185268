"""Names that people have, as an export and the store write them."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from urllib.parse import unquote

import pytest

from manifests import layout
from tasks.closing.export import export_run
from tasks.review.score_filter import parse_conditions
from tasks.review.score_table import score_table
from tasks.run.outcome import read_records
from tasks.run.selection import select
from tests.made_run import finish, plan_run


def test_letters_of_all_scripts_stay_in_run_ids_and_in_exports(tmp_path: Path) -> None:
    store, plan = plan_run(tmp_path, ["りんご", "сова", "القط 🎨"], ["浮世絵", "Wave!"], name="夜の絵")
    run_id = plan.run.run_id
    assert run_id.startswith("夜の絵-") and finish(store, plan).complete
    assert [record.run_id for record in read_records(store)] == [run_id]
    assert export_run(store, run_id, str(tmp_path / "out")) == (6, 0)
    names = {path.name for path in (tmp_path / "out").glob("*__*.png")}
    assert names == {f"{c}__{s}__0.png" for c in ("りんご", "сова", "القط") for s in ("浮世絵", "wave")}
    page = (Path(store.root) / layout.report_prefix(run_id) / "index.html").read_text("utf-8")
    (link,) = {href for href in re.findall(r'href="([^"]*)"', page) if href.endswith("run.json")}
    assert (Path(store.root) / layout.report_prefix(run_id) / unquote(link)).resolve().is_file()


@pytest.mark.parametrize(
    ("contents", "names"),
    [
        (["Café", "cafe"], 2),
        (["🎨", "🎭"], 2),
        (["夜" * 90, "夜" * 91], 2),
        (["..", "/"], 2),
    ],
)
def test_names_that_read_alike_are_files_of_their_own(tmp_path: Path, contents: list[str], names: int) -> None:
    store, plan = plan_run(tmp_path, contents, ["wave"])
    finish(store, plan)
    assert export_run(store, plan.run.run_id, str(tmp_path / "out")) == (names, 0)
    files = [path.name for path in (tmp_path / "out").glob("*__*.png")]
    assert len(files) == names and all(len(name.encode()) <= 255 for name in files)


def test_names_are_asked_for_in_either_spelling(tmp_path: Path) -> None:
    store, plan = plan_run(tmp_path, ["café", "ガ"], ["Übermut", "wave"])
    finish(store, plan)
    for form in ("NFC", "NFD"):
        café, mood = (unicodedata.normalize(form, name) for name in ("café", "Übermut"))
        assert len(select(plan, (f"content={café}", f"style={mood}"), ()).samples) == 1
        rows = score_table(store, plan.run)
        for asked in (f"content={café}", f"style={mood}"):
            (condition,) = parse_conditions([asked], rows)
            assert sum(map(condition.meets, rows)) == 2
