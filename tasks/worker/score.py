"""Score one shard in a slot and write its part of the score data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from PIL import Image

from blora.adapters.blocks import Half
from blora.errors import ScorerError
from blora.metrics.feature_scorer import ScoreItem
from blora.metrics.score import Scored, Scorer, score_each
from manifests import layout
from manifests.errors import Damaged, Missing
from manifests.faults import Fault
from manifests.store.run_folder import RunFolder
from manifests.tables.run import SHARD_SCORES_FILES
from tasks.messages import Advance, ScoreAnswer, ScoreShard
from tasks.report.thumbnails import write_shard_thumbnails
from tasks.run.plan import Plan, PlannedSample
from tasks.worker.session import Pixels, Session

READERS = 4  # pictures read and decoded at once


def score_shard(session: Session, job: ScoreShard) -> ScoreAnswer:
    """Make every picture of a shard that exists have its scores.

    Rows that are there are kept; pictures that came later are added to the same part.
    """
    plan, shard = session.shard(job.run_id, job.shard_id)
    run, part = RunFolder(session.store, job.run_id), SHARD_SCORES_FILES.file(shard.shard_id)
    try:
        rows = run.rows(part)
    except Damaged:  # told where the run's scores are read; made again here
        rows = []
    known = {row["sample_id"] for row in rows}
    started = session.clock()
    unscored = [sample for sample in shard.samples if sample.sample_id not in known]
    judged = judge(session, plan, unscored, lambda: session.scorers(plan.run.settings.score))
    if judged.ids:
        run.write(part, [*rows, *judged.rows])
        at_hand = {s.sample_id: Image.fromarray(session.picture(s.key)) for s in unscored if s.sample_id in judged.ids}
        write_shard_thumbnails(session.store, job.run_id, shard.samples, dict.fromkeys(known) | at_hand)
    session.emit(Advance("score", shard.shard_id, len(known | set(judged.ids)), len(shard.samples)))
    seconds = session.clock() - started
    return ScoreAnswer(tuple(judged.ids), tuple(judged.faults), seconds, judged.busy_seconds)


@dataclass(frozen=True)
class Judged:
    """What came of judging some pictures.

    Attributes:
        ids: of the pictures judged.
        rows: theirs of the SCORES table.
        faults: of the pictures that are there and could not be judged.
        busy_seconds: spent on it.
    """

    ids: list[str]
    rows: list[dict[str, Any]]
    faults: list[Fault]
    busy_seconds: float


def judge(
    session: Session,
    plan: Plan,
    samples: Sequence[PlannedSample],
    scorers: Callable[[], Sequence[Scorer]],
    key_of: Callable[[PlannedSample], str] = lambda sample: sample.key,
) -> Judged:
    """Judge those of some pictures that are there; one that cannot be judged keeps no other from it.

    Args:
        session: the slot's working set.
        plan: their plan.
        samples: the pictures.
        scorers: gives the scorers; not called where there is nothing to judge.
        key_of: where the picture of a sample lies.
    """
    planned: list[PlannedSample] = []
    items: list[list[tuple[float, ScoreItem]]] = []
    faults: list[Fault] = []
    with ThreadPoolExecutor(READERS) as threads:
        pictures = list(threads.map(lambda sample: _picture(session, key_of(sample)), samples))
    for sample, picture in zip(samples, pictures, strict=True):
        if isinstance(picture, OSError):
            faults.append(_fault(sample, picture))
        elif picture is not None:
            planned.append(sample)
            items.append(_items(session, picture, sample, plan))
    if not planned:
        return Judged([], [], faults, 0.0)
    began = session.clock()
    loaded = scorers()
    scored_at = datetime.now(UTC)
    ids, rows = [], []
    for sample, scores in zip(planned, _judged(loaded, items), strict=True):
        if isinstance(scores, ScorerError):
            faults.append(_fault(sample, scores))
            continue
        ids.append(sample.sample_id)
        rows += [
            _identity(sample, plan.run.run_id)
            | {
                "score": name,
                "value": scored.value,
                "scorer": scored.scorer,
                "scorer_version": scored.version,
                "scored_at": scored_at,
            }
            for name, scored in scores.items()
        ]
    return Judged(ids, rows, faults, session.clock() - began)


def _picture(session: Session, key: str) -> Pixels | OSError | None:
    """A picture of the store; None where there is none, and why where what is there is no picture."""
    try:
        return session.picture(key)
    except Missing:
        return None
    except OSError as error:  # as Pillow calls what it cannot identify, or finds cut off
        return error


def _fault(sample: PlannedSample, error: Exception) -> Fault:
    return Fault(
        kind="score",
        item=sample.sample_id,
        what=f"the picture {sample.content_name} x {sample.style_name}, seed {sample.seed}, could not be judged",
        received=str(error)[:2000],
        accepted="a picture that can be read, and finite scores",
        hint="delete it if it is damaged, then: blora rerun",
    )


def _items(session: Session, picture: Pixels, sample: PlannedSample, plan: Plan) -> list[tuple[float, ScoreItem]]:
    """What is judged, by weight: one item for each content and style picture.

    A mix has those of its parts, an object those of all its photos; a side that the prompt says, or that is a finished
    adapter, has none.
    """

    def pictures(half: Half) -> list[tuple[float, Pixels | None]]:
        photos = {part: ids for part in sample.parts(half) if (ids := plan.adapter(part.adapter_id).image_ids)}
        total = sum(part.weight for part in photos) or 1.0
        return [
            (part.weight / total / len(image_ids), session.picture(layout.image_key(image_id)))
            for part, image_ids in photos.items()
            for image_id in image_ids
        ] or [(1.0, None)]

    return [
        (share * other, ScoreItem(sample=picture, content=content, style=style, text=sample.text))
        for share, content in pictures("content")
        for other, style in pictures("style")
    ]


def _judged(
    scorers: Sequence[Scorer], items: Sequence[list[tuple[float, ScoreItem]]]
) -> list[dict[str, Scored] | ScorerError]:
    """The scores of each picture; their mean over all contents and styles, weighted as these are mixed."""
    rows = iter(score_each(scorers, [item for group in items for _, item in group]))
    judged: list[dict[str, Scored] | ScorerError] = []
    for group in items:
        told = [next(rows) for _ in group]
        if bad := next((row for row in told if isinstance(row, ScorerError)), None):
            judged.append(bad)
            continue
        scores = [(share, row) for (share, _), row in zip(group, told, strict=True) if not isinstance(row, ScorerError)]
        judged.append(
            {
                name: replace(scored, value=sum(share * row[name].value for share, row in scores))
                for name, scored in scores[0][1].items()
            }
        )
    return judged


def _identity(sample: PlannedSample, run_id: str) -> dict[str, Any]:
    fields = ("sample_id", "content_id", "style_id", "content_name", "style_name", "seed")
    return {"run_id": run_id} | {field: getattr(sample, field) for field in fields}
