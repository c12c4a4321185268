"""From readings with known truth to the proposal, its intervals and its doubts; and the default prompts."""

from __future__ import annotations

import json

import numpy as np
import pytest

from blora.errors import SettingsError
from blora.probe.prompts import default_prompts, noise_seeds
from blora.probe.proposal import summarize
from blora.probe.readings import BlockReading, Kind, ProbePair

BLOCKS = ("a", "b", "c")


def made(
    gains: dict[Kind, tuple[float, ...]], pairs: int = 30, noise: float = 0.01, seed: int = 0
) -> tuple[list[ProbePair], list[BlockReading]]:
    """Readings whose gains are known up to noise, over pairs of very different difficulty, two seeds each."""
    draw = np.random.default_rng(seed)
    made_pairs: list[ProbePair] = []
    readings: list[BlockReading] = []
    for kind, values in gains.items():
        for _ in range(pairs):
            made_pairs.append(ProbePair(kind, "p", "q", (0, 1)))
            ease = draw.normal(0, 0.3)
            for number in (0, 1):
                for block, gain in zip(BLOCKS, values, strict=True):
                    score = ease + gain + draw.normal(0, noise)
                    readings.append(BlockReading(len(made_pairs) - 1, number, block, score, ease, ease + 0.2))
    return made_pairs, readings


def test_clear_readings_give_a_certain_proposal() -> None:
    summary = summarize(*made({"content": (0.1, 0.02, 0.0), "style": (0.0, 0.01, 0.08)}))
    content, style = summary.proposal["content"], summary.proposal["style"]
    assert (content.block, style.block) == ("a", "c")
    assert content.certain and style.certain and content.rivals == () and content.best_in == 1
    assert content.gain.low < 0.1 < content.gain.high and content.gain.high - content.gain.low < 0.01
    assert "certain at 95 %" in str(content)
    share = summary.kinds["content"].blocks[0].share
    assert share is not None and abs(share - 0.5) < 0.02


def test_overlapping_intervals_are_told() -> None:
    summary = summarize(*made({"content": (0.02, 0.018, 0.0), "style": (0.0, 0.001, 0.08)}, pairs=8, noise=0.02))
    content = summary.proposal["content"]
    assert not content.certain and content.rivals and content.best_in < 1
    assert "not certain" in str(content) and "overlaps" in str(content)


def test_no_gain_at_all_is_told() -> None:
    summary = summarize(*made({"content": (0.0, 0.0, 0.0), "style": (0.0, 0.0, 0.0)}))
    assert not any(choice.certain for choice in summary.proposal.values())


def test_the_two_blocks_differ_even_if_one_is_best_for_both() -> None:
    summary = summarize(*made({"content": (0.10, 0.09, 0.0), "style": (0.10, 0.0, 0.01)}))
    content, style = summary.proposal["content"], summary.proposal["style"]
    assert (content.block, style.block) == ("b", "a")
    assert style.certain and not content.best and not content.certain
    assert "taken by the other kind" in str(content)


def test_an_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    covered = []
    for seed in range(60):
        summary = summarize(*made({"content": (0.05, 0.0, 0.0)}, pairs=20, noise=0.1, seed=seed), seed=seed)
        gain = summary.kinds["content"].blocks[0].gain
        covered.append(gain.low <= 0.05 <= gain.high)
    assert 0.85 <= np.mean(covered) <= 1


def test_it_is_deterministic_and_one_kind_is_enough() -> None:
    pairs, readings = made({"style": (0.0, 0.02, 0.01)})
    summary = summarize(pairs, readings, seed=3)
    assert summary == summarize(pairs, readings, seed=3)
    assert set(summary.kinds) == set(summary.proposal) == {"style"}
    assert summary.proposal["style"].block == "b"
    assert json.loads(json.dumps(summary.to_json()))["kinds"]["style"]["pairs"] == 30


def test_what_cannot_be_compared_is_refused() -> None:
    pairs, readings = made({"style": (0.0, 0.02, 0.01)}, pairs=2)
    with pytest.raises(ValueError, match="no readings"):
        summarize(pairs, [])
    with pytest.raises(ValueError, match="lacks a block"):
        summarize(pairs, [one for one in readings if one.pair == 0 or one.block != "b"])


@pytest.mark.parametrize("base", ["embedded", "org/model@" + "0" * 40])
def test_default_prompts_are_different_pairs_of_two_kinds(base: str) -> None:
    many, few = default_prompts(base, 60, seed=5), default_prompts(base, 4, seed=5)
    assert len(set(many)) == 120 and many[:4] == few[:4] and many[60:64] == few[4:]
    assert [kind for kind, _, _ in few] == ["content"] * 4 + ["style"] * 4
    assert all(p != q for _, p, q in many)
    assert default_prompts(base, 4, seed=6) != few
    with pytest.raises(SettingsError, match="pairs: out of range"):
        default_prompts(base, 10**6, seed=0)


def test_seeds_of_noise_differ_between_pairs_and_probes() -> None:
    seeds = [noise_seeds(seed, pair, 3) for seed in range(3) for pair in range(20)]
    assert len({one for some in seeds for one in some}) == 180
    assert noise_seeds(0, 4, 2) == noise_seeds(0, 4, 3)[:2]
