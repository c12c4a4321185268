"""Every key is where the drawing says, and no id leads out of its place."""

from __future__ import annotations

import datetime
import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests import ids, layout
from manifests.errors import InvalidId, ManifestsError

A, C, S, P = "a" * 24, "c" * 24, "5" * 24, "f" * 24

RUN_MAKERS: list[Callable[[str], str]] = [
    lambda text: layout.run_key(text, "plan.parquet"),
    lambda text: layout.scores_part_key(datetime.date(2026, 11, 2), text, "0"),
    lambda text: layout.shard_scores_key(text, "5d0c"),
    layout.added_scores_prefix,
    layout.run_lease_key,
    layout.report_prefix,
    layout.redo_prefix,
    lambda text: layout.comparison_prefix(text, "demo-1"),
    lambda text: layout.comparison_prefix("demo-1", text),
]
"""Of keys with the id of a run, which may have letters of any script."""

MAKERS: list[Callable[[str], str]] = [
    layout.image_key,
    layout.adapter_prefix,
    layout.adapter_marker_key,
    lambda text: layout.adapter_key(text, "content"),
    lambda text: layout.sample_key(text, S, P),
    lambda text: layout.sample_key(C, text, P),
    lambda text: layout.sample_key(C, S, text),
    layout.samples_prefix,
    lambda text: layout.samples_prefix(C, text),
    lambda text: layout.run_key("demo-1", text),
    lambda text: layout.probe_key(text, "probe.json"),
    lambda text: layout.probe_key("demo-1", text),
    lambda text: layout.checkpoint_key("demo-1", text),
    lambda text: layout.training_log_key("demo-1", text),
    lambda text: layout.scores_part_key(datetime.date(2026, 11, 2), "demo-1", text),
    lambda text: layout.shard_scores_key("demo-1", text),
    layout.lease_key,
]


def test_keys_are_where_the_house_puts_them() -> None:
    assert layout.image_key(A) == f"images/{A}.png"
    assert layout.adapter_prefix(A) == f"adapters/{A}/"
    assert layout.adapter_key(A, "content") == f"adapters/{A}/content.safetensors"
    assert layout.adapter_key(A, "style") == f"adapters/{A}/style.safetensors"
    assert layout.adapter_marker_key(A) == f"adapters/{A}/adapter.json"
    assert layout.adapter_keys(A) == (
        f"adapters/{A}/content.safetensors",
        f"adapters/{A}/style.safetensors",
        f"adapters/{A}/adapter.json",
    )
    assert layout.sample_key(C, S, P) == f"samples/{C}/{S}/{P}.png"
    assert layout.run_key("demo-1", "plan.parquet") == "runs/demo-1/plan.parquet"
    assert layout.run_key("demo-1", "report/index.html") == "runs/demo-1/report/index.html"
    assert layout.checkpoint_key("demo-1", P) == f"runs/demo-1/checkpoints/{P}.safetensors"
    assert layout.training_log_key("demo-1", P) == f"runs/demo-1/logs/{P}.jsonl"
    part = layout.scores_part_key(datetime.date(2026, 1, 2), "demo-1", "7")
    assert part == "scores/date=2026-01-02/run=demo-1/part-7.parquet"
    assert layout.lease_key(A) == f"leases/{A}.json"
    assert layout.report_prefix("demo-1") == "runs/demo-1/report/"
    assert layout.redo_prefix("demo-1") == "runs/demo-1/redo/"
    assert layout.comparison_prefix("demo-1", "demo-2") == "reports/compare/demo-1/demo-2/"
    assert layout.nights_report_prefix() == "reports/nights/"


def test_a_side_that_is_a_prompt_has_a_key_too() -> None:
    side = ids.text_id("a pepper")
    assert layout.sample_key(side, S, P) == f"samples/{side}/{S}/{P}.png"


def test_prefixes_hold_their_keys_and_no_others() -> None:
    key = layout.sample_key(C, S, P)
    for prefix in (layout.samples_prefix(), layout.samples_prefix(C), layout.samples_prefix(C, S)):
        assert prefix.endswith("/")
        assert key.startswith(prefix)
    assert not layout.sample_key(C + "0", S, P).startswith(layout.samples_prefix(C))
    with pytest.raises(InvalidId, match="content_id beside it"):
        layout.samples_prefix(None, S)


NO_WORDS = ["", ".", "..", "../x", "/x", "x/../y", "a//b", "a b", "a\n", "a\0", "-a ", ".a", "a" * 201, "x\\y"]
NO_NAMES = [
    "北/京",
    "../北",
    "北京 ",
    "北\u200d京",
    "北\n",
    "-北",
    "🎨",
    "\u0301北",
    "Ночь",
    "北" * 101,
    "ночь..",
    "\ud800",
]


@pytest.mark.parametrize(
    ("maker", "text"),
    [
        *((maker, text) for maker in MAKERS for text in [*NO_WORDS, "ä", "北京", "ночь"]),
        *((maker, text) for maker in RUN_MAKERS for text in [*NO_WORDS, *NO_NAMES]),
    ],
)
def test_no_id_leads_out_of_its_place(maker: Callable[[str], str], text: str) -> None:
    with pytest.raises(InvalidId) as caught:
        maker(text)
    assert isinstance(caught.value, ManifestsError)
    assert isinstance(caught.value, ValueError)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("maker", [*MAKERS, *RUN_MAKERS])
@given(text=st.text(max_size=12))
def test_every_text_gives_a_plain_key_or_is_refused(maker: Callable[[str], str], text: str) -> None:
    try:
        key = maker(text)
    except InvalidId:
        return
    parts = key.rstrip("/").split("/")
    assert all(part and not part.startswith(".") and part.isprintable() for part in parts)
    assert maker in RUN_MAKERS or key.isascii()


@pytest.mark.parametrize("run_id", ["夜の絵-3f2a9c01d4e5", "ночь-1", "हिन्दी-1", "가을-1", "القط-1"])
def test_a_run_may_have_letters_of_any_script_in_either_form(run_id: str) -> None:
    for maker in RUN_MAKERS:
        assert run_id in maker(run_id) == maker(unicodedata.normalize("NFD", run_id))


def test_an_adapter_has_two_halves() -> None:
    with pytest.raises(InvalidId, match="content or style"):
        layout.adapter_key(A, "both")  # type: ignore[arg-type]


def test_the_ids_of_this_package_fit_the_layout() -> None:
    run_id = ids.run_id("Ünïcode " * 60 + "北京", {})
    assert layout.run_key(run_id, "run.json").startswith("runs/unicode-")
    for name in ("夜の絵" * 30, "🎨", "Ночная смена", "ÅÄÖ がぎぐ", "\U0001f3a8\u0301x", "ß" * 99):
        run_id = ids.run_id(name, {})
        assert run_id in layout.run_key(run_id, "run.json") and len(layout.run_lease_key(run_id).encode()) < 200
    assert layout.image_key(ids.digest("x")).startswith("images/")
