"""Whole manifests, in all formats: what right ones say, and heads that mean something else than was meant."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from blora.bases.spec import KNOWN, BaseSpec, Fused, parse_base
from manifests.loading.load import parse_manifest
from manifests.schema.entries import Manifest, PairEntry
from manifests.schema.fields import BASE_NAMES
from tests.manifests.loading.written import FULL, SMALL, good, load, pair_names, parquet, places

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
        assert manifest.name == "m" and manifest.base == "" and manifest.preset == "demo"
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
    assert (manifest.settings, manifest.base, manifest.contents[0].word) == ({}, "", None)
    assert manifest.pairs == (PairEntry(content="a", style="s", file=manifest.source),)


def test_the_result_is_frozen_and_closed(tmp_path: Path) -> None:
    manifest = good(load(tmp_path, FULL))
    with pytest.raises(ValidationError):
        manifest.name = "other"
    with pytest.raises(ValidationError):
        PairEntry(content="a", style="b", strength=1)
    assert Manifest.model_validate_json(manifest.model_dump_json()) == manifest


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
        ({"styles": 7}, "styles", ""),
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


@pytest.mark.parametrize(
    "base",
    [
        "embedded",
        "sdxl",
        "sdxl+fp16vae",
        "org/model@" + "0a" * 20,
        "org/model@" + "0a" * 20 + "/fine.safetensors#sha256:" + "0b" * 32,
        "models/sdxl",
        "models/fine.safetensors",
        "models/fine.safetensors#sha256:" + "0b" * 32,
        "s3://bucket/base",
        "s3://bucket/fine.safetensors",
    ],
)
def test_bases_that_are_accepted(tmp_path: Path, base: str) -> None:
    (tmp_path / "models" / "sdxl").mkdir(parents=True)
    (tmp_path / "models" / "fine.safetensors").touch()
    manifest = good(load(tmp_path, SMALL | {"base": base}, "m.json", allowed_roots=["s3://bucket"]))
    assert manifest.base == (str(tmp_path / base) if base.startswith("models") else base)


def test_a_base_of_several_parts_is_one_line_with_absolute_paths(tmp_path: Path) -> None:
    for name in ("fine.safetensors", "lcm.safetensors"):
        (tmp_path / name).touch()
    base = {"model": "fine.safetensors", "vae": "org/vae@" + "0a" * 20, "fuse": [{"lora": "./lcm.safetensors"}]}
    text = good(load(tmp_path, SMALL | {"base": base}, "m.json")).base
    read = parse_base(text)
    assert read == BaseSpec(
        str(tmp_path / "fine.safetensors"), "org/vae@" + "0a" * 20, (Fused(str(tmp_path / "lcm.safetensors"), 1.0),)
    )
    assert read.text == text, "both houses write it in the same way"
    (tmp_path / "flux").mkdir()
    file = {"model": "fine.safetensors", "quantize": "nf4", "rest": "flux"}
    text = good(load(tmp_path, SMALL | {"base": file}, "m.json")).base
    read = parse_base(text)
    assert read == BaseSpec(str(tmp_path / "fine.safetensors"), quantize="nf4", rest=str(tmp_path / "flux"))
    assert read.text == text


@pytest.mark.parametrize(
    ("base", "field", "message"),
    [
        ("fine.ckpt", "base", "no such base model.*pickle"),
        ("missing.safetensors", "base", "no such base model"),
        ("fine.safetensors#sha256:12", "base", "no SHA-256"),
        ("../fine.safetensors", "base", "outside the allowed folders"),
        ("org/model@main", "base", "without a fixed revision"),
        ({"model": "sdxl", "vea": "x"}, "base", "unknown key.*did you mean vae"),
        ({"model": "sdxl", "quantize": "int4"}, "base", "'nf4', 'int8' or 'fp8'.*did you mean int8"),
        ({"model": "fine.safetensors", "rest": "gone"}, "base.rest", "no such base model"),
        ({"vae": "sdxl"}, "base", "key missing"),
        ({"model": "sdxl", "fuse": [{"lora": "gone.safetensors"}]}, "base.fuse.0.lora", "no such base model"),
        ({"model": "sdxl", "fuse": [{"lora": "x", "wieght": 1}]}, "base", "unknown key.*did you mean weight"),
        ({"model": "sdxl", "fuse": [{"lora": "x", "weight": 11}]}, "base", "less than or equal to 10"),
        ({"model": "org/model@main", "vae": "../x"}, "base.model", "without a fixed revision"),
        (7, "base", "valid string"),
    ],
)
def test_bases_that_are_refused(tmp_path: Path, base: object, field: str, message: str) -> None:
    (tmp_path / "fine.ckpt").touch()
    (tmp_path / "fine.safetensors").touch()
    faults = load(tmp_path, SMALL | {"base": base}, "m.json").faults
    assert faults[0].field == field and re.search(message, str(faults[0])), faults[0]


def test_names_of_bases_are_the_methods_own() -> None:
    assert set(BASE_NAMES) == {"embedded", *KNOWN}


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


def test_a_table_says_the_same_in_every_format(tmp_path: Path) -> None:
    text = "content,style,prompts,seeds\na.png | b.png,s.png,one|two,0|1\nc.png,s.png,,\n"
    lines = [
        {
            "Unnamed: 0": 0,
            "content": [" a.png ", "b.png", ""],
            "style": "s.png",
            "prompts": ["one", "two"],
            "seeds": [0, 1.0],
        },
        {"Unnamed: 0": 1, "content": "c.png", "style": ["s.png"], "prompts": None, "seeds": [], "style_name": " "},
    ]
    columns = {name: [line[name] for line in lines] for name in ("content", "prompts")}
    columns["content"][1] = ["c.png"]  # a Parquet column is of one type
    columns |= {"style": [["s.png"], ["s.png"]], "seeds": [[0, 1], None], "style_name": ["", " "]}
    loaded = [
        load(tmp_path, text, "m.csv"),
        load(tmp_path, "\r\n".join(map(json.dumps, lines)) + "\n\n", "m.jsonl"),
        load(tmp_path, "\n".join(map(json.dumps, lines)), "m.ndjson"),
        load(tmp_path, parquet(columns), "m.parquet"),
    ]
    told = [[(pair.content, pair.prompt, pair.seeds) for pair in good(one).pairs] for one in loaded]
    assert told[0] == [("a", "one", (0, 1)), ("a", "two", (0, 1)), ("c", None, (0,))]
    assert told[1:] == told[:1] * 3
    assert all([len(image.images) for image in good(one).contents] == [2, 1] for one in loaded)


def test_lines_of_json_that_say_nothing_usable_are_faults_of_their_own(tmp_path: Path) -> None:
    lines = [
        '{"content": "a.png", "style": "s.png"}',
        '{"content": "b.png", "style": "s.png", "content": "c.png"}',
        '["c.png", "s.png"]',
        '{"content": "d.png", "style": "s.png"',
        '{"content": "e.png", "style": {"s": 0.5, "t": 0.5}}',
        '{"content": 7, "style": "s.png"}',
        '{"content": "f.png", "style": "s.png", "stlye_strength": 1}',
        '{"content": ' + "[" * 100_000,
        '{"content": "' + "g" * 200_000 + '", "style": "s.png"}',
        '{"content": "h.png", "style": "s.png", "seeds": NaN}',
        '{"content": [], "style": "s.png"}',
        '{"content": "a.png", "style": "t.png"}',
    ]
    loaded = load(tmp_path, "\n".join(lines), "m.jsonl")
    assert pair_names(loaded) == [("a", "s"), ("a", "t")]
    assert [(fault.row, fault.what) for fault in loaded.faults] == [
        (2, "key given twice"),
        (3, "no row"),
        (4, "not well-formed JSON"),
        (5, "a mix in a table: contents and styles are mixed by weight in YAML and JSON only"),
        (6, "should be a valid tuple"),
        (7, "unknown key"),
        (8, "nested too deeply"),
        (9, "cell too long"),
        (10, "number is not finite"),
        (11, "half a row"),
    ]
    assert "style_strength" in loaded.faults[5].hint


@pytest.mark.parametrize(("name", "text"), [("m.csv", "content,style,style_strength\na.png,b.png,\"0,5\"\n"),
    ("m.yaml", "contents: [a.png]\nstyles: [b.png]\nstyle_strength: 0,5\n")])  # fmt: skip
def test_a_decimal_comma_is_named(tmp_path: Path, name: str, text: str) -> None:
    (fault, *_) = load(tmp_path, text.encode(), name).faults
    assert (fault.what, fault.hint) == ("decimal comma", "write 0.5")
