"""Rows that are put together: names, and wrong rows that cost nothing but themselves."""

from __future__ import annotations

import json
import math
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from manifests.loading import assemble
from manifests.loading.load import load_manifest, parse_manifest
from manifests.parsing import fault_list
from manifests.schema import validate
from manifests.schema.entries import CHANGES_NO_PICTURE, PairEntry
from manifests.schema.rows import PairFields
from tests.manifests.loading.written import SMALL, good, load, pair_names, places

# Names


def test_names_in_any_script_meet_in_their_composed_form(tmp_path: Path) -> None:
    composed, apart = unicodedata.normalize("NFC", "Ünïcode 🌶 字"), unicodedata.normalize("NFD", "Ünïcode 🌶 字")
    assert composed != apart
    document = {
        "contents": [{"image": f"{apart}.png"}],
        "styles": ["s.png"],
        "pairs": [{"content": composed, "style": "s"}],
    }
    manifest = good(load(tmp_path, document, "m.json"))
    assert manifest.contents[0].name == composed
    assert manifest.contents[0].images == (str(tmp_path / f"{apart}.png"),), "the file keeps the name it has on disk"


def test_names_of_300_characters_are_kept_and_longer_ones_refused(tmp_path: Path) -> None:
    rows = [{"image": "a.png", "name": "字" * 300}, {"image": "b.png", "name": "字" * 301}, "x" * 301 + ".png"]
    loaded = load(tmp_path, {"contents": rows, "styles": ["s.png"]}, "m.json")
    assert pair_names(loaded) == [("字" * 300, "s")]
    assert [fault.field for fault in loaded.faults] == ["contents.name", "contents.name"]
    assert "300 characters" in loaded.faults[0].accepted


@pytest.mark.parametrize("name", ["", "  ", "a\u0000b", "a\u001b[2Jb", "a\ud800b", 7, None, True, ["a"]])
def test_names_that_are_none(tmp_path: Path, name: object) -> None:
    rows = [{"image": "a.png", "name": name}, "b.png"]
    loaded = load(tmp_path, {"contents": rows, "styles": ["s.png"]}, "m.json")
    if name is None:  # null is as if not given
        assert pair_names(loaded) == [("a", "s"), ("b", "s")]
    else:
        assert pair_names(loaded) == [("b", "s")] and places(loaded) == [(1, "contents.name")]
        json.dumps(str(loaded.faults[0])).encode("ascii")
        str(loaded.faults[0]).encode("utf-8")


def test_names_given_twice(tmp_path: Path) -> None:
    text = (
        "contents: [a.png, b.png,\n {image: c.png, name: a}]\nstyles: [x/s.png,\n y/s.png, {image: y/s.png, name: t}]\n"
    )
    loaded = load(tmp_path, text)
    assert places(loaded) == [(2, "contents.name"), (4, "styles.name")]
    assert "row 1" in loaded.faults[0].accepted
    assert pair_names(loaded) == [("a", "s"), ("a", "t"), ("b", "s"), ("b", "t")]


def test_in_tables_the_same_picture_may_come_again_but_not_another_under_its_name(tmp_path: Path) -> None:
    text = "content,style,content_word\nx/a.png,s.png,jar\nx/a.png,t.png,\ny/a.png,s.png,\nx/a.png,u.png,pot\n"
    loaded = load(tmp_path, text, "m.csv")
    assert pair_names(loaded) == [("a", "s"), ("a", "t")]
    assert [(f.row, f.what) for f in loaded.faults] == [
        (4, "two contents of one name"),
        (5, "two words for one content"),
    ]
    assert loaded.manifest is not None and [style.name for style in loaded.manifest.styles] == ["s", "t"]


def test_one_picture_under_two_names_is_two_entries(tmp_path: Path) -> None:
    rows = [{"image": "a.png", "name": "one"}, {"image": "a.png", "name": "two"}]
    assert pair_names(load(tmp_path, {"contents": rows, "styles": ["s.png"]}, "m.json")) == [("one", "s"), ("two", "s")]


# Wrong rows: each is a fault with its row, and the others go on


def test_all_faults_at_once_and_the_good_rows_survive(tmp_path: Path) -> None:
    loaded = load(
        tmp_path,
        """\
contents:
  - a.png
  - {imgae: b.png, name: b}
  - {image: c.png, name: c, colour: red, word: 5}
  - ../c.png
  - {image: d.png, images: [e.png], name: d}
  - {image: f.png, image: g.png, name: f}
  - {images: [g.png, https://host/h.png, 5], name: g}
  - 17
  - {images: [], name: i}
styles: [s.png]
pairs:
  - {content: a, style: s}
  - {content: A, style: wave}
  - {content: c, style: s, seeds: [1, -1, x]}
  - {content: a, style: s, content_strength: .nan, style_strength: 11}
  - {content: a}
  - just text
  - {content: a, style: s, seeds: [0]}
  - {content: a, style: s, seeds: [1, 2], sampels: 3}
  - {content: a, style: s, seeds: [1], samples: 3}
  - {content: a, style: s, seeds: [1, 1]}
  - {content: a, style: s, samples: 1001, prompt: [no]}
  - {content: a, style: s, seeds: [2]}
""",
    )
    assert places(loaded) == [
        (3, "contents.imgae"),
        (4, "contents.word"),
        (4, "contents.colour"),
        (5, "contents.image"),
        (6, "contents"),
        (7, "contents.image"),
        (8, "contents.images"),
        (8, "contents.image"),
        (9, "contents"),
        (10, "contents.images"),
        (14, "pairs.content"),
        (14, "pairs.style"),
        (15, "pairs.seeds"),
        (15, "pairs.seeds"),
        (15, "pairs.content"),
        (16, "pairs.content_strength"),
        (16, "pairs.style_strength"),
        (17, "pairs.prompt"),
        (18, "pairs"),
        (19, ""),
        (20, "pairs.sampels"),
        (21, "pairs"),
        (22, "pairs.seeds"),
        (23, "pairs.prompt"),
        (23, "pairs.samples"),
    ]
    assert pair_names(loaded) == [("a", "s"), ("a", "s")]
    assert loaded.manifest is not None and [pair.seeds for pair in loaded.manifest.pairs] == [(0,), (2,)]
    texts = {(fault.row, fault.field): fault for fault in loaded.faults}
    assert "did you mean image?" in texts[3, "contents.imgae"].hint
    assert 'put it in "quotes"' in texts[4, "contents.word"].hint
    assert "did you mean a?" in texts[14, "pairs.content"].hint
    assert texts[15, "pairs.content"].what == "pair with a refused content"
    assert texts[16, "pairs.content_strength"].what == "number is not finite"
    assert "did you mean samples?" in texts[20, "pairs.sampels"].hint
    assert "row 13" in texts[19, ""].received


def test_one_bad_row_among_ten_leaves_nine(tmp_path: Path) -> None:
    rows = [f"{index}.png,s.png" for index in range(10)]
    rows[4] = "../../4.png,s.png"
    loaded = load(tmp_path, "content,style\n" + "\n".join(rows), "m.csv")
    assert len(pair_names(loaded)) == 9 and places(loaded) == [(6, "content")]
    assert loaded.manifest is not None and len(loaded.manifest.contents) == 9


def test_wrong_rows_of_tables(tmp_path: Path) -> None:
    text = """\
content,style,content_name,style_name,content_strength,seeds,samples
a.png,s.png,,,,,
b.png,s.png,,,"0,5",,
c.png,s.png,,,NaN,1.5,
d.png,,,,,,
,,,,1,,
,s.png,name,,,,
e.png|../f.png,https://h/s.png,,,,,
g.png,s.png,,,,1|x,
h.png,s.png,,,,1|2,2
"""
    loaded = load(tmp_path, text + "|".join(["p.png"] * 33) + ",s.png,q,,,,\n", "m.csv")
    assert places(loaded) == [
        (3, "content_strength"),
        (4, "content_strength"),
        (4, "seeds"),
        (5, ""),
        (6, ""),
        (7, ""),
        (7, ""),
        (8, "content"),
        (8, "style"),
        (9, "seeds"),
        (10, ""),
        (11, "content"),
    ]
    assert pair_names(loaded) == [("a", "s")]


SAID = {
    "prompt": ("A [c] in [s] style", "A big [c] in [s] style"),
    "content_prompt": ("a [c]", "one [c]"),
    "negative_prompt": ("blur", ""),
    "content_strength": (1.0, 0.5),
    "style_strength": (1.0, 0.5),
    "own_style": (0.0, 0.5),
    "colour_of": ("content", "style"),
    "colour_by": ("transfer", "subject"),
    "colour_amount": (0.5, 1.0),
}
"""Fields that change a picture: what is said of all pairs, and what one pair says instead."""


@pytest.mark.parametrize(
    "name", sorted(PairFields.model_fields.keys() & PairEntry.model_fields.keys() - CHANGES_NO_PICTURE)
)
def test_what_is_said_once_holds_unless_a_pair_says_more_and_makes_it_another_picture(
    tmp_path: Path, name: str
) -> None:
    of_all, own = SAID[name]
    pairs: list[dict[str, object]] = [{"content": "a", "style": "s"}, {"content": "a", "style": "s", name: own}]
    manifest = good(load(tmp_path, {**SMALL, name: of_all, "pairs": pairs}, "m.json"))
    assert [getattr(pair, name) for pair in manifest.pairs] == [of_all, own]
    again = load(tmp_path, {**SMALL, name: of_all, "pairs": [*pairs, pairs[1]]}, "m.json")
    assert [fault.what for fault in again.faults] == ["sample drawn twice"]


def test_nan_in_parquet_is_a_fault_of_its_row(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    strengths = pa.array([1.0, math.nan, None, math.inf])
    pq.write_table(
        pa.table({"content": ["a", "b", "c", "d"], "style": ["s"] * 4, "style_strength": strengths}),
        tmp_path / "m.parquet",
    )
    loaded = load_manifest(str(tmp_path / "m.parquet"))
    assert places(loaded) == [(2, "style_strength"), (4, "style_strength")]
    assert pair_names(loaded) == [("a", "s"), ("c", "s")]


def test_fields_of_pairs_on_rows_of_a_grid_are_refused(tmp_path: Path) -> None:
    loaded = load(tmp_path, "content,style,seeds\na.png,,\n,s.png,\nb.png,,1\n", "m.csv")
    assert places(loaded) == [(4, "")] and pair_names(loaded) == [("a", "s")]


@pytest.mark.parametrize("path", ["../m.png", "/etc/passwd", "link.png", "s3://bucket/b.png"])
def test_pictures_outside_the_roots_are_refused_unless_allowed(tmp_path: Path, path: str) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "link.png").symlink_to("/etc/hostname")
    document = {"contents": ["a.png", path], "styles": ["s.png"]}
    loaded = load(own, document, "m.json")
    assert places(loaded) == [(1, "contents.image")] and len(pair_names(loaded)) == 1
    assert "--allow-root" in loaded.faults[0].hint
    allowed = ["s3://bucket"] if path.startswith("s3:") else [str(tmp_path), "/etc"]
    assert len(good(load(own, document, "m.json", allowed_roots=allowed)).pairs) == 2


def test_credentials_in_addresses_reach_no_fault(tmp_path: Path) -> None:
    document = SMALL | {"contents": ["a.png", "s3://key:hush@bucket/a.png"], "base": "s3://key:hush@bucket/base"}
    for loaded in (
        load(tmp_path, document, "m.json"),
        load_manifest("s3://key:hush@bucket/m.yaml"),
        load_manifest("https://key:hush@host/m.yaml?signature=hush"),
        parse_manifest(SMALL, "json", "s3://key:hush@bucket/m.yaml", [str(tmp_path)]),
    ):
        assert "hush" not in repr(loaded)


# Limits


def test_more_pairs_or_samples_than_the_limits_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assemble, "MAX_PAIRS", 4)
    monkeypatch.setattr(assemble, "MAX_SAMPLES", 8)
    pairs = [{"content": "a", "style": "s", "seeds": [seed]} for seed in range(5)]
    assert len(good(load(tmp_path, SMALL | {"samples": 2}, "m.json")).pairs) == 4
    for document, what in (
        (SMALL | {"contents": ["a.png", "b.png", "c.png"]}, "too many pairs"),
        (SMALL | {"pairs": pairs}, "too many pairs"),
        (SMALL | {"samples": 3}, "too many samples"),
        (SMALL | {"samples": 2, "candidates": 2}, "too many samples"),
    ):
        loaded = load(tmp_path, document, "m.json")
        assert loaded.manifest is None and [fault.what for fault in loaded.faults] == [what]


def test_thousands_of_wrong_names_cost_no_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assemble, "_MOST_SUGGESTIONS", 2)
    pairs = [{"content": f"a{index}", "style": "s"} for index in range(4)]
    loaded = load(tmp_path, SMALL | {"contents": ["a.png"], "pairs": pairs}, "m.json")
    meant = ["did you mean a?", "did you mean a?", "add it to the contents", "add it to the contents"]
    assert [fault.hint for fault in loaded.faults] == meant


def test_faults_that_nobody_is_told_of_are_counted_and_not_worded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worded = []
    monkeypatch.setattr(fault_list, "MAX_FAULTS", 10)
    monkeypatch.setattr(validate, "_add_fault", lambda *said, add=validate._add_fault: (worded.append(1), add(*said)))
    rows = "a.png,s.png,x,y\n" * 1000
    loaded = load(tmp_path, "content,style,style_strength,seeds\n" + rows + "b.png,s.png,1,1\n", "m.csv")
    assert "1,990 more faults" in str(loaded.faults[-1]) and len(worded) == 10
    assert pair_names(loaded) == [("b", "s")], "and the good rows survive"


@pytest.mark.parametrize("place", [(), ("settings",), ("settings", "train"), ("contents", 0)])
def test_more_keys_than_anybody_writes_are_one_fault(place: tuple[str | int, ...]) -> None:
    document: dict[str, Any] = {"contents": [{"image": "a.png"}], "styles": ["s.png"], "settings": {"train": {}}}
    mapping: Any = document
    for step in place:
        mapping = mapping[step]
    mapping.update({f"key-{number}": 1 for number in range(100_000)})
    (fault,) = parse_manifest(document, "json", "m", ["/p"]).faults
    assert fault.what == "too many keys" and fault.received.startswith("100")
