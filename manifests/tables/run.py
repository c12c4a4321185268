"""The tables of one run, from its plan to its clips, and the files of its folder that hold them."""

from __future__ import annotations

import pyarrow as pa

from manifests.tables.columns import (
    CANDIDATES,
    COLOURS,
    INSTANT,
    MIXES,
    PROMPTS,
    RUN,
    SIDES,
    STRENGTHS,
    TEXTS,
    TableFile,
    TableFolder,
    may,
    need,
    table_schema,
)

PLAN = table_schema(
    "plan",
    RUN,
    need("kind", pa.string(), "adapter: something to train, or finished; sample: something to draw"),
    need("group_id", pa.string(), "the pack (adapters) or shard (samples) that this item belongs to"),
    need("group_index", pa.int32(), "position of the pack or shard within the run, from 0"),
    need("batch_index", pa.int32(), "batch within the shard, from 0; 0 for adapters"),
    need("position", pa.int32(), "position within the pack or batch, from 0"),
    may("adapter_id", pa.string(), "the adapter to train; null for samples"),
    may("sample_id", pa.string(), "the picture to draw; null for adapters"),
    *SIDES,
    may("name", pa.string(), "the user's name of the adapter; null for samples"),
    may("word", pa.string(), "the object word of the adapter, such as pepper"),
    may("image_ids", TEXTS, "the pictures that the adapter is trained on; null for samples"),
    may("text", pa.string(), "what the picture should show, in plain words, for the text score; null for adapters"),
    *PROMPTS,
    *STRENGTHS,
    *MIXES,
    *COLOURS,
    *CANDIDATES,
    may("source_file", pa.string(), "where a finished adapter was brought in from; null for one that is trained"),
    version=4,
)
"""One row per adapter to have and per picture to draw; what the end of a run is compared with."""

PLAN_FILE = TableFile("plan.parquet", PLAN)
REDO_FILES = TableFolder("redo", PLAN)
"""What each review added to the plan."""

ADAPTERS = table_schema(
    "adapters",
    RUN,
    need("adapter_id", pa.string(), "content-derived id of the adapter"),
    need("name", pa.string(), "the user's name of what it was trained on"),
    need("image_ids", TEXTS, "the pictures it was trained on; none where it was brought in as a file"),
    need("base", pa.string(), "the base model as the manifest names it"),
    need("base_revision", pa.string(), "pinned revision of the base model"),
    need("rank", pa.int32(), "rank of the low-rank factors"),
    need("steps", pa.int32(), "optimizer steps asked for"),
    may("final_loss", pa.float64(), "mean squared error at the end of the training"),
    need("skipped_steps", pa.int32(), "steps skipped because a loss or gradient was not finite"),
    need("train_seconds", pa.float64(), "wall seconds of the pack divided by its size"),
    need("pack_id", pa.string(), "the pack it was trained in"),
    need("pack_size", pa.int32(), "adapters trained in that pass"),
    need("device", pa.string(), "the processor it was trained on"),
    need("content_bytes", pa.int64(), "size of the content half, bytes"),
    need("style_bytes", pa.int64(), "size of the style half, bytes"),
    need("trained_at", INSTANT, "when its marker was written (UTC)"),
    may("attempt", pa.int32(), "which training of it was kept, from 1; null where it was not checked"),
    may("passed", pa.bool_(), "whether its check found no defect; null where it was not checked, or has no limits"),
    may("failed_checks", pa.string(), "defects beyond their limits, separated by commas; null as passed"),
    may("reconstruction_distance", pa.float64(), "of its own image drawn with it, CIE76; 0 is best"),
    may("split_image", pa.float64(), "how much that looks like two pictures: 0 to 1, 0 is best"),
    may("grey_collapse", pa.float64(), "share of the image's spread of colours that is gone: 0 to 1, 0 is best"),
    may("white_background", pa.float64(), "share of white pixels beyond the image's: -1 to 1"),
    may("source_file", pa.string(), "where it was brought in from as a file; null where it was trained"),
    version=3,
)
"""One row per adapter of a run."""

ADAPTERS_FILE = TableFile("adapters.parquet", ADAPTERS)

SAMPLES = table_schema(
    "samples",
    RUN,
    need("sample_id", pa.string(), "content-derived id of the picture"),
    *SIDES,
    *PROMPTS,
    *STRENGTHS,
    *MIXES,
    *COLOURS,
    *CANDIDATES,
    need("key", pa.string(), "object key of the picture below the store's root"),
    may("width_px", pa.int32(), "width of the picture, pixels; null while it is missing"),
    may("height_px", pa.int32(), "height of the picture, pixels; null while it is missing"),
    need("status", pa.string(), "done or missing"),
    may("bytes", pa.int64(), "size of the picture file, bytes; null while it is missing"),
    may("drawn_at", INSTANT, "when the picture was written (UTC); null while it is missing"),
    version=3,
)
"""One row per picture of a run's plan."""

SAMPLES_FILE = TableFile("samples.parquet", SAMPLES)

BEST = table_schema(
    "best",
    RUN,
    need("asked_id", pa.string(), "the picture that the manifest asks for by pair and seed: the first candidate"),
    need("candidates", pa.int32(), "pictures planned to choose from, that one included"),
    need("judged", pa.int32(), "of these, those that are there, are not rejected, and have the deciding score"),
    may("sample_id", pa.string(), "the picture chosen; null where there is none to choose"),
    *SIDES,
    may("seed", pa.int64(), "seed of the picture chosen"),
    may("key", pa.string(), "its object key below the store's root"),
    need(
        "chosen_by", pa.string(), "score; review (its marks leave one, or none); only (no other is there); none (yet)"
    ),
    may("score", pa.string(), "name of the deciding score; null where none decided"),
    may("value", pa.float64(), "its value of the picture chosen"),
    may("asked_value", pa.float64(), "its value of the picture asked for; null where that one is not among the judged"),
    may("scorer", pa.string(), "model and weights that gave the values"),
    may("scorer_version", pa.string(), "version of the scorer's code and weights"),
)
"""One row per picture asked for, with the candidate that was chosen (`tasks.review.best` has the rule)."""

BEST_FILE = TableFile("best.parquet", BEST)

SCORES = table_schema(
    "scores",
    RUN,
    need("sample_id", pa.string(), "the picture that was scored"),
    *SIDES,
    need("seed", pa.int64(), "the user's seed of the picture"),
    need("score", pa.string(), "name of the score, such as style_clip"),
    need("value", pa.float64(), "the number; its range and direction belong to the score"),
    need("scorer", pa.string(), "model and weights that gave the number"),
    need("scorer_version", pa.string(), "version of the scorer's code and weights"),
    need("scored_at", INSTANT, "when the number was computed (UTC)"),
)
"""One row per picture and score (long form)."""

SCORES_FILE = TableFile("scores.parquet", SCORES)
SHARD_SCORES_FILES = TableFolder("scores", SCORES)
"""Those of each shard, by its id, until the run is compacted."""
ADDED_SCORES_FILES = TableFolder("added_scores", SCORES)
"""Those by scorers that came later, by <shard_id>-<scorer>."""

SLOTS = table_schema(
    "slots",
    RUN,
    need(
        "slot",
        pa.string(),
        "number and device, such as 0 cuda:0, after the machine's name if on a work pool; scoring cpu",
    ),
    need("wall_seconds", pa.float64(), "that it was at the run's disposal, waiting included; summed over flow runs"),
    need("busy_seconds", pa.float64(), "of these, inside calls that train, draw or score; loading and writing are not"),
    need("busy_share", pa.float64(), "busy_seconds over wall_seconds, 0 to 1"),
    need("adapters", pa.int64(), "adapters that the slot trained"),
    need("pictures", pa.int64(), "pictures that it drew"),
    need("scored", pa.int64(), "pictures that it scored"),
    may("adapters_per_hour", pa.float64(), "over the time of its trainings, loading and writing included; null: none"),
    may("pictures_per_hour", pa.float64(), "over the time of its drawing, loading and writing included; null: none"),
)
"""One row per slot of a run, of the last time that it was worked on."""

SLOTS_FILE = TableFile("slots.parquet", SLOTS)

FAULTS = table_schema(
    "faults",
    RUN,
    need("kind", pa.string(), "manifest, image, settings, train, check, sample or score"),
    need("item", pa.string(), "adapter_id, sample_id or name it concerns; may be empty"),
    need("name", pa.string(), "the user's name of the item; may be empty"),
    need("file", pa.string(), "manifest or picture it is about; may be empty"),
    may("row", pa.int64(), "1-based line of text, or record number of a Parquet manifest"),
    need("field", pa.string(), "column or dotted path; may be empty"),
    need("what", pa.string(), "what is wrong"),
    need("received", pa.string(), "what was found"),
    need("accepted", pa.string(), "what would have been fine"),
    need("hint", pa.string(), "what to do next"),
    need("transient", pa.bool_(), "true where a rerun may well succeed without any change"),
    need("recorded_at", INSTANT, "when the fault was recorded (UTC)"),
)
"""One row per refused row or failed item."""

FAULTS_FILE = TableFile("faults.parquet", FAULTS)

NOTES = table_schema(
    "notes",
    RUN,
    need("text", pa.string(), "what there is to know, such as what was done to a picture"),
    need("item", pa.string(), "the user's name of what it concerns; may be empty"),
    need("file", pa.string(), "the manifest; may be empty"),
    may("row", pa.int64(), "1-based line of text, or record number of a Parquet manifest"),
)
"""One row per note: what was done to what a manifest names, and keeps nothing out of the run."""

NOTES_FILE = TableFile("notes.parquet", NOTES)
"""Written with the plan; missing where there is nothing to tell."""

CLIPS = table_schema(
    "clips",
    RUN,
    need("clip_name", pa.string(), "the user's name of the clip"),
    need("style_name", pa.string(), "the user's name of the style, or the prompt that says it"),
    need("prompt", pa.string(), "the prompt of its frames"),
    need("seed", pa.int64(), "the seed that all its frames have"),
    need("frames", pa.int32(), "frames planned"),
    need("frames_drawn", pa.int32(), "frames that are there; the numbers are of these"),
    need("frames_per_second", pa.float64(), "at which it plays"),
    may(
        "drawn_change", pa.float64(), "mean OKLab distance of a pixel between successive drawn frames; white-black is 1"
    ),
    may("source_change", pa.float64(), "the same of the source frames, cut and resized as the drawn ones"),
    may("flicker_ratio", pa.float64(), "drawn_change over source_change; 1 changes as the source does, a still has 0"),
    may(
        "motion_correlation", pa.float64(), "whether the drawn frames change where the source does, -1 to 1; 1 is best"
    ),
    need("measure_version", pa.int32(), "version of the code that measures"),
)
"""One row per clip, style and seed of a run; numbers are null where fewer than two frames are there."""

CLIPS_FILE = TableFile("clips.parquet", CLIPS)
