"""Pictures that a manifest asks for more than once: no two requests become one picture without a word.

| what asks again | outcome |
|---|---|
| another name of a picture, a row that says the same in other words | a fault of the row, or of the name in a grid |
| a step of a sweep under the same names | one picture, a step of both strips |
| a frame of a clip | one picture, a frame of both: a clip that comes back has names 1, 2, 3 |
| a prompt that differs only where the text encoders do not read on | one picture, with a note |
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from blora.bases.topology import FamilyName
from blora.models.families.prompt_tokens import READ_TOKENS, read_prompt
from manifests import ids
from manifests.errors import printable
from manifests.faults import Fault
from manifests.notes import Note
from manifests.parsing.fault_list import shown
from manifests.schema.entries import ImageEntry, PairEntry, content_parts, style_parts
from tasks.run.items import PlannedSample

Drawn = tuple[PairEntry, PlannedSample]
"""A pair with one of its samples."""

Entries = Mapping[str, ImageEntry]

PROMPTS = ("prompt", "content_prompt", "negative_prompt")
"""All that the text encoders read for a picture."""

_LONGEST_END = 40  # characters of a prompt's end that a note quotes


@dataclass(frozen=True)
class Requests:
    """What is asked for, each picture under one name.

    Attributes:
        drawn: each pair with each of its samples; those that may share a picture are all there.
        faults: what was asked for again, and is left out.
        notes: what was asked for again in prompts of which the same is read, and is left out, too.
    """

    drawn: tuple[Drawn, ...]
    faults: tuple[Fault, ...]
    notes: tuple[Note, ...]


def told_apart(
    drawn: Iterable[Drawn],
    contents: Entries,
    styles: Entries,
    sample_settings: ids.Canonical,
    revision: str,
    family: FamilyName = "sdxl",
) -> Requests:
    """Find what is asked for again.

    Args:
        drawn: each pair with each of its samples, in the order of the manifest.
        contents: the contents by name.
        styles: the styles by name.
        sample_settings: what of the settings changes a picture.
        revision: pinned revision of the base model.
        family: of the base model, whose text encoders read so much of a prompt.
    """
    first: dict[str, Drawn] = {}
    kept: list[Drawn] = []
    faults: dict[tuple[int | None, str], Fault] = {}
    notes: dict[Note, None] = {}
    for pair, sample in drawn:
        key = _as_read(sample, sample_settings, revision, family)
        before, earlier = first.setdefault(key, (pair, sample))
        if before is pair:
            kept.append((pair, sample))
        elif sample.sample_id != earlier.sample_id:
            notes[_one_picture(pair, sample, before, earlier)] = None
        elif _is_frame(pair, contents) or (_names(pair) == _names(before) and (pair.sweep or before.sweep)):
            kept.append((pair, sample))
        else:
            fault = _fault(pair, before, sample, contents, styles)
            faults.setdefault((fault.row, fault.item), fault)
    return Requests(tuple(kept), tuple(faults.values()), tuple(notes))


def _as_read(sample: PlannedSample, sample_settings: ids.Canonical, revision: str, family: FamilyName) -> str:
    """An id that two samples share where the very same picture comes of both."""
    prompts = {name: text for name in PROMPTS if (text := getattr(sample, name)) is not None}
    read: dict[str, Any] = {name: read_prompt(text, family).key for name, text in prompts.items()}
    return sample.sample_id if read == prompts else replace(sample, **read).named(sample_settings, revision).sample_id


def _one_picture(pair: PairEntry, sample: PlannedSample, before: PairEntry, earlier: PlannedSample) -> Note:
    """The note of a pair whose prompts are read as those of an earlier one, though they differ."""
    name = next(name for name in PROMPTS if getattr(sample, name) != getattr(earlier, name))
    ends = " and ".join(f'"...{printable(getattr(one, name))[-_LONGEST_END:]}"' for one in (sample, earlier))
    where = "" if before.row in (None, pair.row) else f" (row {before.row})"
    text = f"{name.replace('_', ' ')}s that end in {ends}{where} are one picture"
    read = f"the text encoders read the same {READ_TOKENS} tokens of both"
    return Note(f"{text}: {read}", file=pair.file, row=pair.row)


def _is_frame(pair: PairEntry, contents: Entries) -> bool:
    return any(contents[part.name].frame is not None for part in content_parts(pair))


def _names(pair: PairEntry) -> tuple[str | None, str | None]:
    return pair.content, pair.style


def _fault(pair: PairEntry, before: PairEntry, sample: PlannedSample, contents: Entries, styles: Entries) -> Fault:
    """The fault of a pair whose picture an earlier one asks for."""
    sides = " with ".join(shown(name) for name in _names(pair) if name)
    earlier = " with ".join(shown(name) for name in _names(before) if name)
    where = "" if before.row is None else f" in row {before.row}"
    field, row = "", pair.row
    if _names(pair) == _names(before):
        what, item = "sample drawn twice", pair.content or pair.style or ""
        received = f"{sides} and seed {sample.seed} again, as{where or ' before'}"
        hint = "remove one of the two, or give it other seeds"
    else:
        what = "one picture under two names"
        received = f"{sides}, which draws the same as {earlier}{where}"
        hint = "remove one of the names, or draw it otherwise: another prompt, seed or class word"
        label, item, entry = _renamed(pair, before, contents, styles)
        field = f"{label}s.name"
        row = row if row is not None else entry.row if entry else None
    accepted = "each picture once, under one name"
    return Fault("manifest", what, printable(received), accepted, hint, file=pair.file, row=row, field=field, item=item)


def _renamed(
    pair: PairEntry, before: PairEntry, contents: Entries, styles: Entries
) -> tuple[str, str, ImageEntry | None]:
    """The side whose name alone differs, its name, and its entry where it is one and no mix."""
    if pair.content != before.content:
        label, name, parts, entries = "content", pair.content, content_parts(pair), contents
    else:
        label, name, parts, entries = "style", pair.style, style_parts(pair), styles
    return label, name or "", entries[parts[0].name] if len(parts) == 1 else None
