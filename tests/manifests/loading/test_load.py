"""Files of manifests: missing, of another kind, damaged in any way, in a bucket."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from manifests.loading.load import MAX_MANIFEST_BYTES, load_manifest, parse_manifest
from manifests.store.store import Store
from tests.manifests.loading.written import FULL, SMALL, fault_of, good, load, pair_names, parquet, places
from tests.servers import S3Server

# Files


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


@pytest.mark.parametrize("name", ["m.csv", "m.yaml", "m.json", "m.jsonl"])
def test_files_of_another_kind_are_named(tmp_path: Path, name: str) -> None:
    assert "Parquet" in fault_of(load(tmp_path, parquet({"content": ["a"]}), name)).received
    assert "CSV" in fault_of(load(tmp_path, b"PK\x03\x04" + b"\0" * 50, name)).hint
    assert "PNG" in fault_of(load(tmp_path, b"\x89PNG\r\n\x1a\n", name)).received


@pytest.mark.parametrize("name", ["m.yaml", "m.json", "m.csv", "m.jsonl", "m.parquet"])
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


# Anything at all


_SEEDS = {
    "yaml": FULL.encode(),
    "json": json.dumps(yaml.safe_load(FULL)).encode(),
    "csv": b'content,style,prompt,seeds\na.png,s.png,"A, [c]",0|1\nb.png,s.png,,\n',
    "jsonl": b'{"content": "a.png", "style": ["s.png", "t.png"], "seeds": [0, 1]}\n{"content": "b.png"}\n',
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
