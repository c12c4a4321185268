"""What tables on disk are made of: explicit, versioned pyarrow schemas with units in the names.

Each field's metadata says what it is (`schema.field("seed").metadata[b"doc"]`); the schema's metadata says which table
and version it is. `manifests.tables.parquet` is their one way in and out.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

SCHEMA_VERSION = 1
"""Version of a schema that does not say its own. Raise a table's when a column is added or changes its meaning.

A column that is added later may be null, and is null where an older file is read.
"""

INSTANT = pa.timestamp("us", tz="UTC")
TEXTS = pa.list_(pa.field("element", pa.string(), nullable=False))


def need(name: str, kind: pa.DataType, doc: str) -> pa.Field:
    """Return a column that every row has a value in."""
    return pa.field(name, kind, nullable=False, metadata={"doc": doc})


def may(name: str, kind: pa.DataType, doc: str) -> pa.Field:
    """Return a column that may be null: where there is nothing to say, or in files older than the column."""
    return pa.field(name, kind, nullable=True, metadata={"doc": doc})


def table_schema(table: str, *fields: pa.Field, version: int = SCHEMA_VERSION) -> pa.Schema:
    """Return the schema of a table, which carries its name and version."""
    return pa.schema(fields, metadata={"table": table, "schema_version": str(version)})


@dataclass(frozen=True)
class TableFile:
    """A table of a run: the file that it is in, and the schema that holds there.

    Attributes:
        name: Within the run's folder, such as "plan.parquet".
        schema: What its rows are.
    """

    name: str
    schema: pa.Schema


@dataclass(frozen=True)
class TableFolder:
    """A table of a run that is written in several files.

    Attributes:
        name: Of their folder within the run's, such as "decisions".
        schema: What the rows of each are.
    """

    name: str
    schema: pa.Schema

    def file(self, part: str) -> TableFile:
        """Return one of the files, by its name without extension."""
        return TableFile(f"{self.name}/{part}.parquet", self.schema)


RUN = need("run_id", pa.string(), "the run that wrote this row")
SIDES = (
    may("content_id", pa.string(), "adapter_id of the content side; mix-<hash> of several; text-<hash> of a prompt"),
    may("style_id", pa.string(), "adapter_id of the style side; mix-<hash> of several; text-<hash> of a prompt"),
    may("content_name", pa.string(), "the user's name of the content, or the prompt that says it"),
    may("style_name", pa.string(), "the user's name of the style, or the prompt that says it"),
)
PARTS = pa.list_(
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
MIXES = (
    may("content_mix", PARTS, "what the content is mixed of, weights before content_strength; null: one adapter"),
    may("style_mix", PARTS, "what the style is mixed of, weights before style_strength; null: one adapter"),
)
COLOURS = (
    may("colour_of", pa.string(), "whose colours the picture has been given: content or style; null: those that came"),
    may("colour_by", pa.string(), "how: transfer, subject or guidance; null for none"),
    may("colour_amount", pa.float64(), "how far, 0 to 1; null for none"),
)
PROMPTS = (
    may("prompt", pa.string(), "the prompt as given to the text encoders; null for an adapter with the settings' own"),
    may("content_prompt", pa.string(), "prompt for the content block alone; null: the same as prompt"),
    may("negative_prompt", pa.string(), "what the guidance steers away from"),
)
STRENGTHS = (
    may("content_strength", pa.float64(), "the user's dial, linear; 1 is as trained; null where a prompt says it"),
    may("style_strength", pa.float64(), "the user's dial, linear; 1 is as trained; null where a prompt says it"),
    may("seed", pa.int64(), "the user's seed of this picture"),
)

CANDIDATES = (
    may("candidate_of", pa.string(), "the asked-for picture that this is a further candidate of; null: asked for"),
)
