"""What passed: adapters by the check that their markers keep, pictures by what their scores say of copying the style.

An adapter's verdict is that of the run which trained it, and stands in its marker. A picture's follows from its scores
and the limits of today, so that a calibration is felt without drawing or scoring anything again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from blora.checks.defects import style_copy
from blora.checks.limits import limits_for
from manifests.faults import Fault
from tasks.review.best import Choice
from tasks.run.plan import Plan, RunInfo

Markers = Mapping[str, Mapping[str, Any]]
"""Contents of adapter.json, by adapter_id."""

CHECK_COLUMNS = ("reconstruction_distance", "split_image", "grey_collapse", "white_background")


@dataclass(frozen=True)
class Yield:
    """How many passed of those that could be judged.

    Attributes:
        adapters_judged: adapters that are there and whose check had limits.
        adapters_passed: of these, those without a defect.
        pictures_judged: pictures with both scores that `style_copy` needs, on a base that has a limit for it.
        pictures_passed: of these, those that are nearer to their content than the limit says.
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
            f"{passed} of {judged} {what}"
            for what, judged, passed in (
                ("adapters", self.adapters_judged, self.adapters_passed),
                ("pictures", self.pictures_judged, self.pictures_passed),
                ("chosen pictures", self.chosen_judged, self.chosen_passed),
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
        len(judged), sum(judged), len(passed), sum(passed.values()), len(chosen), sum(passed[one] for one in chosen)
    )


def pictures_passed(run: RunInfo, scores: Iterable[Mapping[str, Any]]) -> dict[str, bool]:
    """Whether a picture shows its content rather than the style image's, for each that can be judged."""
    limit = limits_for(run.settings.check, run.base_revision).get("style_copy")
    if limit is None:
        return {}
    told: dict[str, dict[str, float]] = {}
    for row in scores:
        told.setdefault(row["sample_id"], {})[row["score"]] = row["value"]
    values = {sample_id: style_copy(of) for sample_id, of in told.items()}
    return {sample_id: value <= limit for sample_id, value in values.items() if value is not None}


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


def check_columns(marker: Mapping[str, Any]) -> dict[str, Any]:
    """What the table of adapters says of a check; nulls where there was none."""
    check = marker.get("check") or {}
    measures = check.get("measures", {})
    told = {"attempt": check.get("attempt"), "passed": check.get("passed")}
    failed = ", ".join(check["failed"]) if check.get("passed") is not None else None
    return told | {"failed_checks": failed} | {name: measures.get(name) for name in CHECK_COLUMNS}
