"""What a person asks of a score table: conditions on names and scores, and what is said where none meets them.

    style=wave and leakage_lite0 >= 0.05

Several conditions hold together, joined by ``and`` or given apart.
"""

from __future__ import annotations

import operator
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from manifests.errors import listed
from manifests.parsing.records import suggest

NAMES = ("content", "style", "seed", "sample_id", "chosen")
"""Columns that a condition with = may ask about; all others are scores."""

_SIGNS: Mapping[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "=": operator.eq,
}
_CLAUSE = re.compile(r"(?P<name>[^=<>]*?)\s*(?P<sign>>=|<=|[=<>])\s*(?P<value>.*)", re.DOTALL)
# An "and" in a name, such as salt and pepper, has no condition behind it.
_AND = re.compile(r"\s+and\s+(?=[\w-]+\s*[=<>])", re.IGNORECASE)


class Scored(Protocol):
    """A row of a score table."""

    @property
    def named(self) -> Mapping[str, str]:
        """What conditions with = may ask of it, by `NAMES`."""

    @property
    def scores(self) -> Mapping[str, float]:
        """Its scores."""


@dataclass(frozen=True)
class Condition:
    """One condition: a column, a sign and what it is compared with; `text` is what the user wrote."""

    text: str
    name: str
    sign: str
    value: str

    def meets(self, row: Scored) -> bool:
        """Whether a row meets it; a row without that score does not."""
        if self.sign == "=":
            return row.named[self.name] == self.value
        score = row.scores.get(self.name)
        return score is not None and _SIGNS[self.sign](score, float(self.value))


def parse_conditions(asked: Sequence[str], rows: Sequence[Scored]) -> list[Condition]:
    """Read conditions, and refuse what no row can meet because of a slip.

    Args:
        asked: as a person wrote them, each one or several joined by ``and``.
        rows: all rows.

    Raises:
        ValueError: an unknown column, a name that no picture has, no number; the nearest that there is is named.
    """
    scores = tuple(sorted({name for row in rows for name in row.scores}))
    return [_condition(clause.strip(), rows, scores) for text in asked for clause in _AND.split(text)]


def told_of_none(conditions: Sequence[Condition], rows: Sequence[Scored]) -> str:
    """Say of conditions that no row meets together how many rows each one has, and the range of its column."""
    parts = []
    for condition in conditions:
        met = sum(map(condition.meets, rows))
        values = [row.scores[condition.name] for row in rows if condition.name in row.scores]
        reach = f"; {condition.name} goes from {min(values):.3g} to {max(values):.3g}" if values else ""
        parts.append(f"{condition.text} holds for {met} of {len(rows)}{reach}")
    return f"no picture meets all of it: {'; '.join(parts)}"


def _condition(clause: str, rows: Sequence[Scored], scores: Sequence[str]) -> Condition:
    found = _CLAUSE.fullmatch(clause)
    name, sign = (found["name"].strip(), found["sign"]) if found else (clause, "")
    value = unicodedata.normalize("NFC", found["value"].strip()) if found else ""  # as manifests have names
    if not sign or name not in (NAMES if sign == "=" else scores):
        accepted = f"{'=, '.join(NAMES)}= or a score with <, <=, > or >=: {', '.join(scores)}"
        raise ValueError(_refusal(clause, accepted, suggest(name, (*NAMES, *scores), "")))
    if sign == "=":
        there = sorted({"yes", "no"} if name == "chosen" else {row.named[name] for row in rows})
        if rows and value not in there:
            raise ValueError(
                _refusal(clause, f"a {name} of this run: {listed(there, 20)}", suggest(value, tuple(there), ""))
            )
        return Condition(clause, name, sign, value)
    try:
        float(value)
    except ValueError as error:
        raise ValueError(_refusal(clause, f"a number after the {sign}")) from error
    return Condition(clause, name, sign, value)


def _refusal(clause: str, accepted: str, hint: str = "") -> str:
    return f"where: received {clause!r}; accepted: {accepted}" + (f"; {hint}" if hint else "")
