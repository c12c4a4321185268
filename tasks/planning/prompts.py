"""Prompts of a manifest: in plain words for the text score, and what there is to know of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from blora.bases.topology import FamilyName
from blora.models.families.prompt_tokens import READ_TOKENS, read_prompt
from manifests.errors import printable
from manifests.notes import Note
from manifests.schema.entries import ImageEntry, PairEntry
from tasks.planning.repeats import PROMPTS
from tasks.run.items import PlannedAdapter, PlannedSample

_ALONE = "the {} comes from its adapter alone"
_LONGEST_QUOTE = 120  # characters; a note is a line


def prompt_notes(
    drawn: Sequence[tuple[PairEntry, PlannedSample]], usual_prompt: str, family: FamilyName = "sdxl"
) -> tuple[Note, ...]:
    """Return the notes of the prompts of a manifest, each row's once.

    Args:
        drawn: each pair with each of its samples.
        usual_prompt: what the settings draw where a manifest says nothing; what it mentions should be mentioned.
        family: of the base.
    """
    notes: dict[Note, None] = {}
    if "[c]" not in usual_prompt and any(pair.content and not pair.prompt for pair, _ in drawn):
        notes[Note(f'sample.prompt "{_short(usual_prompt)}" without [c]: {_ALONE.format("content")}')] = None
    for pair, sample in drawn:
        for name in PROMPTS:
            if told := _cut(name.replace("_", " "), getattr(sample, name) or "", family):
                notes[Note(told, file=pair.file, row=pair.row)] = None
        for text in _unmentioned(pair, usual_prompt):
            notes[Note(text, file=pair.file, row=pair.row)] = None
    return tuple(notes)


def training_notes(
    adapters: Iterable[PlannedAdapter], usual_prompt: str, family: FamilyName = "sdxl"
) -> tuple[Note, ...]:
    """Return the notes of the prompts that adapters are trained with, the usual one's once.

    Args:
        adapters: those of a manifest.
        usual_prompt: what the settings train with where an adapter has no prompt of its own.
        family: of the base.
    """
    trained = [adapter for adapter in adapters if not adapter.is_finished]
    notes = [Note(told, item=one.name) for one in trained if (told := _cut("training prompt", one.prompt, family))]
    if any(not one.prompt for one in trained) and (told := _cut("train.prompt", usual_prompt, family)):
        notes.append(Note(told))
    return tuple(notes)


def _cut(what: str, prompt: str, family: FamilyName) -> str:
    """Where a prompt is cut, in a sentence; empty where it is read whole."""
    unread = read_prompt(prompt, family).unread
    return f'{what}: the text encoders read {READ_TOKENS} tokens, and not "{_short(unread)}"' if unread else ""


def _unmentioned(pair: PairEntry, usual_prompt: str) -> list[str]:
    """The sides of a pair that its own prompt does not mention, where the usual one does."""
    if not pair.prompt:
        return []
    told = f"{pair.prompt} {pair.content_prompt or ''}"
    sides = (("[c]", "content", pair.content), ("[s]", "style", pair.style))
    return [
        f'prompt "{_short(pair.prompt)}" without {token}: {_ALONE.format(label)}'
        for token, label, name in sides
        if name and token in usual_prompt and token not in told
    ]


def _short(text: str) -> str:
    """A text that fits a line: its beginning and its end."""
    text = printable(text)
    half = _LONGEST_QUOTE // 2
    return text if len(text) <= _LONGEST_QUOTE else f"{text[:half]} ... {text[-half:]}"


def word_of(entry: ImageEntry) -> str:
    """What an entry shows, in a word or two; empty where nobody said."""
    return entry.word or entry.class_word or ""


def shared_class(entries: Sequence[ImageEntry]) -> str:
    """The class word of a side; of a mix only if all its parts have the same."""
    words = {entry.class_word or "" for entry in entries}
    return words.pop() if len(words) == 1 else ""


def plain_words(pair: PairEntry, contents: Sequence[ImageEntry], styles: Sequence[ImageEntry]) -> str:
    """What a picture should show, for the text score; empty where a word for that is missing, or a side is mixed."""
    if max(len(contents), len(styles)) > 1:
        return ""
    if contents and styles:
        content, style = word_of(contents[0]), word_of(styles[0])
        return f"a {content} in {style} style" if content and style else ""
    text = pair.prompt or ""
    words = {token: word_of(side[0]) if side else "" for token, side in (("[c]", contents), ("[s]", styles))}
    if any(token in text and not word for token, word in words.items()):
        return ""
    return re.sub(r"\[[cs]\]", lambda mark: words[mark.group()], text)  # in one pass: a mark in a word is text
