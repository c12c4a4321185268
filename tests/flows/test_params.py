"""The forms of a Prefect server: what stands first, that nothing is of the kind "None", and what a form gives back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools.validation import validate
from pydantic import ValidationError

from flows.compare_methods import compare_methods
from flows.nightly import nightly
from flows.params import InlineManifest
from flows.prepare import read_manifest
from flows.probe import analyze
from flows.rescore import rescore
from flows.stylize import rerun, stylize
from manifests.schema.forms import MEANINGS
from tasks.bases import with_base

FORMS = [stylize, rerun, nightly, rescore, compare_methods, analyze]
SIDES: dict[str, Any] = {
    "contents": [{"image": "s3://bucket/cat.png", "name": "cat"}],
    "styles": [{"image": "s3://bucket/wave.png", "name": "wave"}],
}


def fields_of(schema: Any) -> Iterator[dict[str, Any]]:
    """Every mapping within a schema."""
    if isinstance(schema, dict):
        yield schema
    for part in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        yield from fields_of(part)


@pytest.mark.parametrize("flow", FORMS, ids=lambda flow: str(flow.name))
def test_no_field_of_a_form_is_of_the_kind_none(flow: Any) -> None:
    schema = parameter_schema(flow.fn).model_dump()
    assert [field for field in fields_of(schema) if field.get("type") == "null"] == []


def test_a_form_asks_for_what_matters_first() -> None:
    schema = json.loads(json.dumps(parameter_schema(stylize.fn).model_dump()))
    manifest = schema["definitions"]["InlineManifest"]["properties"]
    by_place = sorted(manifest, key=lambda name: manifest[name]["position"])
    assert by_place == ["contents", "styles", "base", "preset", "name", "advanced"]
    assert {"prompt", "style_strength", "seeds", "settings", "pairs"} <= manifest["advanced"]["properties"].keys()
    options = schema["definitions"]["RunOptions"]["properties"]
    assert sorted(options, key=lambda name: options[name]["position"])[:4] == ["preset", "base", "overrides", "only"]


def test_a_form_says_in_words_what_a_field_means_and_what_each_of_its_kinds_is() -> None:
    schema = json.loads(json.dumps(parameter_schema(stylize.fn).model_dump()))
    rows = schema["definitions"]
    assert rows["ImageRow"]["properties"]["word"]["description"] == (
        "What the picture shows or looks like, in a word or two; results are compared with it. "
        "Accepted: a text of 1 to 300 characters."
    )
    named = {name for row in ("ImageRow", "PairRow", "BaseRow", "FusedRow") for name in rows[row]["properties"]}
    assert named <= MEANINGS.keys()
    assert [kind.get("title") for kind in schema["properties"]["manifest"]["anyOf"]] == ["address", None]
    assert rows["InlineManifest"]["title"] == "written here" and rows["BaseRow"]["title"] == "several parts"
    (place, _) = rows["InlineManifest"]["properties"]["base"]["anyOf"]
    assert place["title"] == "one place"


@pytest.mark.parametrize("said", [{"advanced": {"prompt": "A [c]", "seeds": [3]}}, {"prompt": "A [c]", "seeds": [3]}])
def test_what_stands_in_the_block_counts_as_beside_it(said: dict[str, Any]) -> None:
    validate({"manifest": SIDES | said}, parameter_schema(stylize.fn).model_dump())
    manifest = InlineManifest.model_validate(SIDES | said)
    assert (manifest.prompt, manifest.seeds) == ("A [c]", (3,))
    with pytest.raises(ValidationError, match="keep one of them"):
        InlineManifest.model_validate(SIDES | {"prompt": "x", "advanced": {"prompt": "y"}})


@pytest.mark.parametrize(
    ("said", "base"), [({}, "embedded"), ({"preset": "demo"}, "embedded"), ({"preset": "paper"}, "stabilityai/stable")]
)
def test_a_form_without_a_base_means_the_same_as_a_file(said: dict[str, Any], base: str) -> None:
    loaded = with_base(read_manifest(InlineManifest.model_validate(SIDES | said), ("s3://bucket",)))
    assert loaded.manifest is not None and loaded.manifest.base.startswith(base)
