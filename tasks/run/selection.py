"""Which items of a plan a pass goes for: all of them, those that match some conditions, or those not given up on."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from manifests.errors import listed
from manifests.faults import Fault
from manifests.parsing.records import suggest
from tasks.run.plan import Plan, PlannedSample

_ACCEPTED = "faults, content=NAME, style=NAME or seed=NUMBER"

_FIELDS: dict[str, Callable[[PlannedSample], str]] = {
    "content": lambda sample: sample.content_name,
    "style": lambda sample: sample.style_name,
    "seed": lambda sample: str(sample.seed),
}


@dataclass(frozen=True)
class Selection:
    """Ids of adapters and samples of one plan.

    Attributes:
        adapters: the adapters to have.
        samples: the pictures to have.
    """

    adapters: frozenset[str]
    samples: frozenset[str]

    @classmethod
    def of(cls, samples: Iterable[PlannedSample]) -> Selection:
        """Some pictures, and the adapters that they need."""
        some = list(samples)
        return cls(
            frozenset(adapter_id for sample in some for adapter_id in sample.adapter_ids),
            frozenset(sample.sample_id for sample in some),
        )

    def without(self, items: Collection[str]) -> Selection:
        """The same less some adapters and samples."""
        return Selection(self.adapters.difference(items), self.samples.difference(items))


def select(plan: Plan, only: Sequence[str], faults: Sequence[Fault]) -> Selection:
    """The pictures of a plan that satisfy conditions, and the adapters that they need.

    Args:
        plan: the plan.
        only: conditions such as ``style=wave``, ``content=pepper``, ``seed=3`` or ``faults``. Conditions on one field
            are alternatives; those on different fields must all hold. None selects everything.
        faults: the run's recorded faults, which ``faults`` refers to.

    Raises:
        ValueError: an unknown condition, or one that nothing in the plan satisfies.
    """
    asked: dict[str, set[str]] = {}
    for condition in only:
        name, equals, value = condition.partition("=")
        if not (condition == "faults" or (equals and value and name in _FIELDS)):
            near = suggest(name.strip(), ("faults", *_FIELDS), "")
            raise ValueError(f"--only: received {condition!r}; accepted: {_ACCEPTED}" + (f"; {near}" if near else ""))
        asked.setdefault(name, set()).add(unicodedata.normalize("NFC", value))  # as manifests have names
    samples: list[PlannedSample] = list(plan.samples)
    if asked.pop("faults", None) is not None:
        failed = {fault.item for fault in faults if fault.item}
        if plan.run.run_id not in failed:  # else it could not go on as a whole
            samples = [sample for sample in samples if failed & {sample.sample_id, *sample.adapter_ids}]
    for name, values in asked.items():
        known = {_FIELDS[name](sample) for sample in plan.samples}
        if values - known:
            shown, strange = listed(sorted(known), 20), sorted(values - known)
            near = suggest(strange[0], tuple(sorted(known)), "")
            raise ValueError(
                f"--only {name}: received {', '.join(strange)}; the run has: {shown}" + (f"; {near}" if near else "")
            )
        samples = [sample for sample in samples if _FIELDS[name](sample) in values]
    return Selection.of(samples)


def given_up(faults: Sequence[Fault]) -> frozenset[str]:
    """Items whose last attempt failed in a way that trying again does not mend."""
    return frozenset(fault.item for fault in faults if fault.item and not fault.transient)
