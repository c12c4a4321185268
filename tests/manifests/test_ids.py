"""Ids are functions of content: stable for ever, different for different work, safe in keys and file names."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests import ids

SAMPLE: dict[str, Any] = {
    "content_id": "c" * 24,
    "style_id": "s" * 24,
    "content_strength": 1.0,
    "style_strength": 1.1,
    "prompts": {"prompt": "A [c] in [s] style", "negative_prompt": ""},
    "seed": 0,
    "sample_settings": {"steps": 50, "guidance_scale": 5.0},
    "base_revision": "r1",
}
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def test_ids_never_change() -> None:
    """A changed id repeats every training and picture in every store. The values come from sha256sum in a shell."""
    assert ids.digest("a", {"b": [1, 1.0, True, None]}) == "5774443931fd460f5b2cbfb4"
    assert ids.image_id(bytes(range(12)), 2, 2) == "0cb7d2072c9d276cc50ad657"
    assert ids.adapter_id(["b", "a"], {"steps": 200, "alpha": None}, "r1", 1) == "3640bf63d480c76ac345c221"
    assert ids.sample_id(**SAMPLE) == "4353a8250e4eae88c68a78ea"
    assert ids.text_id("a pepper") == "text-06efbb8d3e0d04af2d2edbab"
    assert ids.run_id("Demo night", {"a": 1}) == "demo-night-1625ae015c73"
    assert ids.seed_for("adapter", 7) == 4287834913195660835
    assert [ids.candidate_seed(7, number) for number in (1, 2, 3)] == [7, 565154591, 905090525]


@given(json_values)
def test_digest_is_24_hex_digits_and_ignores_key_order(value: Any) -> None:
    found = ids.digest(value)
    assert re.fullmatch(r"[0-9a-f]{24}", found)
    turned = dict(reversed(list(value.items()))) if isinstance(value, dict) else value
    assert ids.digest(turned) == found


@given(st.lists(json_values, max_size=3), st.lists(json_values, max_size=3))
def test_digest_tells_part_boundaries_apart(left: list[Any], right: list[Any]) -> None:
    assert ids.digest(left, right) != ids.digest([*left, "|"], right)
    assert ids.digest(*left, "x") != ids.digest(*left, "x", None)


@pytest.mark.parametrize("values", [(1, 1.0), (1, True), (1, "1"), (0, None), ("", None), ([], {}), ("é", "e\u0301")])
def test_digest_tells_lookalikes_apart(values: tuple[Any, Any]) -> None:
    assert ids.digest(values[0]) != ids.digest(values[1])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"a": [float("-inf")]}])
def test_digest_refuses_numbers_that_json_cannot_say(value: Any) -> None:
    with pytest.raises(ValueError, match="finite"):
        ids.digest(value)


@pytest.mark.parametrize("value", [{1: "a"}, {"a": b"bytes"}, {"a": {1, 2}}, object()])
def test_digest_refuses_what_is_not_json(value: Any) -> None:
    with pytest.raises(TypeError, match="accepted"):
        ids.digest(value)


def test_image_id_depends_on_shape_and_pixels() -> None:
    wide, high = ids.image_id(bytes(12), 4, 1), ids.image_id(bytes(12), 1, 4)
    assert wide != high != ids.image_id(bytes(11) + b"\1", 1, 4)
    with pytest.raises(ValueError, match="13 bytes"):
        ids.image_id(bytes(13), 4, 1)


@given(st.lists(st.text("0123456789abcdef", min_size=24, max_size=24), min_size=1, max_size=5), st.randoms())
def test_adapter_id_ignores_the_order_of_images(image_ids: list[str], random: Any) -> None:
    turned = random.sample(image_ids, len(image_ids))
    assert ids.adapter_id(turned, {"steps": 1}, "r", 1) == ids.adapter_id(image_ids, {"steps": 1}, "r", 1)


def test_adapter_id_depends_on_everything_that_changes_the_result() -> None:
    variants = [
        ids.adapter_id(images, {"steps": steps}, base, recipe)
        for images in (["a"], ["b"], ["a", "b"], ["a", "a"])
        for steps in (1, 2)
        for base in ("r1", "r2")
        for recipe in (1, 2)
    ]
    assert len(set(variants)) == len(variants)
    with pytest.raises(ValueError, match="no image"):
        ids.adapter_id([], {}, "r", 1)


@pytest.mark.parametrize(
    "change",
    [
        {"content_id": None},
        {"style_id": None},
        {"content_id": SAMPLE["style_id"], "style_id": SAMPLE["content_id"]},
        {"content_strength": 1.1, "style_strength": 1.0},
        {"prompts": {"prompt": "A [c] in [s] style", "negative_prompt": "blur"}},
        {"seed": 1},
        {"sample_settings": {"steps": 51, "guidance_scale": 5.0}},
        {"base_revision": "r2"},
    ],
)
def test_sample_id_depends_on_everything_that_changes_the_picture(change: dict[str, Any]) -> None:
    assert ids.sample_id(**(SAMPLE | change)) != ids.sample_id(**SAMPLE)


def test_sample_id_takes_equal_strengths_for_equal() -> None:
    assert ids.sample_id(**(SAMPLE | {"content_strength": 1})) == ids.sample_id(**SAMPLE)
    zero, minus_zero = (ids.sample_id(**(SAMPLE | {"style_strength": value})) for value in (0.0, -0.0))
    assert zero == minus_zero


@given(st.text(max_size=400), st.integers(16, 80))
def test_slug_is_a_safe_word(name: str, max_length: int) -> None:
    word = ids.slug(name, max_length)
    assert all(part and part[0].isalnum() for part in word.split("-"))
    assert all(unicodedata.category(c)[0] in "LMN" for c in word.replace("-", ""))
    assert word == word.lower() == unicodedata.normalize("NFC", word)
    assert len(word) <= max_length and len(word.encode()) <= 2 * max_length
    assert ids.slug(word, max_length) == word


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("pepper", "pepper"),
        ("The Great Wave (1831).PNG", "the-great-wave-1831-png"),
        ("Café Müller", "cafe-muller"),
        ("../../etc/passwd", "etc-passwd"),
        ("ﬁne", "fine"),
        ("りんご", "りんご"),
        ("がぎぐ \uff21\uff22\uff23", "がぎぐ-abc"),
        ("Сова и Йод", "сова-и-йод"),
        ("القط 🎨", "القط"),
        ("夜の絵", "夜の絵"),
        ("हिन्दी", "हिन्दी"),
        ("Straße Nº 5", "straße-no-5"),
        ("ΟΔΥΣΣΕΥΣ Ή", "οδυσσευς-ή"),
        ("İstanbul", "istanbul"),
        ("가을", "가을"),
    ],
)
def test_slug_reads_well(name: str, word: str) -> None:
    assert ids.slug(name) == word


@pytest.mark.parametrize(
    ("one", "other"),
    [("a" * 300, "a" * 299 + "b"), ("北京", "東京"), ("", "."), ("..", "."), ("pepper 北", "pepper 京")],
)
def test_slug_keeps_names_distinct_that_it_cannot_spell(one: str, other: str) -> None:
    assert ids.slug(one) != ids.slug(other)


@pytest.mark.parametrize("name", ["Café Müller", "がぎぐ", "йод", "가을", "ΆΈ"])
def test_slug_takes_composed_and_decomposed_names_for_one(name: str) -> None:
    assert len({ids.slug(unicodedata.normalize(form, name)) for form in ("NFC", "NFD")}) == 1


def test_slug_refuses_a_length_without_room_for_the_hash() -> None:
    with pytest.raises(ValueError, match="16 or more"):
        ids.slug("name", 15)


def test_run_id_is_readable_and_depends_on_name_and_content() -> None:
    assert re.fullmatch(r"night-shift-[0-9a-f]{12}", ids.run_id("Night shift", {"a": 1}))
    assert len({ids.run_id(name, {"a": value}) for name in ("a b", "a-b") for value in (1, 2)}) == 4


@given(json_values)
def test_seeds_fit_an_int64(value: Any) -> None:
    assert 0 <= ids.seed_for(value) < 2**63


def test_seeds_spread() -> None:
    seeds = [ids.seed_for("sample", number) for number in range(2000)]
    assert len(set(seeds)) == 2000
    assert max(seeds) > 2**62 > min(seeds)
