"""Machines that could not begin what they were given, such as for want of the base: one fault, not one an item.

What such a machine had goes to another. It would refuse the next as fast as it is given, so nothing more is handed over
until somebody has done something, or nobody is at work; then one item asks whoever takes it. After some such answers
with nothing done in between, the run ends with their reason.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from manifests.errors import listed
from manifests.faults import Fault

ENOUGH = 4
"""So many refusals with nothing done in between end a run."""


@dataclass(frozen=True)
class Refusal:
    """Why a machine could not begin anything of a run.

    Attributes:
        host: the machine.
        fault: what it lacks; it concerns the whole run.
    """

    host: str
    fault: Fault

    @property
    def sentence(self) -> str:
        """What a person is told while others may go on."""
        return f"{self.host} could not begin ({self.fault.text}); what it had goes to another"


class Refusals:
    """Those since something was last done."""

    def __init__(self) -> None:
        """Nobody has refused anything yet."""
        self._since: list[Refusal] = []
        self._told: set[Refusal] = set()

    def add(self, refusal: Refusal) -> bool:
        """Take one; whether it is new, so that a person is to hear of it."""
        is_new = refusal not in self._told
        self._since.append(refusal)
        self._told.add(refusal)
        return is_new

    def forget(self) -> None:
        """Something was done: work goes on."""
        self._since.clear()

    def lets_begin(self, in_flight: int) -> bool:
        """Whether anything more is to be handed over while so many batches are in flight."""
        return not self._since or (in_flight == 0 and not self.are_enough)

    @property
    def are_enough(self) -> bool:
        """Whether the run is to end."""
        return len(self._since) >= ENOUGH

    def faults(self) -> list[Fault]:
        """Of a run that ends so, one fault that says why and where; none of any other."""
        return [_as_one(self._since)] if self.are_enough else []


def _as_one(refusals: Iterable[Refusal]) -> Fault:
    """The last reason, with the machines that gave it; they mostly have the same."""
    *_, last = refusals
    hosts = sorted({one.host for one in refusals if one.fault.text == last.fault.text})
    return replace(last.fault, what=f"on {listed(hosts, 4)}: {last.fault.what}")
