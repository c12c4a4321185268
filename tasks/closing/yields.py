"""What passed: adapters by the check that their markers keep, pictures by their scores.

An adapter's verdict is that of the run which trained it, and stands in its marker. A picture's follows from its scores
and the limits of today, so that a calibration is felt without drawing or scoring anything again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from blora.checks.limits import LIMITS, limits_for, picture_passes
from manifests.errors import counted
from manifests.faults import Fault
from manifests.tables.run import ADAPTERS
from tasks.review.best import Choice
from tasks.run.plan import Plan, RunInfo

Markers = Mapping[str, Mapping[str, Any]]
"""Contents of adapter.json, by adapter_id."""

CHECK_COLUMNS = tuple(name for name in ADAPTERS.names if name in LIMITS)


@dataclass(frozen=True)
class Yield:
    """How many passed of those that could be judged.

    Attributes:
        adapters_judged: adapters that are there and whose check had limits.
        adapters_passed: of these, those without a defect.
        pictures_judged: pictures whose scores tell some defect, on a base that has a limit for it.
        pictures_passed: of these, those without a defect, such as showing the style image's thing.
        chosen_judged: of the pictures judged, those that are chosen of their candidates.
        chosen_passed: of these, those that passed.
    """

    adapters_judged: int
    adapters_passed: int
    pictures_judged: int
    pictures_passed: int
    chosen_judged: int
    chosen_passed: int

    @property
    def sentence(self) -> str:
        """The yield in one line; empty where nothing could be judged."""
        told = [
            f"{passed} of {counted(judged, what)}"
            for what, judged, passed in (
                ("adapter", self.adapters_judged, self.adapters_passed),
                ("picture", self.pictures_judged, self.pictures_passed),
                ("chosen picture", self.chosen_judged, self.chosen_passed),
            )
            if judged
        ]
        return ", ".join(told)

    def to_json(self) -> dict[str, Any]:
        """As run.json keeps it."""
        return {**asdict(self), "sentence": self.sentence}


def take_yield(plan: Plan, markers: Markers, scores: Iterable[Mapping[str, Any]], choices: Sequence[Choice]) -> Yield:
    """Count what passed.

    Args:
        plan: the run's plan.
        markers: of the adapters that are there.
        scores: rows of the score table.
        choices: what was chosen of candidates.
    """
    verdicts = [check.get("passed") for marker in markers.values() if (check := marker.get("check"))]
    judged = [verdict for verdict in verdicts if verdict is not None]
    passed = pictures_passed(plan.run, scores)
    # Where nothing has further candidates, "chosen" says nothing.
    some = len(choices) < len(plan.samples)
    chosen = [c.chosen.sample_id for c in choices if some and c.chosen and c.chosen.sample_id in passed]
    return Yield(
        len(judged),
        sum(judged),
        len(passed),
        sum(passed.values()),
        len(chosen),
        sum(passed[sample_id] for sample_id in chosen),
    )


def pictures_passed(run: RunInfo, scores: Iterable[Mapping[str, Any]]) -> dict[str, bool]:
    """Whether a picture has no defect, for each that can be judged."""
    limits = limits_for(run.settings.check, run.base_revision)
    told: dict[str, dict[str, float]] = {}
    for row in scores:
        told.setdefault(row["sample_id"], {})[row["score"]] = row["value"]
    verdicts = {sample_id: picture_passes(of, limits) for sample_id, of in told.items()}
    return {sample_id: verdict for sample_id, verdict in verdicts.items() if verdict is not None}


def check_faults(plan: Plan, markers: Markers) -> list[Fault]:
    """A fault for each adapter that was trained several times and never passed.

    Where one training was asked for, a failed check is told (table `adapters`) and is no fault.
    """
    faults = []
    for adapter in plan.adapters:
        check = (markers.get(adapter.adapter_id) or {}).get("check") or {}
        if check.get("passed") is False and check["attempts"] > 1:
            faults.append(
                Fault(
                    kind="check",
                    item=adapter.adapter_id,
                    what=f"none of {check['attempts']} trainings of {adapter.name} passed its check; the best is kept",
                    received=", ".join(f"{name} {check['measures'][name]:.3f}" for name in check["failed"]),
                    accepted=", ".join(f"{name} up to {check['limits'][name]:g}" for name in check["failed"]),
                    hint="look at its pictures; use another image, more check.attempts, or limits of your own",
                )
            )
    return faults


def why_failed(check: Mapping[str, Any]) -> str:
    """What a check found too large, with what is good, for a person."""
    measures, limits = check["measures"], check["limits"]
    return ", ".join(
        f"{name.replace('_', ' ')} {measures[name]:.3f}, good up to {limits[name]:g}" for name in check["failed"]
    )


def check_columns(marker: Mapping[str, Any]) -> dict[str, Any]:
    """What the table of adapters says of a check; nulls where there was none."""
    check = marker.get("check") or {}
    measures = check.get("measures", {})
    told = {"attempt": check.get("attempt"), "passed": check.get("passed")}
    failed = ", ".join(check["failed"]) if check.get("passed") is not None else None
    return told | {"failed_checks": failed} | {name: measures.get(name) for name in CHECK_COLUMNS}
