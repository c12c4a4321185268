"""The tables of reviews: what people decided, what two runs differ in, and how nights went."""

from __future__ import annotations

import pyarrow as pa

from manifests.tables.columns import INSTANT, RUN, SIDES, TableFolder, may, need, table_schema

DECISIONS = table_schema(
    "decisions",
    RUN,
    need("sample_id", pa.string(), "the picture that was judged by a person"),
    need("decision", pa.string(), "keep, reject, redo (reject it and draw another), or undecided (taken back)"),
    need("reviewer", pa.string(), "who says so, as they wrote it; may be empty"),
    need("decided_at", INSTANT, "when the mark was made, by the reviewer's clock (UTC); the last one counts"),
    need("recorded_at", INSTANT, "when it was written to the store (UTC)"),
    may("redo_sample_id", pa.string(), "the picture to be drawn in its stead; null where none is"),
)
"""One row per picture and mark of a review; of several rows about a picture the last `decided_at` counts."""

DECISIONS_FILES = TableFolder("decisions", DECISIONS)
"""Those of each review."""

COMPARISON = table_schema(
    "comparison",
    need("run_a", pa.string(), "the run that is compared with"),
    need("run_b", pa.string(), "the run whose difference is told"),
    need("score", pa.string(), "name of the score"),
    need("scorer", pa.string(), "model and weights that gave the numbers, the same in both runs"),
    need("scorer_version", pa.string(), "version of the scorer's code and weights, the same in both runs"),
    need("lower_is_better", pa.bool_(), "whether a small number is the good one"),
    need("pairs", pa.int32(), "pairs of pictures: same content images, same style images, same seed"),
    need("mean_a", pa.float64(), "mean over the pairs in run_a"),
    need("mean_b", pa.float64(), "mean over the pairs in run_b"),
    need("difference", pa.float64(), "mean of b - a over the pairs"),
    may("low", pa.float64(), "lower end of its 95 % bootstrap interval; null where one cannot be told"),
    may("high", pa.float64(), "upper end of its 95 % bootstrap interval; null where one cannot be told"),
    need("better_share", pa.float64(), "share of pairs in which run_b is better, ties counted as half, 0 to 1"),
)
"""One row per score of a comparison of two runs."""

COMPARISON_PAIRS = table_schema(
    "comparison_pairs",
    need("run_a", pa.string(), "the run that is compared with"),
    need("run_b", pa.string(), "the run whose difference is told"),
    *SIDES[2:],
    need("seed", pa.int64(), "the seed that both pictures have"),
    need("sample_id_a", pa.string(), "the picture of run_a; the first where several share images and seed"),
    need("sample_id_b", pa.string(), "the picture of run_b; the first where several share images and seed"),
    need("score", pa.string(), "name of the score"),
    need("value_a", pa.float64(), "the score in run_a; the mean where several share images and seed"),
    need("value_b", pa.float64(), "the score in run_b; the mean where several share images and seed"),
    need("difference", pa.float64(), "value_b - value_a"),
)
"""One row per pair of pictures and score of a comparison of two runs."""

NIGHTS = table_schema(
    "nights",
    need("date", pa.string(), "the day (UTC) on which the night's runs were planned, YYYY-MM-DD"),
    need("measure", pa.string(), "yield, kept, pictures, faults, device_seconds, bytes, or score:<name>"),
    need("scorer_version", pa.string(), "version of the scorer of a score; empty for other measures"),
    need("pictures", pa.int64(), "pictures that the value is taken over"),
    may("value", pa.float64(), "scores: the median over the night's pictures; null where there is nothing to tell"),
    may("low", pa.float64(), "lower end of the band of the nights before; null while there are too few of them"),
    may("high", pa.float64(), "upper end of that band"),
    need("alarm", pa.string(), "empty, worse or better: where a score falls out of the band, and to which side"),
)
"""One row per night and measure of the report about nights."""
