"""The names of presets stand here and in the method's settings, which may not import one another."""

from __future__ import annotations

from typing import get_args

from blora.settings.presets import PRESETS
from manifests.schema.entries import Manifest
from manifests.schema.fields import PRESET_NAMES, PresetName
from manifests.schema.rows import DocumentRow


def test_a_manifest_may_name_every_preset_and_no_other() -> None:
    assert get_args(PresetName) == tuple(PRESETS)
    assert DocumentRow.model_fields["preset"].annotation == Manifest.model_fields["preset"].annotation == PresetName
    assert PRESET_NAMES == "demo, draft or paper", "what faults and helps say is accepted"
