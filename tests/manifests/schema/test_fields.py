"""The names of presets stand here and in the method's settings, which may not import one another."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from pydantic import ValidationError

from blora.settings.presets import PRESETS
from manifests.schema.entries import Manifest
from manifests.schema.fields import PRESET_NAMES, PresetName
from manifests.schema.rows import DocumentRow, PairFields


def test_a_manifest_may_name_every_preset_and_no_other() -> None:
    assert get_args(PresetName) == tuple(PRESETS)
    assert DocumentRow.model_fields["preset"].annotation == Manifest.model_fields["preset"].annotation == PresetName
    assert PRESET_NAMES == "demo, draft, fast, flux or paper", "what faults and helps say is accepted"


@pytest.mark.parametrize(
    ("given", "seeds"),
    [(256.0, (256,)), ("256.0", (256,)), ([1.0, 2], (1, 2)), ("[1, 2]", (1, 2)), ("[1 2]", (1, 2)), ("[7]", (7,))],
)
def test_seeds_as_pandas_and_duckdb_write_them(given: Any, seeds: tuple[int, ...]) -> None:
    assert PairFields(seeds=given).seeds == seeds


@pytest.mark.parametrize("given", [256.5, "256.5", 2.0**53 + 2, [1e18]])
def test_seeds_that_are_no_longer_exact_are_refused(given: Any) -> None:
    with pytest.raises(ValidationError):
        PairFields(seeds=given)
