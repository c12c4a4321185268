"""Which of several candidates of a picture is delivered.

The rule, of the candidates of one pair and seed that are in the store:

1. What a person says goes first: those marked *reject* or *redo* are out, and once one is marked *keep*, so are those
   that are not.
2. Of the rest the one with the highest deciding score: the first of `DECIDING` (`score_order`) that any has. That is
   the headline ``overall`` where there are two pictures to compare with, the same number that the page, `blora scores`
   and the sheets go by. Where a prompt says one side, ``text_clip``, else the similarity to the picture.
3. Still equal: the picture that the manifest asks for, then the lowest seed.

Numbers of two versions of a scorer do not compare: only those of the version that most candidates have count. A
candidate that alone is left needs no score. Nothing is chosen where several are left and none has a score.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from blora.settings.score_meanings import HEADLINE, HEADLINE_OF, overall
from manifests.store.run_folder import RunFolder
from manifests.store.store import Store
from manifests.tables.run import BEST_FILE
from tasks.review.decisions import Mark, load_marks
from tasks.review.score_order import DECIDING
from tasks.run.inventory import Inventory
from tasks.run.plan import Plan, PlannedSample

SCORE_COLUMNS = ("sample_id", "score", "value", "scorer", "scorer_version")
"""What of the score table a choice is made by."""

ChosenBy = Literal["score", "review", "only", "none"]

Table = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""Rows of the score table by sample_id and name of the score."""


@dataclass(frozen=True)
class Choice:
    """What was chosen for one picture that a manifest asks for.

    Attributes:
        candidates: the pictures planned, the one asked for first.
        chosen: one of them; None where there is nothing to choose, or nothing yet.
        chosen_by: what decided: the score, a reviewer's marks (who may have rejected all), that there is no other, or
            nothing yet.
        judged: how many are there, are not rejected, and have the deciding score.
        deciding: the score's row of the chosen picture; None where no score decided.
        asked_value: the deciding score of the picture asked for.
    """

    candidates: tuple[PlannedSample, ...]
    chosen: PlannedSample | None
    chosen_by: ChosenBy
    judged: int = 0
    deciding: Mapping[str, Any] | None = None
    asked_value: float | None = None


def choose(
    samples: Sequence[PlannedSample],
    there: Container[str],
    scores: Iterable[Mapping[str, Any]],
    marks: Mapping[str, Mark],
) -> list[Choice]:
    """Choose a candidate for each picture asked for, in the order of the plan.

    Args:
        samples: the plan's.
        there: ids of the pictures that are in the store.
        scores: rows of the score table.
        marks: what reviewers said last, by sample_id.
    """
    groups: dict[str, list[PlannedSample]] = {}
    for sample in samples:
        groups.setdefault(sample.asked_id, []).append(sample)
    table: dict[str, dict[str, Mapping[str, Any]]] = {}
    for row in scores:
        if row["score"] in (*DECIDING, *HEADLINE_OF):
            table.setdefault(row["sample_id"], {})[row["score"]] = row
    for rows in table.values():
        if (value := overall({name: row["value"] for name, row in rows.items()})) is not None:
            rows[HEADLINE] = {**rows[HEADLINE_OF[0]], "score": HEADLINE, "value": value}
    return [_choose(sorted(group, key=_first), there, table, marks) for group in groups.values()]


def _first(sample: PlannedSample) -> tuple[bool, int]:
    """The order of candidates of equal merit."""
    return sample.candidate_of is not None, sample.seed


def _choose(group: list[PlannedSample], there: Container[str], table: Table, marks: Mapping[str, Mark]) -> Choice:
    candidates = tuple(group)
    said = {sample.sample_id: marks[sample.sample_id].decision for sample in group if sample.sample_id in marks}
    present = [sample for sample in group if sample.sample_id in there]
    left = [sample for sample in present if said.get(sample.sample_id) not in ("reject", "redo")]
    left = [sample for sample in left if said.get(sample.sample_id) == "keep"] or left
    if not left:
        return Choice(candidates, None, "review" if len(present) == len(group) else "none")
    name = next((name for name in DECIDING if any(name in table.get(sample.sample_id, {}) for sample in left)), "")
    rows = _comparable(
        {sample.sample_id: table[sample.sample_id][name] for sample in left if name in table.get(sample.sample_id, {})}
    )
    if len(left) > 1 and not rows:
        return Choice(candidates, None, "none")
    judged = [sample for sample in left if sample.sample_id in rows] or left
    chosen = max(judged, key=lambda sample: _value(rows, sample))  # the first of equals
    by: ChosenBy = "score" if len(left) > 1 else "review" if len(present) > 1 else "only"
    asked = rows.get(group[0].asked_id)
    return Choice(candidates, chosen, by, len(rows), rows.get(chosen.sample_id), asked["value"] if asked else None)


def _comparable(rows: dict[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Those of the scorer and version that most have."""
    versions = Counter((row["scorer"], row["scorer_version"]) for row in rows.values())
    if len(versions) < 2:
        return rows
    usual = max(versions, key=lambda version: (versions[version], version))
    return {key: row for key, row in rows.items() if (row["scorer"], row["scorer_version"]) == usual}


def _value(rows: Mapping[str, Mapping[str, Any] | None], sample: PlannedSample) -> float:
    row = rows.get(sample.sample_id)
    return row["value"] if row else 0.0


def choose_of(store: Store, plan: Plan, inventory: Inventory) -> list[Choice]:
    """Choose among what the store holds of a plan now."""
    marks = load_marks(store, plan.run.run_id)
    return choose(plan.samples, inventory.pictures.keys(), inventory.scores.rows(*SCORE_COLUMNS), marks)


def write_best(store: Store, plan: Plan, choices: Sequence[Choice]) -> None:
    """Keep what was chosen as the table ``runs/<run_id>/best.parquet``; it follows from plan, scores and decisions."""
    run_id = plan.run.run_id
    RunFolder(store, run_id).write(BEST_FILE, [_row(run_id, choice) for choice in choices])


def read_best(store: Store, run_id: str) -> frozenset[str] | None:
    """The pictures that were chosen when the run was last closed or reviewed; None where that has not been yet."""
    table = RunFolder(store, run_id).find(BEST_FILE)
    return None if table is None else frozenset(table["sample_id"].drop_null().to_pylist())


def _row(run_id: str, choice: Choice) -> dict[str, Any]:
    asked, chosen, score = choice.candidates[0], choice.chosen, choice.deciding
    sides = ("content_id", "style_id", "content_name", "style_name")
    return {name: getattr(asked, name) for name in sides} | {
        "run_id": run_id,
        "asked_id": asked.asked_id,
        "candidates": len(choice.candidates),
        "judged": choice.judged,
        "sample_id": chosen.sample_id if chosen else None,
        "seed": chosen.seed if chosen else None,
        "key": chosen.key if chosen else None,
        "chosen_by": choice.chosen_by,
        "asked_value": choice.asked_value,
        **{name: score[name] if score else None for name in ("score", "value", "scorer", "scorer_version")},
    }
