"""The tables on disk: explicit, versioned pyarrow schemas with units in the names.

Each field's metadata says what it is (`schema.field("seed").metadata[b"doc"]`); the schema's metadata says which table
and version it is. `manifests.parquet` is their one way in and out.
"""

from __future__ import annotations

import pyarrow as pa

SCHEMA_VERSION = 1
"""Version of a schema below that does not say its own. Raise a table's when a column is added or changes its meaning.

A column that is added later may be null, and is null where an older file is read.
"""

_INSTANT = pa.timestamp("us", tz="UTC")
_TEXTS = pa.list_(pa.field("element", pa.string(), nullable=False))


def _need(name: str, kind: pa.DataType, doc: str) -> pa.Field:
    return pa.field(name, kind, nullable=False, metadata={"doc": doc})


def _may(name: str, kind: pa.DataType, doc: str) -> pa.Field:
    return pa.field(name, kind, nullable=True, metadata={"doc": doc})


def _schema(table: str, *fields: pa.Field, version: int = SCHEMA_VERSION) -> pa.Schema:
    return pa.schema(fields, metadata={"table": table, "schema_version": str(version)})


_RUN = _need("run_id", pa.string(), "the run that wrote this row")
_SIDES = (
    _may("content_id", pa.string(), "adapter_id of the content side; mix-<hash> of several; text-<hash> of a prompt"),
    _may("style_id", pa.string(), "adapter_id of the style side; mix-<hash> of several; text-<hash> of a prompt"),
    _may("content_name", pa.string(), "the user's name of the content, or the prompt that says it"),
    _may("style_name", pa.string(), "the user's name of the style, or the prompt that says it"),
)
_PARTS = pa.list_(
    pa.field(
        "element",
        pa.struct(
            [
                pa.field("adapter_id", pa.string(), nullable=False),
                pa.field("name", pa.string(), nullable=False),
                pa.field("weight", pa.float64(), nullable=False),
            ]
        ),
        nullable=False,
    )
)
_MIXES = (
    _may("content_mix", _PARTS, "what the content is mixed of, weights before content_strength; null: one adapter"),
    _may("style_mix", _PARTS, "what the style is mixed of, weights before style_strength; null: one adapter"),
)
_COLOURS = (
    _may("colour_of", pa.string(), "whose colours the picture has been given: content or style; null: those that came"),
    _may("colour_by", pa.string(), "how: transfer, subject or guidance; null for none"),
    _may("colour_amount", pa.float64(), "how far, 0 to 1; null for none"),
)
_PROMPTS = (
    _may("prompt", pa.string(), "the prompt as given to the text encoders; null for an adapter with the settings' own"),
    _may("content_prompt", pa.string(), "prompt for the content block alone; null: the same as prompt"),
    _may("negative_prompt", pa.string(), "what the guidance steers away from"),
)
_STRENGTHS = (
    _may("content_strength", pa.float64(), "the user's dial, linear; 1 is as trained; null where a prompt says it"),
    _may("style_strength", pa.float64(), "the user's dial, linear; 1 is as trained; null where a prompt says it"),
    _may("seed", pa.int64(), "the user's seed of this picture"),
)

_CANDIDATES = (
    _may("candidate_of", pa.string(), "the asked-for picture that this is a further candidate of; null: asked for"),
)

PLAN = _schema(
    "plan",
    _RUN,
    _need("kind", pa.string(), "adapter: something to train; sample: something to draw"),
    _need("group_id", pa.string(), "the pack (adapters) or shard (samples) that this item belongs to"),
    _need("group_index", pa.int32(), "position of the pack or shard within the run, from 0"),
    _need("batch_index", pa.int32(), "batch within the shard, from 0; 0 for adapters"),
    _need("position", pa.int32(), "position within the pack or batch, from 0"),
    _may("adapter_id", pa.string(), "the adapter to train; null for samples"),
    _may("sample_id", pa.string(), "the picture to draw; null for adapters"),
    *_SIDES,
    _may("name", pa.string(), "the user's name of the adapter; null for samples"),
    _may("word", pa.string(), "the object word of the adapter, such as pepper"),
    _may("image_ids", _TEXTS, "the pictures that the adapter is trained on; null for samples"),
    _may("text", pa.string(), "what the picture should show, in plain words, for the text score; null for adapters"),
    *_PROMPTS,
    *_STRENGTHS,
    *_MIXES,
    *_COLOURS,
    *_CANDIDATES,
    version=3,
)
"""One row per adapter to train and per picture to draw; what the end of a run is compared with."""

ADAPTERS = _schema(
    "adapters",
    _RUN,
    _need("adapter_id", pa.string(), "content-derived id of the adapter"),
    _need("name", pa.string(), "the user's name of what it was trained on"),
    _need("image_ids", _TEXTS, "the pictures it was trained on"),
    _need("base", pa.string(), "the base model as the manifest names it"),
    _need("base_revision", pa.string(), "pinned revision of the base model"),
    _need("rank", pa.int32(), "rank of the low-rank factors"),
    _need("steps", pa.int32(), "optimizer steps asked for"),
    _may("final_loss", pa.float64(), "mean squared error at the end of the training"),
    _need("skipped_steps", pa.int32(), "steps skipped because a loss or gradient was not finite"),
    _need("train_seconds", pa.float64(), "wall seconds of the pack divided by its size"),
    _need("pack_id", pa.string(), "the pack it was trained in"),
    _need("pack_size", pa.int32(), "adapters trained in that pass"),
    _need("device", pa.string(), "the processor it was trained on"),
    _need("content_bytes", pa.int64(), "size of the content half, bytes"),
    _need("style_bytes", pa.int64(), "size of the style half, bytes"),
    _need("trained_at", _INSTANT, "when its marker was written (UTC)"),
    _may("attempt", pa.int32(), "which training of it was kept, from 1; null where it was not checked"),
    _may("passed", pa.bool_(), "whether its check found no defect; null where it was not checked, or has no limits"),
    _may("failed_checks", pa.string(), "defects beyond their limits, separated by commas; null as passed"),
    _may("reconstruction_distance", pa.float64(), "of its own image drawn with it, CIE76; 0 is best"),
    _may("split_image", pa.float64(), "how much that looks like two pictures: 0 to 1, 0 is best"),
    _may("grey_collapse", pa.float64(), "share of the image's spread of colours that is gone: 0 to 1, 0 is best"),
    _may("white_background", pa.float64(), "share of white pixels beyond the image's: -1 to 1"),
    version=2,
)
"""One row per adapter of a run."""

SAMPLES = _schema(
    "samples",
    _RUN,
    _need("sample_id", pa.string(), "content-derived id of the picture"),
    *_SIDES,
    *_PROMPTS,
    *_STRENGTHS,
    *_MIXES,
    *_COLOURS,
    *_CANDIDATES,
    _need("key", pa.string(), "object key of the picture below the store's root"),
    _may("width_px", pa.int32(), "width of the picture, pixels; null while it is missing"),
    _may("height_px", pa.int32(), "height of the picture, pixels; null while it is missing"),
    _need("status", pa.string(), "done or missing"),
    _may("bytes", pa.int64(), "size of the picture file, bytes; null while it is missing"),
    _may("drawn_at", _INSTANT, "when the picture was written (UTC); null while it is missing"),
    version=3,
)
"""One row per picture of a run's plan."""

BEST = _schema(
    "best",
    _RUN,
    _need("asked_id", pa.string(), "the picture that the manifest asks for by pair and seed: the first candidate"),
    _need("candidates", pa.int32(), "pictures planned to choose from, that one included"),
    _need("judged", pa.int32(), "of these, those that are there, are not rejected, and have the deciding score"),
    _may("sample_id", pa.string(), "the picture chosen; null where there is none to choose"),
    *_SIDES,
    _may("seed", pa.int64(), "seed of the picture chosen"),
    _may("key", pa.string(), "its object key below the store's root"),
    _need(
        "chosen_by", pa.string(), "score; review (its marks leave one, or none); only (no other is there); none (yet)"
    ),
    _may("score", pa.string(), "name of the deciding score; null where none decided"),
    _may("value", pa.float64(), "its value of the picture chosen"),
    _may(
        "asked_value", pa.float64(), "its value of the picture asked for; null where that one is not among the judged"
    ),
    _may("scorer", pa.string(), "model and weights that gave the values"),
    _may("scorer_version", pa.string(), "version of the scorer's code and weights"),
)
"""One row per picture asked for, with the candidate that was chosen (`tasks.choice` has the rule)."""

SCORES = _schema(
    "scores",
    _RUN,
    _need("sample_id", pa.string(), "the picture that was scored"),
    *_SIDES,
    _need("seed", pa.int64(), "the user's seed of the picture"),
    _need("score", pa.string(), "name of the score, such as style_clip"),
    _need("value", pa.float64(), "the number; its range and direction belong to the score"),
    _need("scorer", pa.string(), "model and weights that gave the number"),
    _need("scorer_version", pa.string(), "version of the scorer's code and weights"),
    _need("scored_at", _INSTANT, "when the number was computed (UTC)"),
)
"""One row per picture and score (long form)."""

METHOD_SCORES = _schema(
    "method_scores",
    _need("method", pa.string(), "blora, all_attention, prompt or magenta, as blora.benchmark.workshop names them"),
    _RUN,
    _need("sample_id", pa.string(), "the picture that was scored; of blora, the run's own"),
    _need("blora_sample_id", pa.string(), "the run's picture of the same pair and seed"),
    *_SIDES,
    _need("seed", pa.int64(), "the user's seed of the picture"),
    _need("score", pa.string(), "name of the score, such as style_clip"),
    _need("value", pa.float64(), "the number; its range and direction belong to the score"),
    _need("scorer", pa.string(), "model and weights that gave the number"),
    _need("scorer_version", pa.string(), "version of the scorer's code and weights"),
    _need("scored_at", _INSTANT, "when the number was computed (UTC)"),
)
"""One row per picture and score of a run's pairs drawn by several methods."""

METHODS = _schema(
    "methods",
    _RUN,
    _need("method", pa.string(), "blora, all_attention, prompt or magenta"),
    _need("score", pa.string(), "name of the score"),
    _need("scorer", pa.string(), "model and weights that gave the numbers"),
    _need("scorer_version", pa.string(), "version of the scorer's code and weights"),
    _need("lower_is_better", pa.bool_(), "whether a small number is the good one"),
    _need("pictures", pa.int32(), "pictures that it is taken over, the same pairs and seeds in every method"),
    _need("mean", pa.float64(), "mean of the score"),
    _may("low", pa.float64(), "lower end of its 95 % bootstrap interval; null where one cannot be told"),
    _may("high", pa.float64(), "upper end of its 95 % bootstrap interval; null where one cannot be told"),
    _need("difference", pa.float64(), "mean over the pairs of the score less blora's; 0 for blora"),
    _may("difference_low", pa.float64(), "lower end of its 95 % bootstrap interval; null where one cannot be told"),
    _may("difference_high", pa.float64(), "upper end of its 95 % bootstrap interval; null where one cannot be told"),
    _may("train_seconds", pa.float64(), "mean wall seconds of training an adapter in its pack; 0: none; null: unknown"),
    _may("draw_seconds", pa.float64(), "mean wall seconds of a picture, loading and writing included; null: unknown"),
    _need("adapter_bytes", pa.int64(), "mean size of one adapter's weights in fp16; 0 where nothing is trained"),
)
"""One row per method and score of a comparison of methods."""

PROBES = _schema(
    "probes",
    _need("probe_id", pa.string(), "the block probe that wrote this row"),
    _need("base", pa.string(), "the base model as it was asked for"),
    _need("base_revision", pa.string(), "pinned revision of the base model"),
    _need("pair_index", pa.int32(), "the pair of prompts, from 0"),
    _need("kind", pa.string(), "what the prompts differ in: content or style"),
    _need("p", pa.string(), "the prompt of all blocks but one"),
    _need("q", pa.string(), "the prompt of that one, with which the picture is compared"),
    _need("seed", pa.int64(), "seed of the noise, the same for all pictures of the pair"),
    _need("block", pa.string(), "the block that was told q, by its name in the UNet"),
    _need("block_index", pa.int32(), "position of the block in the UNet, from 0"),
    _need("clip_score", pa.float64(), "cosine of the picture with q, -1 to 1"),
    _need("clip_score_p", pa.float64(), "the same of the picture with p in all blocks"),
    _need("clip_score_q", pa.float64(), "the same of the picture with q in all blocks"),
    _need("scorer", pa.string(), "CLIP model and weights that gave the cosines"),
    _need("scorer_version", pa.string(), "version of the scorer's code and weights"),
)
"""One row per pair of prompts, seed and block of a block probe."""

SLOTS = _schema(
    "slots",
    _RUN,
    _need(
        "slot",
        pa.string(),
        "number and device, such as 0 cuda:0, after the machine's name if on a work pool; scoring cpu",
    ),
    _need("wall_seconds", pa.float64(), "that it was at the run's disposal, waiting included; summed over flow runs"),
    _need(
        "busy_seconds", pa.float64(), "of these, inside calls that train, draw or score; loading and writing are not"
    ),
    _need("busy_share", pa.float64(), "busy_seconds over wall_seconds, 0 to 1"),
    _need("adapters", pa.int64(), "adapters that the slot trained"),
    _need("pictures", pa.int64(), "pictures that it drew"),
    _need("scored", pa.int64(), "pictures that it scored"),
    _may("adapters_per_hour", pa.float64(), "over the time of its trainings, loading and writing included; null: none"),
    _may("pictures_per_hour", pa.float64(), "over the time of its drawing, loading and writing included; null: none"),
)
"""One row per slot of a run, of the last time that it was worked on."""

FAULTS = _schema(
    "faults",
    _RUN,
    _need("kind", pa.string(), "manifest, image, settings, train, check, sample or score"),
    _need("item", pa.string(), "adapter_id, sample_id or name it concerns; may be empty"),
    _need("name", pa.string(), "the user's name of the item; may be empty"),
    _need("file", pa.string(), "manifest or picture it is about; may be empty"),
    _may("row", pa.int64(), "1-based line of text, or record number of a Parquet manifest"),
    _need("field", pa.string(), "column or dotted path; may be empty"),
    _need("what", pa.string(), "what is wrong"),
    _need("received", pa.string(), "what was found"),
    _need("accepted", pa.string(), "what would have been fine"),
    _need("hint", pa.string(), "what to do next"),
    _need("transient", pa.bool_(), "true where a rerun may well succeed without any change"),
    _need("recorded_at", _INSTANT, "when the fault was recorded (UTC)"),
)
"""One row per refused row or failed item."""

BENCH = _schema(
    "bench",
    _need("row", pa.string(), "the method, as blora.benchmark.workshop names them; rows of colour with their amount"),
    _need("pair", pa.int32(), "number of the pair, from 0; the same in all rows"),
    _need("split", pa.string(), "validation or test: which things were drawn"),
    _need("thing_code", pa.string(), "code point of the thing asked for"),
    _need("thing", pa.string(), "the name of that code point"),
    _need("content_style", pa.string(), "the style that the content picture draws it in"),
    _need("style_thing", pa.string(), "the thing that the style picture shows"),
    _need("style", pa.string(), "the style asked for, which is the style picture's"),
    _need("style_seen", pa.bool_(), "whether the embedded model was trained on that style"),
    _need("seed", pa.int64(), "of the picture's noise"),
    _need("style_named", pa.string(), "the style whose centroid is nearest"),
    _need("style_right", pa.bool_(), "whether that is the style asked for"),
    _need("thing_found", pa.string(), "the thing whose drawings by other hands are nearest"),
    _need("thing_right", pa.bool_(), "whether that is the thing asked for"),
    _need("perceptual_distance", pa.float64(), "from the real drawing; 0 to 4, 0 is best"),
    _need("colour_distance", pa.float64(), "from the real drawing's palette, about CIE76; 0 is best"),
    _need("edge_distance", pa.float64(), "from the real drawing's edges; 0 to 1, 0 is best"),
    _need("base", pa.string(), "the base model as asked for"),
    _need("base_revision", pa.string(), "pinned revision of the base model"),
    _need("judge_version", pa.string(), "of the judges' network, code and features"),
    _may(
        "content_colour_distance", pa.float64(), "from the content picture's palette, about CIE76; 0 keeps its colours"
    ),
    version=2,
)
"""One row per pair and method of the paired benchmark."""

BENCH_RATES = _schema(
    "bench_rates",
    _need("row", pa.string(), "the method, as in table bench"),
    _need("measure", pa.string(), "a rate (style_right, thing_right, harmonic_mean) or a mean distance"),
    _need("pairs", pa.int32(), "pairs it is taken over"),
    _need("value", pa.float64(), "rates from 0 to 1, distances in the unit of their column in table bench"),
    _need("low", pa.float64(), "lower end of the 95 % bootstrap interval"),
    _need("high", pa.float64(), "upper end of the 95 % bootstrap interval"),
    _may("of_real", pa.float64(), "share of the real drawings' rate; null for distances"),
    _may("of_real_low", pa.float64(), "lower end of its 95 % bootstrap interval"),
    _may("of_real_high", pa.float64(), "upper end of its 95 % bootstrap interval"),
    _need("train_seconds", pa.float64(), "mean wall seconds of training one adapter; 0 where nothing is trained"),
    _need("draw_seconds", pa.float64(), "mean wall seconds of drawing one picture"),
    _need("adapter_bytes", pa.int64(), "weights of one adapter in fp16, bytes; 0 where nothing is trained"),
)
"""One row per method and measure of the paired benchmark."""

DECISIONS = _schema(
    "decisions",
    _RUN,
    _need("sample_id", pa.string(), "the picture that was judged by a person"),
    _need("decision", pa.string(), "keep, reject, redo (reject it and draw another), or undecided (taken back)"),
    _need("reviewer", pa.string(), "who says so, as they wrote it; may be empty"),
    _need("decided_at", _INSTANT, "when the mark was made, by the reviewer's clock (UTC); the last one counts"),
    _need("recorded_at", _INSTANT, "when it was written to the store (UTC)"),
    _may("redo_sample_id", pa.string(), "the picture to be drawn in its stead; null where none is"),
)
"""One row per picture and mark of a review; of several rows about a picture the last `decided_at` counts."""

CLIPS = _schema(
    "clips",
    _RUN,
    _need("clip_name", pa.string(), "the user's name of the clip"),
    _need("style_name", pa.string(), "the user's name of the style, or the prompt that says it"),
    _need("prompt", pa.string(), "the prompt of its frames"),
    _need("seed", pa.int64(), "the seed that all its frames have"),
    _need("frames", pa.int32(), "frames planned"),
    _need("frames_drawn", pa.int32(), "frames that are there; the numbers are of these"),
    _need("frames_per_second", pa.float64(), "at which it plays"),
    _may(
        "drawn_change", pa.float64(), "mean OKLab distance of a pixel between successive drawn frames; white-black is 1"
    ),
    _may("source_change", pa.float64(), "the same of the source frames, cut and resized as the drawn ones"),
    _may("flicker_ratio", pa.float64(), "drawn_change over source_change; 1 changes as the source does, a still has 0"),
    _may(
        "motion_correlation", pa.float64(), "whether the drawn frames change where the source does, -1 to 1; 1 is best"
    ),
    _need("measure_version", pa.int32(), "version of the code that measures"),
)
"""One row per clip, style and seed of a run; numbers are null where fewer than two frames are there."""

COMPARISON = _schema(
    "comparison",
    _need("run_a", pa.string(), "the run that is compared with"),
    _need("run_b", pa.string(), "the run whose difference is told"),
    _need("score", pa.string(), "name of the score"),
    _need("scorer", pa.string(), "model and weights that gave the numbers, the same in both runs"),
    _need("scorer_version", pa.string(), "version of the scorer's code and weights, the same in both runs"),
    _need("lower_is_better", pa.bool_(), "whether a small number is the good one"),
    _need("pairs", pa.int32(), "pairs of pictures: same content images, same style images, same seed"),
    _need("mean_a", pa.float64(), "mean over the pairs in run_a"),
    _need("mean_b", pa.float64(), "mean over the pairs in run_b"),
    _need("difference", pa.float64(), "mean of b - a over the pairs"),
    _may("low", pa.float64(), "lower end of its 95 % bootstrap interval; null where one cannot be told"),
    _may("high", pa.float64(), "upper end of its 95 % bootstrap interval; null where one cannot be told"),
    _need("better_share", pa.float64(), "share of pairs in which run_b is better, ties counted as half, 0 to 1"),
)
"""One row per score of a comparison of two runs."""

COMPARISON_PAIRS = _schema(
    "comparison_pairs",
    _need("run_a", pa.string(), "the run that is compared with"),
    _need("run_b", pa.string(), "the run whose difference is told"),
    *_SIDES[2:],
    _need("seed", pa.int64(), "the seed that both pictures have"),
    _need("sample_id_a", pa.string(), "the picture of run_a; the first where several share images and seed"),
    _need("sample_id_b", pa.string(), "the picture of run_b; the first where several share images and seed"),
    _need("score", pa.string(), "name of the score"),
    _need("value_a", pa.float64(), "the score in run_a; the mean where several share images and seed"),
    _need("value_b", pa.float64(), "the score in run_b; the mean where several share images and seed"),
    _need("difference", pa.float64(), "value_b - value_a"),
)
"""One row per pair of pictures and score of a comparison of two runs."""

NIGHTS = _schema(
    "nights",
    _need("date", pa.string(), "the day (UTC) on which the night's runs were planned, YYYY-MM-DD"),
    _need("measure", pa.string(), "yield, kept, pictures, faults, device_seconds, bytes, or score:<name>"),
    _need("scorer_version", pa.string(), "version of the scorer of a score; empty for other measures"),
    _need("pictures", pa.int64(), "pictures that the value is taken over"),
    _may("value", pa.float64(), "scores: the median over the night's pictures; null where there is nothing to tell"),
    _may("low", pa.float64(), "lower end of the band of the nights before; null while there are too few of them"),
    _may("high", pa.float64(), "upper end of that band"),
    _need("alarm", pa.string(), "empty, worse or better: where a score falls out of the band, and to which side"),
)
"""One row per night and measure of the report about nights."""
