"""What can go wrong in the method, as one tree.

    BloraError
    ├── SettingsError            a setting is unknown, out of bounds or does not fit the base   (permanent)
    ├── KeyMismatchError         an adapter file does not fit the two blocks exactly             (permanent)
    ├── BaseModelError           a base model cannot be used                                     (permanent)
    │   ├── BaseUnreachableError the hub did not answer: the same call may work later            (transient)
    │   └── TopologyError        the base lacks the blocks or the conditioning of SDXL           (permanent)
    ├── CheckpointError          a checkpoint is unreadable or belongs to another training       (permanent)
    ├── TrainingDivergedError    one adapter stayed non-finite after the whole NaN policy        (permanent)
    ├── OutOfMemoryError         the pack or batch does not fit on the device                 (permanent at this size)
    └── ScorerError              a scorer cannot be built or cannot judge                        (permanent)

Every message says what happened, what was received, what is accepted, where, and what to do next.
Every error survives pickling, because it crosses from a supervised child to its parent.
This module imports nothing outside the standard library.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

__all__ = [
    "BaseModelError",
    "BaseUnreachableError",
    "BloraError",
    "CheckpointError",
    "KeyMismatchError",
    "OutOfMemoryError",
    "ScorerError",
    "SettingFault",
    "SettingsError",
    "TopologyError",
    "TrainingDivergedError",
]


class BloraError(Exception):
    """Root of all errors that the method raises on purpose.

    Attributes:
        transient: True when the same call may succeed later without any change.
        what: What happened, as a short clause.
        received: What was there.
        accepted: What would have been accepted.
        where: The file, layer, setting or adapter it concerns.
        hint: What to do next.
    """

    transient: ClassVar[bool] = False

    def __init__(self, what: str, received: str = "", accepted: str = "", where: str = "", hint: str = "") -> None:
        """Keep the five parts; all of them go to ``args`` so that the error pickles."""
        super().__init__(what, received, accepted, where, hint)
        self.what = what
        self.received = received
        self.accepted = accepted
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        """Return ``where: what: received …; accepted …; do …`` without the empty parts."""
        asks = self.hint.endswith("?")  # did you mean ...?
        told = (("received ", self.received), ("accepted ", self.accepted), ("" if asks else "do: ", self.hint))
        details = [f"{label}{text}" for label, text in told if text]
        head = f"{self.where}: {self.what}" if self.where else self.what
        return f"{head}: {'; '.join(details)}" if details else head


@dataclass(frozen=True)
class SettingFault:
    """One setting that cannot be accepted.

    Attributes:
        field: Dotted path of the setting, for example ``train.steps``.
        what: What is wrong with it.
        received: The value as it was given.
        accepted: What would have been accepted.
        hint: What to do next; for an unknown name the nearest known one.
    """

    field: str
    what: str
    received: str = ""
    accepted: str = ""
    hint: str = ""

    def __str__(self) -> str:
        """Return the fault as one line."""
        return str(BloraError(self.what, self.received, self.accepted, self.field, self.hint))


class SettingsError(BloraError):
    """Settings that cannot be accepted; ``faults`` lists all of them, not only the first."""

    def __init__(self, faults: Iterable[SettingFault]) -> None:
        """Keep all faults."""
        self.faults: tuple[SettingFault, ...] = tuple(faults)
        super().__init__("\n".join(str(fault) for fault in self.faults))
        self.args = (self.faults,)


class KeyMismatchError(BloraError):
    """An adapter file whose keys or shapes do not fit the two blocks exactly."""


class BaseModelError(BloraError):
    """A base model that cannot be found, read or used."""


class BaseUnreachableError(BaseModelError):
    """The hub did not answer, so nothing can be said about the base model itself."""

    transient: ClassVar[bool] = True


class TopologyError(BaseModelError):
    """A base model without SDXL's block names or conditioning."""


class CheckpointError(BloraError):
    """A checkpoint that cannot be read, or that belongs to another training; the training can start anew."""


class TrainingDivergedError(BloraError):
    """One adapter's loss or gradient stayed non-finite after skipping, reseeding and lowering its learning rate."""


class OutOfMemoryError(BloraError):
    """The device's memory does not hold this pack or batch; a smaller one may fit."""


class ScorerError(BloraError):
    """A scorer that cannot be built as asked, or that cannot judge what it was given."""
