"""The tables of measurements: of blocks, of other methods on a run's pairs, and of the benchmark."""

from __future__ import annotations

import pyarrow as pa

from manifests.tables.columns import INSTANT, RUN, SIDES, TableFile, may, need, table_schema

PROBES = table_schema(
    "probes",
    need("probe_id", pa.string(), "the block probe that wrote this row"),
    need("base", pa.string(), "the base model as it was asked for"),
    need("base_revision", pa.string(), "pinned revision of the base model"),
    need("pair_index", pa.int32(), "the pair of prompts, from 0"),
    need("kind", pa.string(), "what the prompts differ in: content or style"),
    need("p", pa.string(), "the prompt of all blocks but one"),
    need("q", pa.string(), "the prompt of that one, with which the picture is compared"),
    need("seed", pa.int64(), "seed of the noise, the same for all pictures of the pair"),
    need("block", pa.string(), "the block that was told q, by its name in the UNet"),
    need("block_index", pa.int32(), "position of the block in the UNet, from 0"),
    need("clip_score", pa.float64(), "cosine of the picture with q, -1 to 1"),
    need("clip_score_p", pa.float64(), "the same of the picture with p in all blocks"),
    need("clip_score_q", pa.float64(), "the same of the picture with q in all blocks"),
    need("scorer", pa.string(), "CLIP model and weights that gave the cosines"),
    need("scorer_version", pa.string(), "version of the scorer's code and weights"),
)
"""One row per pair of prompts, seed and block of a block probe."""

METHOD_SCORES = table_schema(
    "method_scores",
    need("method", pa.string(), "blora, all_attention, prompt or magenta, as blora.benchmark.workshop names them"),
    RUN,
    need("sample_id", pa.string(), "the picture that was scored; of blora, the run's own"),
    need("blora_sample_id", pa.string(), "the run's picture of the same pair and seed"),
    *SIDES,
    need("seed", pa.int64(), "the user's seed of the picture"),
    need("score", pa.string(), "name of the score, such as style_clip"),
    need("value", pa.float64(), "the number; its range and direction belong to the score"),
    need("scorer", pa.string(), "model and weights that gave the number"),
    need("scorer_version", pa.string(), "version of the scorer's code and weights"),
    need("scored_at", INSTANT, "when the number was computed (UTC)"),
)
"""One row per picture and score of a run's pairs drawn by several methods."""

METHOD_SCORES_FILE = TableFile("methods/scores.parquet", METHOD_SCORES)

METHODS = table_schema(
    "methods",
    RUN,
    need("method", pa.string(), "blora, all_attention, prompt or magenta"),
    need("score", pa.string(), "name of the score"),
    need("scorer", pa.string(), "model and weights that gave the numbers"),
    need("scorer_version", pa.string(), "version of the scorer's code and weights"),
    need("lower_is_better", pa.bool_(), "whether a small number is the good one"),
    need("pictures", pa.int32(), "pictures that it is taken over, the same pairs and seeds in every method"),
    need("mean", pa.float64(), "mean of the score"),
    may("low", pa.float64(), "lower end of its 95 % bootstrap interval; null where one cannot be told"),
    may("high", pa.float64(), "upper end of its 95 % bootstrap interval; null where one cannot be told"),
    need("difference", pa.float64(), "mean over the pairs of the score less blora's; 0 for blora"),
    may("difference_low", pa.float64(), "lower end of its 95 % bootstrap interval; null where one cannot be told"),
    may("difference_high", pa.float64(), "upper end of its 95 % bootstrap interval; null where one cannot be told"),
    may("train_seconds", pa.float64(), "mean wall seconds of training an adapter in its pack; 0: none; null: unknown"),
    may("draw_seconds", pa.float64(), "mean wall seconds of a picture, loading and writing included; null: unknown"),
    need("adapter_bytes", pa.int64(), "mean size of one adapter's weights in fp16; 0 where nothing is trained"),
)
"""One row per method and score of a comparison of methods."""

METHODS_FILE = TableFile("methods/methods.parquet", METHODS)

BENCH = table_schema(
    "bench",
    need("row", pa.string(), "the method, as blora.benchmark.workshop names them; rows of colour with their amount"),
    need("pair", pa.int32(), "number of the pair, from 0; the same in all rows"),
    need("split", pa.string(), "validation or test: which things were drawn"),
    need("thing_code", pa.string(), "code point of the thing asked for"),
    need("thing", pa.string(), "the name of that code point"),
    need("content_style", pa.string(), "the style that the content picture draws it in"),
    need("style_thing", pa.string(), "the thing that the style picture shows"),
    need("style", pa.string(), "the style asked for, which is the style picture's"),
    need("style_seen", pa.bool_(), "whether the embedded model was trained on that style"),
    need("seed", pa.int64(), "of the picture's noise"),
    need("style_named", pa.string(), "the style whose centroid is nearest"),
    need("style_right", pa.bool_(), "whether that is the style asked for"),
    need("thing_found", pa.string(), "the thing whose drawings by other hands are nearest"),
    need("thing_right", pa.bool_(), "whether that is the thing asked for"),
    need("perceptual_distance", pa.float64(), "from the real drawing; 0 to 4, 0 is best"),
    need("colour_distance", pa.float64(), "from the real drawing's palette, about CIE76; 0 is best"),
    need("edge_distance", pa.float64(), "from the real drawing's edges; 0 to 1, 0 is best"),
    need("base", pa.string(), "the base model as asked for"),
    need("base_revision", pa.string(), "pinned revision of the base model"),
    need("judge_version", pa.string(), "of the judges' network, code and features"),
    may(
        "content_colour_distance", pa.float64(), "from the content picture's palette, about CIE76; 0 keeps its colours"
    ),
    version=2,
)
"""One row per pair and method of the paired benchmark."""

BENCH_RATES = table_schema(
    "bench_rates",
    need("row", pa.string(), "the method, as in table bench"),
    need("measure", pa.string(), "a rate (style_right, thing_right, harmonic_mean) or a mean distance"),
    need("pairs", pa.int32(), "pairs it is taken over"),
    need("value", pa.float64(), "rates from 0 to 1, distances in the unit of their column in table bench"),
    need("low", pa.float64(), "lower end of the 95 % bootstrap interval"),
    need("high", pa.float64(), "upper end of the 95 % bootstrap interval"),
    may("of_real", pa.float64(), "share of the real drawings' rate; null for distances"),
    may("of_real_low", pa.float64(), "lower end of its 95 % bootstrap interval"),
    may("of_real_high", pa.float64(), "upper end of its 95 % bootstrap interval"),
    need("train_seconds", pa.float64(), "mean wall seconds of training one adapter; 0 where nothing is trained"),
    need("draw_seconds", pa.float64(), "mean wall seconds of drawing one picture"),
    need("adapter_bytes", pa.int64(), "weights of one adapter in fp16, bytes; 0 where nothing is trained"),
)
"""One row per method and measure of the paired benchmark."""
