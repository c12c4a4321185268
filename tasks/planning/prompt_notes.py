"""What there is to know of prompts: their ends that nobody reads, and pictures that they do not mention."""

from __future__ import annotations

from collections.abc import Iterable

from blora.models.prompt_tokens import READ_TOKENS, read_prompt
from manifests.errors import printable
from manifests.notes import Note
from manifests.schema.entries import PairEntry
from tasks.planning.repeats import PROMPTS
from tasks.run.items import PlannedSample

_LONGEST_QUOTE = 120  # characters; a note is a line


def prompt_notes(drawn: Iterable[tuple[PairEntry, PlannedSample]], usual_prompt: str) -> tuple[Note, ...]:
    """Return the notes of the prompts of a manifest, each row's once.

    Args:
        drawn: each pair with each of its samples.
        usual_prompt: what the settings draw where a manifest says nothing; what it mentions should be mentioned.
    """
    notes: dict[Note, None] = {}
    for pair, sample in drawn:
        for name in PROMPTS:
            if unread := read_prompt(getattr(sample, name) or "").unread:
                told = f"{name.replace('_', ' ')}: the text encoders read {READ_TOKENS} tokens"
                notes[Note(f'{told}, and not "{_short(unread)}"', file=pair.file, row=pair.row)] = None
        for text in _unmentioned(pair, usual_prompt):
            notes[Note(text, file=pair.file, row=pair.row)] = None
    return tuple(notes)


def _unmentioned(pair: PairEntry, usual_prompt: str) -> list[str]:
    """The sides of a pair that its own prompt does not mention, where the usual one does."""
    if not pair.prompt:
        return []
    told = f"{pair.prompt} {pair.content_prompt or ''}"
    sides = (("[c]", "content", pair.content), ("[s]", "style", pair.style))
    return [
        f'prompt "{_short(pair.prompt)}" without {token}: the {label} comes from its adapter alone'
        for token, label, name in sides
        if name and token in usual_prompt and token not in told
    ]


def _short(text: str) -> str:
    """A text that fits a line: its beginning and its end."""
    text = printable(text)
    half = _LONGEST_QUOTE // 2
    return text if len(text) <= _LONGEST_QUOTE else f"{text[:half]} ... {text[-half:]}"
