"""JSON: what the standard decoder would take otherwise."""

from __future__ import annotations

import math

from manifests.parsing.json_text import parse_json
from tests.manifests.parsing.reads import parsed


def test_json_knows_not_a_number_for_the_fields_to_refuse() -> None:
    values = parsed(parse_json, "[NaN, Infinity, -Infinity, 1e999]").plain()
    assert math.isnan(values[0]) and values[1:] == [math.inf, -math.inf, math.inf]


def test_json_texts_with_escapes() -> None:
    assert parsed(parse_json, '["\\ud83c\\udf36", "\\/", "\\n", "ä"]').plain() == ["🌶", "/", "\n", "ä"]
