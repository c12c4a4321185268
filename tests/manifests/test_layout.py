"""Every key is where the drawing says, and no id leads out of its place."""

from __future__ import annotations

import datetime
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests import ids, layout
from manifests.errors import InvalidId, ManifestsError

A, C, S, P = "a" * 24, "c" * 24, "5" * 24, "f" * 24

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
    lambda text: layout.run_key(text, "plan.parquet"),
    lambda text: layout.run_key("demo-1", text),
    lambda text: layout.probe_key(text, "probe.json"),
    lambda text: layout.probe_key("demo-1", text),
    lambda text: layout.checkpoint_key("demo-1", text),
    lambda text: layout.training_log_key("demo-1", text),
    lambda text: layout.scores_part_key(datetime.date(2026, 11, 2), text, "0"),
    lambda text: layout.scores_part_key(datetime.date(2026, 11, 2), "demo-1", text),
    lambda text: layout.shard_scores_key("demo-1", text),
    lambda text: layout.shard_scores_key(text, "5d0c"),
    layout.lease_key,
    layout.report_prefix,
    layout.redo_prefix,
    lambda text: layout.comparison_prefix(text, "demo-1"),
    lambda text: layout.comparison_prefix("demo-1", text),
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


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize(
    "text", ["", ".", "..", "../x", "/x", "x/../y", "a//b", "ä", "a b", "a\n", "a\0", "-a ", ".a", "a" * 200, "x\\y"]
)
def test_no_id_leads_out_of_its_place(maker: Callable[[str], str], text: str) -> None:
    with pytest.raises(InvalidId) as caught:
        maker(text)
    assert isinstance(caught.value, ManifestsError)
    assert isinstance(caught.value, ValueError)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("maker", MAKERS)
@given(text=st.text(max_size=12))
def test_every_text_gives_a_plain_key_or_is_refused(maker: Callable[[str], str], text: str) -> None:
    try:
        key = maker(text)
    except InvalidId:
        return
    parts = key.rstrip("/").split("/")
    assert all(part and not part.startswith(".") and part.isascii() and part.isprintable() for part in parts)


def test_an_adapter_has_two_halves() -> None:
    with pytest.raises(InvalidId, match="content or style"):
        layout.adapter_key(A, "both")  # type: ignore[arg-type]


def test_the_ids_of_this_package_fit_the_layout() -> None:
    run_id = ids.run_id("Ünïcode " * 60 + "北京", {})
    assert layout.run_key(run_id, "run.json").startswith("runs/unicode-")
    assert layout.image_key(ids.digest("x")).startswith("images/")
