"""Train, look at what came of it, and train again with another seed what failed; the best attempt is kept.

Attempts are numbered from 1. The first has the random numbers that the adapter's id gives, a further one those of the
id and its number, so that the same id goes through the same attempts on every machine, and which one is kept follows
from the same limits, which are part of the id where there is more than one attempt (`training_identity`).
A further attempt trains only what failed, in one pass: its layout, too, follows from the plan.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from blora.checks.adapter_check import Verdict, best_attempt, check_adapters
from blora.checks.limits import adapter_limits, reconstruction_settings
from blora.errors import OutOfMemoryError
from blora.training.items import TrainItem, TrainResult
from manifests import layout
from manifests.faults import Fault
from tasks.run.plan import Pack, PlannedAdapter, RunInfo
from tasks.worker.session import Session

TrainPass = Callable[[list[TrainItem], int], Sequence[TrainResult]]
"""Trains some items; told the number of the attempt."""


@dataclass(frozen=True, eq=False)
class Attempt:
    """One training of an adapter and what was found about it; no verdict where it was not, or could not be, checked."""

    number: int
    result: TrainResult
    verdict: Verdict | None

    @property
    def is_wanting(self) -> bool:
        """Whether another seed may do better: it diverged, or did not pass."""
        return self.result.adapter is None or (self.verdict is not None and self.verdict.passed is False)

    def to_json(self, attempts: int) -> dict[str, Any] | None:
        """What the adapter's marker says of its check; None without a verdict."""
        if self.verdict is None:
            return None
        return {"attempt": self.number, "attempts": attempts, **self.verdict.to_json()}


def train_until_good(
    session: Session, run: RunInfo, adapters: Sequence[PlannedAdapter], train_pass: TrainPass
) -> list[Attempt]:
    """Train adapters until each has passed its check, or has had its attempts.

    Returns:
        The attempt to keep of each, in their order.
    """
    tried: dict[str, list[Attempt]] = {adapter.adapter_id: [] for adapter in adapters}
    due = list(adapters)
    for number in range(1, max(1, run.settings.check.attempts) + 1):
        results = train_pass([training_item(session, adapter, number) for adapter in due], number)
        verdicts = _check(session, run, due, results)
        for adapter, result, verdict in zip(due, results, verdicts, strict=True):
            tried[adapter.adapter_id].append(Attempt(number, result, verdict))
        due = [adapter for adapter in due if tried[adapter.adapter_id][-1].is_wanting]
        if not due:
            break
    return [_best(tried[adapter.adapter_id]) for adapter in adapters]


def checkpoint_key(run: RunInfo, pack: Pack, number: int) -> str:
    """Where an attempt at a pack keeps its checkpoint."""
    return layout.checkpoint_key(run.run_id, pack.pack_id if number == 1 else f"{pack.pack_id}-{number}")


def checkpoint_keys(run: RunInfo, pack: Pack) -> list[str]:
    """The keys of all attempts at a pack."""
    return [checkpoint_key(run, pack, number) for number in range(1, max(1, run.settings.check.attempts) + 1)]


def training_item(session: Session, adapter: PlannedAdapter, number: int = 1) -> TrainItem:
    """What an adapter of a plan is trained on, at an attempt."""
    pictures = tuple(session.picture(layout.image_key(image_id)) for image_id in adapter.image_ids)
    # Only what follows from the adapter's id: names differ between manifests, the bytes of an adapter must not.
    metadata = {"adapter_id": adapter.adapter_id, "image_ids": ",".join(adapter.image_ids)}
    key = adapter.adapter_id if number == 1 else f"{adapter.adapter_id} attempt {number}"
    return TrainItem(images=pictures, key=key, metadata=metadata, prompt=adapter.prompt)


def diverged(adapter: PlannedAdapter, result: TrainResult) -> Fault:
    """The fault of a training that ended without an adapter."""
    return Fault(
        kind="train",
        item=adapter.adapter_id,
        what=f"the training of {adapter.name} did not converge",
        received=str(result.error),
        accepted="a finite loss",
        hint="lower train.learning_rate or use train.precision: bf16, then run the manifest again",
    )


def _check(
    session: Session, run: RunInfo, adapters: Sequence[PlannedAdapter], results: Sequence[TrainResult]
) -> list[Verdict | None]:
    """A verdict for each adapter that was trained; none where checks are off or the device has no room for them.

    Nor where the base has no limits: a second and more of a GPU for each adapter would be spent on numbers that judge
    nothing.
    """
    images = [session.picture(layout.image_key(adapter.image_ids[0])) for adapter in adapters]
    trained = [
        (result.adapter, image) for result, image in zip(results, images, strict=True) if result.adapter is not None
    ]
    judged = run.settings.check.attempts and adapter_limits(run.settings.check, run.base_revision)
    if not judged or not trained:
        return [None for _ in results]
    base = session.base(run.base, run.settings.train.precision)
    try:
        drawing = session.drawing(run.base, reconstruction_settings(run.settings))
        verdicts = iter(check_adapters(base, trained, run.settings, drawing=drawing))
    except OutOfMemoryError:
        return [None for _ in results]
    return [None if result.adapter is None else next(verdicts) for result in results]


def _best(tried: Sequence[Attempt]) -> Attempt:
    """The attempt to keep; one that diverged is the worst of all, one that could not be checked is kept as it is."""
    unjudged = next((a for a in tried if a.result.adapter is not None and a.verdict is None), None)
    return unjudged or tried[best_attempt([attempt.verdict for attempt in tried])]
