"""Every row of the table in `manifests.loading.load`: what manifests say, in all formats, right and wrong."""

from __future__ import annotations

import io
import json
import math
import os
import unicodedata
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from manifests.faults import Fault
from manifests.loading import assemble
from manifests.loading.load import MAX_MANIFEST_BYTES, Loaded, load_manifest, parse_manifest
from manifests.schema.entries import Manifest, PairEntry
from manifests.store.store import Store
from tests.servers import S3Server

FULL = """\
version: 1
name: demo
base: embedded
preset: draft
settings: {train: {steps: 200}, sample: {guidance_scale: 4.0}}
contents:
  - {image: images/pepper.png, word: bell  pepper}
  - images: [images/a.png, images/b.png]
    name: teapot
styles:
  - images/wave.png
pairs:
  - {content: pepper, style: wave}
  - {content: teapot, style: wave, prompt: own, content_strength: 0, style_strength: 1.1, seeds: [5, 7]}
  - {content: teapot, style: wave, samples: 3, negative_prompt: ""}
prompt: "A [c] in [s] style"
content_prompt: "a [c]"
content_strength: 0.9
seeds: [0, 1]
strength_reading: reference
on_fault: stop
"""
SMALL = {"contents": ["a.png", "b.png"], "styles": ["s.png", "t.png"]}


def load(folder: Path, text: str | bytes | dict[str, Any], name: str = "m.yaml", **options: Any) -> Loaded:
    path = folder / name
    if isinstance(text, dict):
        text = json.dumps(text)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return load_manifest(str(path), **options)


def good(loaded: Loaded) -> Manifest:
    assert [str(fault) for fault in loaded.faults] == []
    assert loaded.manifest is not None
    return loaded.manifest


def places(loaded: Loaded) -> list[tuple[int | None, str]]:
    """The rows and fields of the faults; checks on the way that each says what is needed."""
    for fault in loaded.faults:
        assert fault.kind == "manifest" and fault.what and fault.file and fault.hint and "\n" not in str(fault)
    return [(fault.row, fault.field) for fault in loaded.faults]


def pair_names(loaded: Loaded) -> list[tuple[str, str]]:
    return [(pair.content, pair.style) for pair in loaded.manifest.pairs] if loaded.manifest else []


def parquet(rows: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    pd.DataFrame(rows).to_parquet(out)
    return out.getvalue()


# What right manifests say


def test_a_full_yaml_manifest(tmp_path: Path) -> None:
    manifest = good(load(tmp_path, FULL))
    own, file = str(tmp_path), str(tmp_path / "m.yaml")
    assert manifest.model_dump(exclude={"contents", "styles", "pairs"}) == {
        "name": "demo",
        "base": "embedded",
        "preset": "draft",
        "settings": {"train": {"steps": 200}, "sample": {"guidance_scale": 4.0}},
        "strength_reading": "reference",
        "on_fault": "stop",
        "source": file,
    }
    images = [(entry.name, entry.images, entry.word, entry.row) for entry in (*manifest.contents, *manifest.styles)]
    assert images == [
        ("pepper", (f"{own}/images/pepper.png",), "bell pepper", 7),
        ("teapot", (f"{own}/images/a.png", f"{own}/images/b.png"), None, 8),
        ("wave", (f"{own}/images/wave.png",), None, 11),
    ]
    common = {"content_prompt": "a [c]", "file": file, "style": "wave"}
    told = {"prompt": "A [c] in [s] style", "content_strength": 0.9}
    own_words = {"prompt": "own", "content_strength": 0.0, "style_strength": 1.1}
    assert manifest.pairs == (
        PairEntry(content="pepper", seeds=(0, 1), row=13, **told, **common),
        PairEntry(content="teapot", seeds=(5, 7), row=14, **own_words, **common),
        PairEntry(content="teapot", seeds=(0, 1, 2), row=15, negative_prompt="", **told, **common),
    )


def test_json_and_an_inline_mapping_say_the_same(tmp_path: Path) -> None:
    document = yaml.safe_load(FULL)
    expected = good(load(tmp_path, FULL)).model_dump(exclude={"source"})
    inline = parse_manifest(document, "json", "form", [str(tmp_path)])
    for loaded in (load(tmp_path, document, "m.json"), inline):
        assert _without_places(good(loaded).model_dump(exclude={"source"})) == _without_places(expected)
    assert {pair.row for pair in good(inline).pairs} == {None}


def _without_places(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_places(item) for key, item in value.items() if key not in ("row", "file")}
    return [_without_places(item) for item in value] if isinstance(value, list | tuple) else value


def test_csv_and_parquet_pairs_say_the_same(tmp_path: Path) -> None:
    header = "content,style,content_name,content_word,prompt,content_strength,seeds,samples\n"
    text = f"{header}a.png,s.png,,,A [c],0.5,0|2,\na.png,t.png,,jar,,,,3\n b.png | c.png ,t.png,pot,,,,4,\n"
    columns = {
        "content": ["a.png", "a.png", "b.png|c.png"],
        "style": ["s.png", "t.png", "t.png"],
        "content_name": [None, None, "pot"],
        "content_word": [None, "jar", None],
        "prompt": ["A [c]", None, None],
        "content_strength": [0.5, None, None],
        "seeds": [[0, 2], None, [4]],
        "samples": [None, 3, None],
    }
    for loaded in (load(tmp_path, text, "m.csv"), load(tmp_path, parquet(columns), "m.parquet")):
        manifest = good(loaded)
        assert manifest.name == "m" and manifest.base == "embedded" and manifest.preset == "demo"
        assert [(entry.name, entry.word, len(entry.images)) for entry in manifest.contents] == [
            ("a", "jar", 1),
            ("pot", None, 2),
        ]
        told = [(p.content, p.style, p.prompt, p.content_strength, p.seeds) for p in manifest.pairs]
        assert told == [
            ("a", "s", "A [c]", 0.5, (0, 2)),
            ("a", "t", None, None, (0, 1, 2)),
            ("pot", "t", None, None, (4,)),
        ]
    assert [pair.row for pair in good(load(tmp_path, text, "m.csv")).pairs] == [2, 3, 4]
    assert [pair.row for pair in good(load(tmp_path, parquet(columns), "m.parquet")).pairs] == [1, 2, 3]


@pytest.mark.parametrize("grid", [{}, {"grid": True}])
def test_without_pairs_every_content_meets_every_style(tmp_path: Path, grid: dict[str, Any]) -> None:
    loaded = load(tmp_path, SMALL | grid | {"samples": 2, "style_strength": 0.5}, "m.json")
    assert pair_names(loaded) == [("a", "s"), ("a", "t"), ("b", "s"), ("b", "t")]
    pairs = good(loaded).pairs
    assert {(pair.seeds, pair.style_strength, pair.row) for pair in pairs} == {((0, 1), 0.5, None)}


def test_candidates_are_said_once_or_by_a_pair_in_every_format(tmp_path: Path) -> None:
    pairs = [{"content": "a", "style": "s"}, {"content": "a", "style": "t", "candidates": 2}]
    document = good(load(tmp_path, SMALL | {"pairs": pairs, "candidates": 8}, "m.json"))
    table = good(load(tmp_path, "content,style,candidates\na.png,s.png,8\na.png,t.png,2\nb.png,t.png,\n", "m.csv"))
    assert [pair.candidates for pair in document.pairs] == [8, 2]
    assert [pair.candidates for pair in table.pairs] == [8, 2, 1]


def test_a_table_of_one_sided_rows_is_a_grid(tmp_path: Path) -> None:
    text = "content,content_word,style\na.png,jar,\n,,s.png\nb.png,,\n,,t.png\n"
    assert pair_names(load(tmp_path, text, "m.csv")) == [("a", "s"), ("a", "t"), ("b", "s"), ("b", "t")]


def test_seed_zero_is_a_seed_like_any_other(tmp_path: Path) -> None:
    pairs = [{"content": "a", "style": "s", "seeds": 0}, {"content": "a", "style": "t"}]
    manifest = good(load(tmp_path, SMALL | {"pairs": pairs, "seeds": [3]}, "m.json"))
    assert [pair.seeds for pair in manifest.pairs] == [(0,), (3,)]


def test_keys_without_a_value_are_as_if_not_given(tmp_path: Path) -> None:
    text = (
        "settings:\nprompt: null\nseeds: ~\nbase:\ncontents:\n- {image: a.png, name: null, word: }\nstyles: [s.png]\n"
    )
    manifest = good(load(tmp_path, text))
    assert (manifest.settings, manifest.base, manifest.contents[0].word) == ({}, "embedded", None)
    assert manifest.pairs == (PairEntry(content="a", style="s", file=manifest.source),)


def test_the_result_is_frozen_and_closed(tmp_path: Path) -> None:
    manifest = good(load(tmp_path, FULL))
    with pytest.raises(ValidationError):
        manifest.name = "other"
    with pytest.raises(ValidationError):
        PairEntry(content="a", style="b", strength=1)
    assert Manifest.model_validate_json(manifest.model_dump_json()) == manifest


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


# Wrong heads: the whole manifest means something else than was meant


@pytest.mark.parametrize(
    ("said", "field", "hint"),
    [
        ({"promt": "x"}, "promt", "did you mean prompt?"),
        ({"version": 2}, "version", ""),
        ({"preset": "darft"}, "preset", "did you mean draft?"),
        ({"on_fault": 5}, "on_fault", ""),
        ({"settings": []}, "settings", ""),
        ({"settings": {"train": {"steps": math.nan}}}, "settings.train.steps", ""),
        ({"settings": {"train": ["\ud800"]}}, "settings.train.0", ""),
        ({"grid": "perhaps"}, "grid", ""),
        ({"grid": False}, "grid", ""),
        ({"grid": True, "pairs": [{"content": "a", "style": "s"}]}, "grid", ""),
        ({"pairs": []}, "pairs", ""),
        ({"pairs": {"content": "a", "style": "s"}}, "pairs", ""),
        ({"styles": "s.png"}, "styles", ""),
        ({"styles": None}, "styles", ""),
        ({"seeds": []}, "seeds", ""),
        ({"seeds": [2**63]}, "seeds", ""),
        ({"seeds": [True]}, "seeds", ""),
        ({"seeds": "1|" * 20_000}, "seeds", ""),
        ({"seeds": [0], "samples": 1}, "", ""),
        ({"samples": 0}, "samples", ""),
        ({"candidates": 0}, "candidates", ""),
        ({"candidates": 65}, "candidates", ""),
        ({"candidates": True}, "candidates", ""),
        ({"candidate": 2}, "candidate", "did you mean candidates?"),
        ({"style_strength": -0.1}, "style_strength", ""),
        ({"content_strength": True}, "content_strength", ""),
        ({"prompt": "x" * 2001}, "prompt", ""),
        ({"prompt": "a\u0301\u0316" * 100_000}, "prompt", ""),
        ({"base": "org/model@main"}, "base", "commit"),
        ({"base": "org/model"}, "base", "revision"),
        ({"base": "../models"}, "base", "--allow-root"),
        ({"base": ""}, "base", ""),
    ],
)
def test_a_wrong_head_refuses_the_manifest_and_still_checks_the_rows(
    tmp_path: Path, said: dict[str, Any], field: str, hint: str
) -> None:
    document = {"contents": ["a.png", "../outside.png"]} | {"styles": ["s.png"]} | said
    loaded = parse_manifest(json.dumps(document).encode(), "json", "m.json", [str(tmp_path)])
    assert loaded.manifest is None
    assert [place[1] for place in places(loaded)] == [field, "contents.image"]
    assert hint in loaded.faults[0].hint


def test_repeated_keys_at_the_head_refuse_the_manifest(tmp_path: Path) -> None:
    text = '{"contents": ["a.png"],\n"styles": ["s.png"],\n"seeds": [0],\n'
    text += '"settings": {"train": {"steps": 1,\n"steps": 2}},\n"seeds": [1]}'
    loaded = load(tmp_path, text, "m.json")
    assert loaded.manifest is None and places(loaded) == [(5, "settings.train.steps"), (6, "seeds")]


@pytest.mark.parametrize("text", ["just text", "- a\n- b", "5", "null", "{}", '{"contents": ["a.png"]}'])
@pytest.mark.parametrize("name", ["m.json", "m.yaml"])
def test_documents_that_are_no_manifest(tmp_path: Path, text: str, name: str) -> None:
    loaded = load(tmp_path, text, name)
    assert loaded.manifest is None and loaded.faults


@pytest.mark.parametrize("base", ["embedded", "org/model@" + "0a" * 20, "models/sdxl", "s3://bucket/base"])
def test_bases_that_are_accepted(tmp_path: Path, base: str) -> None:
    (tmp_path / "models" / "sdxl").mkdir(parents=True)
    manifest = good(load(tmp_path, SMALL | {"base": base}, "m.json", allowed_roots=["s3://bucket"]))
    assert manifest.base == (str(tmp_path / base) if base.startswith("models") else base)


def test_only_faults_leave_no_manifest(tmp_path: Path) -> None:
    for text, name in (
        ("content,style\n", "m.csv"),
        ("content,style\n../a.png,s.png\n", "m.csv"),
        ("content,content_name\na.png,b\n", "m.csv"),
        ("style\ns.png\n", "m.csv"),
        ("contents: [../a.png]\nstyles: [s.png]", "m.yaml"),
    ):
        loaded = load(tmp_path, text, name)
        assert loaded.manifest is None and len(loaded.faults) == 1, text


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


# Files


def fault_of(loaded: Loaded) -> Fault:
    assert loaded.manifest is None
    (fault,) = loaded.faults
    assert fault.what and fault.file and fault.hint
    return fault


def test_a_manifest_that_is_not_there(tmp_path: Path) -> None:
    fault = fault_of(load_manifest(str(tmp_path / "no.yaml")))
    assert fault.file == str(tmp_path / "no.yaml") and not fault.transient


@pytest.mark.parametrize("name", ["m.txt", "m", "m.yaml.bak", "m.xlsx"])
def test_other_extensions_are_refused(tmp_path: Path, name: str) -> None:
    assert ".parquet" in fault_of(load(tmp_path, FULL, name)).accepted


def test_extensions_in_capitals_are_the_same(tmp_path: Path) -> None:
    assert len(good(load(tmp_path, FULL, "M.YML")).pairs) == 3


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo], ids=["folder", "pipe"])
def test_what_is_no_file_is_refused(tmp_path: Path, make: Any) -> None:
    make(tmp_path / "m.yaml")
    fault_of(load_manifest(str(tmp_path / "m.yaml")))


def test_huge_manifests_are_refused_unread(tmp_path: Path) -> None:
    with open(tmp_path / "m.yaml", "wb") as file:
        file.truncate(10 * 2**40)  # ten terabytes that take no room
    assert str(MAX_MANIFEST_BYTES) in str(fault_of(load_manifest(str(tmp_path / "m.yaml"))))


@pytest.mark.parametrize("name", ["m.csv", "m.yaml", "m.json"])
def test_files_of_another_kind_are_named(tmp_path: Path, name: str) -> None:
    assert "Parquet" in fault_of(load(tmp_path, parquet({"content": ["a"]}), name)).received
    assert "CSV" in fault_of(load(tmp_path, b"PK\x03\x04" + b"\0" * 50, name)).hint
    assert "PNG" in fault_of(load(tmp_path, b"\x89PNG\r\n\x1a\n", name)).received


@pytest.mark.parametrize("name", ["m.yaml", "m.json", "m.csv", "m.parquet"])
@pytest.mark.parametrize("data", [b"", b"\xff\xfen\0", b"\x00\x01\x02", b"a: [", b'{"a": '])
def test_broken_files_end_in_faults(tmp_path: Path, name: str, data: bytes) -> None:
    loaded = load(tmp_path, data, name)
    assert loaded.manifest is None and loaded.faults


@pytest.mark.s3
def test_manifests_and_pictures_in_a_bucket(s3_server: S3Server, s3_root: str) -> None:
    text = f"contents: [a.png, ../b.png, {s3_root}/other/c.png, /etc/passwd]\nstyles: [{s3_root}/inbox/s.png]\n"
    Store.open(s3_root).write_once("inbox/ä.yaml", text.encode())
    address = f"{s3_root}/inbox/ä.yaml"
    loaded = load_manifest(address)
    assert places(loaded) == [(1, "contents.image")] * 3 and pair_names(loaded) == [("a", "s")]
    assert loaded.manifest is not None and loaded.manifest.source == address and loaded.manifest.name == "ä"
    assert loaded.manifest.contents[0].images == (f"{s3_root}/inbox/a.png",)
    allowed = load_manifest(address, allowed_roots=[s3_root])
    assert pair_names(allowed) == [("a", "s"), ("b", "s"), ("c", "s")]
    assert fault_of(load_manifest(f"{s3_root}/inbox/no.yaml")).file == f"{s3_root}/inbox/no.yaml"
    assert s3_server.secret_access_key not in repr((loaded, allowed))


def test_a_root_that_is_no_address_is_a_fault(tmp_path: Path) -> None:
    assert "https" in fault_of(load(tmp_path, SMALL, "m.json", allowed_roots=["https://host/folder"])).received


def test_thousands_of_wrong_names_cost_no_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assemble, "_MOST_SUGGESTIONS", 2)
    pairs = [{"content": f"a{index}", "style": "s"} for index in range(4)]
    loaded = load(tmp_path, SMALL | {"contents": ["a.png"], "pairs": pairs}, "m.json")
    meant = ["did you mean a?", "did you mean a?", "add it to the contents", "add it to the contents"]
    assert [fault.hint for fault in loaded.faults] == meant


# Anything at all


_SEEDS = {
    "yaml": FULL.encode(),
    "json": json.dumps(yaml.safe_load(FULL)).encode(),
    "csv": b'content,style,prompt,seeds\na.png,s.png,"A, [c]",0|1\nb.png,s.png,,\n',
    "parquet": parquet({"content": ["a", "b"], "style": ["s", "t"], "style_strength": [1.0, 2.0], "seeds": [[1], [2]]}),
}


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    file_format=st.sampled_from(sorted(_SEEDS)),
    edits=st.lists(st.tuples(st.integers(0, 2**16), st.binary(max_size=3), st.integers(0, 4)), max_size=8),
)
def test_any_damage_ends_in_rows_and_faults(file_format: Any, edits: list[tuple[int, bytes, int]]) -> None:
    data = _SEEDS[file_format]
    for at, new, removed in edits:
        at %= len(data) + 1
        data = data[:at] + new + data[at + removed :]
    loaded = parse_manifest(data, file_format, "m", ["/pictures"])
    assert loaded.manifest is not None or loaded.faults
    for fault in loaded.faults:
        str(fault).encode("utf-8")
    if loaded.manifest is not None:
        loaded.manifest.model_dump_json()
        entries = (*loaded.manifest.contents, *loaded.manifest.styles)
        assert all(image.startswith("/pictures/") for entry in entries for image in entry.images)


_json = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=5), inner, max_size=4)),
    max_leaves=8,
)
_keys = ["contents", "styles", "pairs", "grid", "seeds", "samples", "prompt", "settings", "base", "name", "version"]
_rows = st.lists(
    st.dictionaries(st.sampled_from(["image", "images", "name", "word", "content", "style"]), _json), max_size=3
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(document=st.dictionaries(st.sampled_from(_keys), st.one_of(_json, _rows)))
def test_any_inline_mapping_ends_in_rows_and_faults(document: dict[str, Any]) -> None:
    loaded = parse_manifest(document, "json", "form", ["/pictures"])
    assert loaded.manifest is not None or loaded.faults
    for fault in loaded.faults:
        str(fault).encode("utf-8")
