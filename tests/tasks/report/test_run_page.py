"""The page of a run as files: what is written, what a rerun rewrites, what a copy holds, and that texts stay texts."""

from __future__ import annotations

import json
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from manifests import layout
from manifests.store.run_folder import RunFolder
from manifests.store.store import Store
from manifests.tables.run import NOTES_FILE
from tasks.messages import ScoreShard
from tasks.report.html import script_data
from tasks.report.run_page import SCRIPTS, copy_report, write_report
from tasks.report.thumbnails import in_pages, write_thumbnails
from tasks.run.plan import load_plan
from tasks.worker.score import score_shard
from tasks.worker.session import Session
from tests.made_run import HOSTILE, finish, plan_run, png, record_reads


def page_data(folder: Path) -> dict[str, Any]:
    """What the scripts of a page find as `blora.data`."""
    text = (folder / "data.js").read_text("ascii")
    return dict(json.loads(text.split("blora.data = ", 1)[1].rstrip(";\n")))


class Page(HTMLParser):
    """Tags, links and texts of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.attributes: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links += [value for name, value in attrs if name in ("href", "src") and value]


def test_what_was_done_to_a_picture_stands_in_a_table_and_on_the_page(tmp_path: Path) -> None:
    (tmp_path / "inputs").mkdir()
    Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64) * 16).save(tmp_path / "inputs/contents0.png")
    store, plan = plan_run(tmp_path, ["<b>apple", "owl"], ["wave"])
    finish(store, plan)
    run = RunFolder(store, plan.run.run_id)
    (row,) = run.rows(NOTES_FILE)
    assert (row["item"], row["file"], row["text"]) == ("<b>apple", "inline", "16 bits a channel reduced to 8")
    page = store.read(f"{layout.report_prefix(plan.run.run_id)}index.html").decode()
    assert page.count("16 bits a channel reduced to 8") == 1 and "<b>apple" not in page and "notes.parquet" in page


def test_a_finished_run_has_a_page_whose_links_all_lead_somewhere(tmp_path: Path) -> None:
    store, plan = plan_run(tmp_path, ["apple", "owl"], ["wave", "night"], seeds=(0, 1))
    assert finish(store, plan).complete
    folder = Path(store.root) / layout.report_prefix(plan.run.run_id)
    page = Page((folder / "index.html").read_text("utf-8"))
    relative = [link.partition("?")[0] for link in page.links if not link.startswith(("#", "data:,"))]
    assert {"data.js", "page.css", *SCRIPTS} <= set(relative)
    assert [link for link in relative if ":" in link or not (folder / link).resolve().is_file()] == []
    assert any(link.endswith("content.safetensors") for link in relative)
    assert any(link.endswith("scores.parquet") for link in relative)
    assert any(link.endswith("report/contact_sheet.png") for link in relative)
    data = page_data(folder)
    for number, sample_id in enumerate(data["samples"]["id"]):
        sides = data["contents"][data["samples"]["content"][number]], data["styles"][data["samples"]["style"][number]]
        key = f"samples/{sides[0]['id']}/{sides[1]['id']}/{sample_id}.png"
        assert (folder / data["root"] / key).resolve().is_file()
    assert all((folder / "thumbnails" / f"{name}.js").is_file() for name, _ in data["thumbnails"])


def test_faults_and_missing_pictures_are_told(tmp_path: Path) -> None:
    store, plan = plan_run(tmp_path, ["apple"], ["wave", "night"])
    finish(store, plan, missing=[1])
    folder = Path(store.root) / layout.report_prefix(plan.run.run_id)
    html = (folder / "index.html").read_text("utf-8")
    assert "1 of 2 pictures" in html
    assert "apple x night, seed 0 is missing in the store" in html and "blora rerun does just what is missing" in html
    assert page_data(folder)["samples"]["bytes"].count(None) == 1


def test_hostile_texts_are_text_in_the_page_and_in_its_data(tmp_path: Path) -> None:
    store, plan = plan_run(tmp_path, [HOSTILE], ["wave"], name=f"n{HOSTILE}")
    finish(store, plan, missing=[0])
    folder = Path(store.root) / layout.report_prefix(plan.run.run_id)
    page = Page((folder / "index.html").read_text("utf-8"))
    assert "img" not in page.tags and not {name for name in page.attributes if name.startswith("on")}
    assert page.tags.count("script") == len(SCRIPTS) + 1
    raw = (folder / "data.js").read_bytes()
    assert b"<" not in raw and raw.isascii() and raw.count(b"\n") == 3
    name = page_data(folder)["contents"][0]["name"]
    assert name == plan.samples[0].content_name and "<img src=x onerror=" in name and "</script>" in name


def test_data_of_a_script_cannot_end_it() -> None:
    data = {"name": "</script><!--\u2028\u2029\U0001f600"}
    text = script_data(data).decode("ascii")
    assert "<" not in text and len(text.splitlines()) == 3
    assert json.loads(text.split("blora.data = ")[1].rstrip(";\n")) == data


def test_no_style_or_script_stands_in_the_page_and_none_comes_from_elsewhere(tmp_path: Path) -> None:
    store, plan = plan_run(tmp_path, ["apple"], ["wave"])
    finish(store, plan)
    folder = Path(store.root) / layout.report_prefix(plan.run.run_id)
    html = (folder / "index.html").read_text("utf-8")
    assert "default-src 'none'" in unescape(html) and "unsafe" not in html
    page = Page(html)
    assert "style" not in page.attributes and "style" not in page.tags
    assert re.findall(r"https?:", html) == []
    for name in SCRIPTS:
        script = (folder / name).read_text()
        # What blora serve shows saves decisions where it came from; nothing else is sent or asked for.
        if name == "saving.js":
            assert script.count("fetch(") == 1
            script = script.replace("await fetch(`${served[0]}decisions`", "")
        assert not re.search(
            r"innerHTML|insertAdjacentHTML|document\.write|\beval\b|fetch\(|XMLHttpRequest|https?:", script
        )


def test_a_report_of_a_run_that_goes_on_shows_what_is_there(tmp_path: Path) -> None:
    store, plan = plan_run(tmp_path, ["apple"], ["wave", "night"])
    first = plan.samples[0]
    store.write_once(first.key, png(1))
    html = store.read(write_report(store, plan)).decode()
    assert "1 of 2 pictures" in html


def test_only_pages_of_thumbnails_that_changed_are_written_again(tmp_path: Path) -> None:
    source, target = Store.open(str(tmp_path / "a")), Store.open(str(tmp_path / "b"))
    keys: list[str | None] = [f"p{number}.png" for number in range(130)]
    for number, key in enumerate(keys):
        source.replace(str(key), png(number % 3, 8))
    keys[129] = None
    target.replace("t/theirs.js", b"not ours")
    pages = write_thumbnails(source, in_pages(keys), target, "t/")
    assert [count for _, count in pages] == [64, 64, 2]
    names = [name for name, _ in pages]
    assert len(names) == 3 and len(target.list("t")) == 4
    before = {key: entry.modified for key, entry in target.list("t").items()}
    source.replace("p128.png", b"no picture")
    keys[129] = "p129.png"
    again = [name for name, _ in write_thumbnails(source, in_pages(keys), target, "t/")]
    assert again[:2] == names[:2] and again[2] != names[2]
    after = {key: entry.modified for key, entry in target.list("t").items()}
    assert {f"t/{name}.js" for name in again} | {"t/theirs.js"} == set(after)
    assert all(after[f"t/{name}.js"] == before[f"t/{name}.js"] for name in again[:2])
    pictures = json.loads(target.read(f"t/{again[2]}.js").decode().split(", ", 1)[1].rstrip(";\n)"))
    assert pictures[0] == "" and pictures[1].startswith("UklGR")


def test_who_scores_writes_the_thumbnails_and_the_page_reads_no_picture_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, plan = plan_run(tmp_path, ["apple", "owl"], ["wave", "night"])
    assert len(plan.shards) == 2
    for number, sample in enumerate(plan.samples[:-1]):
        store.write_once(sample.key, png(number))
    session = Session("cpu", store, lambda event: None)
    for shard in plan.shards:
        score_shard(session, ScoreShard(plan.run.run_id, shard.shard_id))
    pages = store.list(layout.thumbnails_prefix(plan.run.run_id))
    assert len(pages) == 2
    asked = record_reads(monkeypatch, store)
    write_report(store, plan)
    assert not [key for key in asked if key.startswith(layout.SAMPLES_PREFIX)]
    assert pages.keys() < store.list(layout.thumbnails_prefix(plan.run.run_id)).keys(), "and the page of the inputs"
    # The last picture comes later: the page of its shard is another one, and the old one goes.
    store.write_once(plan.samples[-1].key, png(9))
    score_shard(session, ScoreShard(plan.run.run_id, plan.shards[1].shard_id))
    asked.clear()
    write_report(store, plan)
    assert {key for key in asked if key.startswith(layout.SAMPLES_PREFIX)} == {s.key for s in plan.shards[1].samples}
    assert len(store.list(layout.thumbnails_prefix(plan.run.run_id))) == 3


@pytest.mark.parametrize("pictures", [True, False])
def test_a_copy_holds_all_that_it_shows_and_nothing_is_asked_of_the_store(tmp_path: Path, pictures: bool) -> None:
    store, plan = plan_run(tmp_path, ["apple"], ["wave", "night"])
    finish(store, plan)
    index = Path(copy_report(store, plan.run.run_id, str(tmp_path / "copy"), pictures=pictures))
    page = Page(index.read_text("utf-8"))
    relative = [link.partition("?")[0] for link in page.links if not link.startswith(("#", "data:,"))]
    assert [link for link in relative if ".." in link or not (index.parent / link).is_file()] == []
    data = page_data(index.parent)
    assert data["pictures"] is pictures and data["adapters"] is False
    drawn = [(index.parent / data["root"] / sample.key).is_file() for sample in plan.samples]
    assert drawn == [pictures] * 2
    assert all((index.parent / data["root"] / key).is_file() for key in data["references"])


@pytest.mark.s3
def test_a_bucket_serves_the_page_as_a_page(s3_root: str, tmp_path: Path) -> None:
    folder, plan = plan_run(tmp_path, ["apple"], ["wave"])
    finish(folder, plan)
    bucket = Store.open(s3_root)
    for key in folder.list(""):
        bucket.replace(key, folder.read(key))
    key = write_report(bucket, load_plan(bucket, plan.run.run_id))
    from s3fs import S3FileSystem

    files = S3FileSystem(skip_instance_cache=True)
    prefix = f"{s3_root}/{layout.report_prefix(plan.run.run_id)}"
    assert key == f"{layout.report_prefix(plan.run.run_id)}index.html"
    kinds = {
        name: files.info(prefix + name)["ContentType"].partition(";")[0]
        for name in ("index.html", "data.js", "page.css")
    }
    assert kinds == {"index.html": "text/html", "data.js": "text/javascript", "page.css": "text/css"}
