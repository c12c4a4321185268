"""Manifests written to a folder and loaded, for the tests beside this file."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pandas as pd

from manifests.faults import Fault
from manifests.loading.load import Loaded, load_manifest
from manifests.schema.entries import Manifest

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


def fault_of(loaded: Loaded) -> Fault:
    assert loaded.manifest is None
    (fault,) = loaded.faults
    assert fault.what and fault.file and fault.hint
    return fault
