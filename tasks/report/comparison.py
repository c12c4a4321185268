"""The same pairs in two runs: paired differences of every score, and how sure they are.

Two pictures are a pair of the comparison where their content images, style images and seed are the same; base, settings
and prompts may differ, for that is what is compared. Where several pictures of a run share all three (a sweep of
strengths) their scores are averaged. A score is compared only where one scorer in one version gave it in both runs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TypeAlias

from blora.settings.score_meanings import lower_is_better
from manifests.store.store import Store
from tasks.errors import RunRefused
from tasks.report.crossed import crossed_interval
from tasks.run.plan import Plan, PlannedSample, load_plan
from tasks.run.scores import RunScores, read_scores

Side: TypeAlias = "tuple[str, ...]"
Key: TypeAlias = "tuple[Side, Side, int]"
Scorer: TypeAlias = "tuple[str, str]"


@dataclass(frozen=True)
class Twin:
    """One picture of each run.

    Attributes:
        a: the picture of the first run; the first where several share images and seed.
        b: that of the second.
        row: number of the content, from 0.
        column: number of the style, from 0.
        values: (score in a, score in b) by the score's name, for scores that both have.
    """

    a: PlannedSample
    b: PlannedSample
    row: int
    column: int
    values: Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Difference:
    """How one score differs between the runs; fields as in table COMPARISON."""

    score: str
    scorer: str
    scorer_version: str
    lower_is_better: bool
    pairs: int
    mean_a: float
    mean_b: float
    difference: float
    low: float | None
    high: float | None
    better_share: float

    @property
    def verdict(self) -> str:
        """Which run is better, as far as the interval tells."""
        if self.low is None or self.high is None:
            return "too few pairs to tell"
        if self.low <= 0 <= self.high:
            return "no clear difference"
        return "b is better" if (self.difference < 0) is self.lower_is_better else "a is better"


@dataclass(frozen=True)
class Comparison:
    """Two runs side by side.

    Attributes:
        a: plan of the first run.
        b: plan of the second.
        twins: the pairs of pictures.
        differences: one for each score that can be compared.
        left_out: why other scores are not compared, by name.
        alone_a: pictures of the first run without a counterpart.
        alone_b: pictures of the second run without a counterpart.
    """

    a: Plan
    b: Plan
    twins: tuple[Twin, ...]
    differences: tuple[Difference, ...]
    left_out: Mapping[str, str]
    alone_a: int
    alone_b: int


def compare(store: Store, run_a: str, run_b: str) -> Comparison:
    """Compare two runs of one store.

    Raises:
        RunNotFound: one of them does not exist.
        RunRefused: it is one run, or they have no pair in common.
    """
    if run_a == run_b:
        raise RunRefused(f"compare: received {run_a} twice; accepted: two runs")
    plans = load_plan(store, run_a), load_plan(store, run_b)
    pictures = [_by_key(plan) for plan in plans]
    scores = [_Scores(read_scores(store, plan.run)) for plan in plans]
    shared = [key for key in pictures[0] if key in pictures[1]]
    if not shared:
        raise RunRefused(
            f"compare: {run_a} and {run_b} have no pair in common; accepted: runs with the same content images, style "
            "images and seeds"
        )
    comparable, left_out = _comparable(*scores)
    rows, columns = _numbered(key[0] for key in shared), _numbered(key[1] for key in shared)
    twins = []
    for key in shared:
        ours, theirs = pictures[0][key], pictures[1][key]
        values = {}
        for name in comparable:
            pair = scores[0].mean(name, ours), scores[1].mean(name, theirs)
            if pair[0] is not None and pair[1] is not None:
                values[name] = (pair[0], pair[1])
        twins.append(Twin(ours[0], theirs[0], rows[key[0]], columns[key[1]], values))
    differences = [_difference(name, comparable[name], twins) for name in comparable]
    return Comparison(
        plans[0],
        plans[1],
        tuple(twins),
        tuple(difference for difference in differences if difference is not None),
        left_out,
        sum(len(some) for key, some in pictures[0].items() if key not in pictures[1]),
        sum(len(some) for key, some in pictures[1].items() if key not in pictures[0]),
    )


def _numbered(sides: Iterable[Side]) -> dict[Side, int]:
    """Contents or styles with their numbers, in the order in which they come."""
    return {side: number for number, side in enumerate(dict.fromkeys(sides))}


def _by_key(plan: Plan) -> dict[Key, list[PlannedSample]]:
    images: dict[str, Side] = {a.adapter_id: a.image_ids for a in plan.adapters if not a.is_finished}
    by_key: dict[Key, list[PlannedSample]] = defaultdict(list)
    for sample in plan.samples:
        # A side without pictures is a prompt or a finished adapter, and its id says which.
        content = images.get(sample.content_id, (sample.content_id,))
        by_key[content, images.get(sample.style_id, (sample.style_id,)), sample.seed].append(sample)
    return dict(by_key)


class _Scores:
    """The scores of a run, by name and picture, with who gave them."""

    def __init__(self, scores: RunScores) -> None:
        self.scorers: dict[str, set[Scorer]] = defaultdict(set)
        self._values: dict[tuple[str, str], float] = {}
        for sample_id, name, value, *scorer in scores.columns(
            "sample_id", "score", "value", "scorer", "scorer_version"
        ):
            self.scorers[name].add((scorer[0], scorer[1]))
            self._values[name, sample_id] = value

    def mean(self, name: str, samples: Sequence[PlannedSample]) -> float | None:
        known = [self._values[name, s.sample_id] for s in samples if (name, s.sample_id) in self._values]
        return fmean(known) if known else None


def _comparable(a: _Scores, b: _Scores) -> tuple[dict[str, Scorer], dict[str, str]]:
    """Scores that one scorer gave in both runs, and why the others are left out."""
    comparable: dict[str, Scorer] = {}
    left_out: dict[str, str] = {}
    for name in sorted({*a.scorers, *b.scorers}):
        ours, theirs = a.scorers.get(name, set()), b.scorers.get(name, set())
        if ours == theirs and len(ours) == 1:
            comparable[name] = next(iter(ours))
        elif not ours or not theirs:
            left_out[name] = f"only {'a' if ours else 'b'} has it"
        else:
            shown = [" and ".join(" ".join(scorer) for scorer in sorted(some)) for some in (ours, theirs)]
            left_out[name] = f"scored by {shown[0]} in a, by {shown[1]} in b"
    return comparable, left_out


def _difference(name: str, scorer: Scorer, twins: Sequence[Twin]) -> Difference | None:
    some = [twin for twin in twins if name in twin.values]
    if not some:
        return None
    deltas = [twin.values[name][1] - twin.values[name][0] for twin in some]
    lower = lower_is_better(name)
    interval = crossed_interval(deltas, [twin.row for twin in some], [twin.column for twin in some])
    better = fmean(0.5 if delta == 0 else float((delta < 0) is lower) for delta in deltas)
    return Difference(
        name,
        *scorer,
        lower,
        len(some),
        fmean(twin.values[name][0] for twin in some),
        fmean(twin.values[name][1] for twin in some),
        fmean(deltas),
        interval[0] if interval else None,
        interval[1] if interval else None,
        better,
    )
