"""The score table as people read it: one row per picture, one column per score."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from rich.console import Console
from rich.table import Table

from blora.settings.score_meanings import HEADLINE, lower_is_better
from manifests import layout
from manifests.parsing.csv_text import written_csv
from manifests.parsing.records import suggest
from manifests.store.store import Store
from tasks.review.best import read_best
from tasks.review.score_order import default_sort, with_overall
from tasks.run.plan import RunInfo
from tasks.run.scores import read_scores

HEAD = ("content", "style", "seed")


@dataclass(frozen=True)
class ScoreRow:
    """One picture and its scores; `chosen` says whether it is the best of its candidates (`tasks.review.best`)."""

    sample_id: str
    content_name: str
    style_name: str
    seed: int
    key: str
    scores: dict[str, float] = field(default_factory=dict)
    chosen: bool = True

    @property
    def named(self) -> dict[str, str]:
        """What conditions with = may ask of it (`tasks.review.score_filter`)."""
        names = {"content": self.content_name, "style": self.style_name, "seed": str(self.seed)}
        return names | {"sample_id": self.sample_id, "chosen": self.chosen_word}

    @property
    def chosen_word(self) -> str:
        """`chosen` as people read and ask for it."""
        return "yes" if self.chosen else "no"


def score_table(store: Store, run: RunInfo, *, sort: str = "", best_first: bool = False) -> list[ScoreRow]:
    """The scored pictures of a run.

    Args:
        store: the store.
        run: the run.
        sort: the score to sort by, or `default_sort`; rows without it come last.
        best_first: worst rows come first unless this is set.

    Raises:
        ValueError: an unknown column.
    """
    best = read_best(store, run.run_id)
    rows: dict[str, ScoreRow] = {}
    for sample_id, content_id, style_id, content, style, seed, name, value in read_scores(store, run).columns(
        "sample_id", "content_id", "style_id", "content_name", "style_name", "seed", "score", "value"
    ):
        if sample_id not in rows:
            key = layout.sample_key(content_id, style_id, sample_id)
            rows[sample_id] = ScoreRow(sample_id, content, style, seed, key, chosen=best is None or sample_id in best)
        rows[sample_id].scores[name] = value
    scored = [replace(row, scores=with_overall(row.scores)) for row in rows.values()]
    names = {name for row in scored for name in row.scores}
    sort = sort or default_sort(names)
    if sort not in names and scored:
        near = suggest(sort, tuple(sorted(names)), "")
        accepted = ", ".join(sorted(names))
        raise ValueError(f"sort: received {sort!r}; accepted: {accepted}" + (f"; {near}" if near else ""))
    sign = 1.0 if best_first == lower_is_better(sort) else -1.0
    return sorted(scored, key=lambda row: (sort not in row.scores, sign * row.scores.get(sort, 0.0)))


def render(rows: Sequence[ScoreRow], form: str) -> str:
    """The rows as text.

    Args:
        rows: the rows, in order.
        form: ``table`` (for people), ``csv`` or ``json``.

    Raises:
        ValueError: another form.
    """
    forms: dict[str, Callable[[Sequence[ScoreRow], Sequence[str]], str]]
    forms = {"table": _as_table, "csv": _as_csv, "json": _as_json}
    if form not in forms:
        raise ValueError(f"format: received {form!r}; accepted: {', '.join(forms)}")
    return forms[form](rows, all_names(rows))


def all_names(rows: Sequence[ScoreRow]) -> list[str]:
    """The scores that any picture has: the headline before the others, these by name."""
    return sorted({name for row in rows for name in row.scores}, key=lambda name: (name != HEADLINE, name))


def shared_end(rows: Sequence[ScoreRow], sort: str = "") -> list[str]:
    """A line that says so where pictures share the number that the table begins with: their order says nothing.

    Args:
        rows: in order.
        sort: the score that they are sorted by, or `default_sort`.
    """
    score = sort or default_sort(all_names(rows))
    values = [row.scores[score] for row in rows if score in row.scores]
    many = values.count(values[0]) if values else 0
    return [f"{many} of {len(values)} share {score} {values[0]:.3f}: their order says nothing"] if many > 1 else []


def _as_json(rows: Sequence[ScoreRow], names: Sequence[str]) -> str:
    records = [{**{k: v for k, v in vars(row).items() if k != "scores"}, **row.scores} for row in rows]
    return json.dumps(records, indent=2, ensure_ascii=False) + "\n"


def _as_csv(rows: Sequence[ScoreRow], names: Sequence[str]) -> str:
    head = [*HEAD, *names, "chosen", "key"]
    body = (
        [row.content_name, row.style_name, row.seed, *map(row.scores.get, names), row.chosen_word, row.key]
        for row in rows
    )
    return written_csv([head, *body])


def _as_table(rows: Sequence[ScoreRow], names: Sequence[str]) -> str:
    """Columns for people; which pictures are chosen is told only where some are not."""
    table = Table(box=None, pad_edge=False)
    with_choice = not all(row.chosen for row in rows)
    for index, name in enumerate([*HEAD, *names, *(["chosen"] if with_choice else [])]):
        table.add_column(name.replace("_", "\n", 1), justify="left" if index < 2 else "right", no_wrap=index > 1)
    for row in rows:
        numbers = [f"{row.scores[name]:.3f}" if name in row.scores else "-" for name in names]
        choice = [row.chosen_word] if with_choice else []
        table.add_row(row.content_name, row.style_name, str(row.seed), *numbers, *choice)
    console = Console(file=io.StringIO(), width=max(100, 14 * len(table.columns)), markup=False)
    with console.capture() as captured:
        console.print(table, markup=False)
    return captured.get()
