"""Transient or permanent: which failures are worth another try.

The error tree of this package::

    TaskError
    ├── SlotDied         the child process of a slot ended: killed, crashed, out of memory        (transient)
    ├── SlotStalled      the child gave no sign of life for the stall timeout and was ended       (transient)
    ├── SlotClosed       the slot was closed, since the run is being stopped                      (permanent)
    ├── JobFailed        a job raised inside a slot; carries the class name, message and verdict
    ├── RunNotFound      no such run in this store                                                (permanent)
    ├── NoStore          nothing of this product lies where a store was looked for                (permanent)
    ├── RunRefused       the manifest holds nothing that can be worked off                        (permanent)
    └── EndedWithFaults  a run or a night came to its end, and what it lacks is recorded          (permanent)
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from manifests.faults import Fault


class TaskError(Exception):
    """Base of this package's errors; ``transient`` says whether a retry can help."""

    transient = False


class SlotDied(TaskError):
    """The child process of a slot ended before it answered."""

    transient = True


class SlotStalled(TaskError):
    """The child process of a slot gave no sign of life for too long and was ended."""

    transient = True


class SlotClosed(TaskError):
    """The slot was closed, while it was at work or before: somebody stops the run."""


class JobFailed(TaskError):
    """A job raised inside a slot.

    Args:
        error_class: name of the exception's class in the child.
        message: its message.
        transient: the verdict of `is_transient` in the child, where the exception itself was at hand.
    """

    def __init__(self, error_class: str, message: str, transient: bool) -> None:
        super().__init__(error_class, message, transient)
        self.error_class = error_class
        self.message = message
        self.transient = transient

    def __str__(self) -> str:
        return f"{self.error_class}: {self.message}"


class RunNotFound(TaskError):
    """The store holds no run of that name, or several."""


class NoStore(TaskError):
    """Nothing of this product lies where somebody looks for a store."""


class RunRefused(TaskError):
    """Nothing in the manifest can be worked off, or the user asked to stop at the first fault.

    Args:
        faults: every fault found, for the report.
    """

    def __init__(self, message: str, faults: Sequence[Fault] = ()) -> None:
        super().__init__(message, tuple(faults))
        self.message = message
        self.faults = tuple(faults)

    def __str__(self) -> str:
        return self.message


class EndedWithFaults(TaskError):
    """A run or a night came to its end without all that was asked for. Its record says what is missing, and why.

    What a failed state carries: Prefect raises it where a flow ends its process, and its log then says this.

    Args:
        subject: the run's or the night's id.
        sentence: the outcome in a line.
    """

    def __init__(self, subject: str, sentence: str) -> None:
        super().__init__(subject, sentence)
        self.subject, self.sentence = subject, sentence

    def __str__(self) -> str:
        return f"{self.subject}: {self.sentence}"


def is_transient(error: BaseException) -> bool:
    """Whether another try can help; unknown errors are permanent, so that a bug is seen once and not four times."""
    verdict = getattr(error, "transient", None)
    if verdict is not None:
        return bool(verdict)
    return isinstance(error, (ConnectionError, TimeoutError, EOFError))


def may_pass(error: BaseException) -> bool:
    """Whether an item that failed so deserves another try some other time, if not at once.

    So it is with transient failures, and with those of the store as a whole: a full disk or credentials that have
    expired do not mend themselves within a run, but they are no property of the item: the next night tries it again.
    """
    return is_transient(error) or (isinstance(error, JobFailed) and error.error_class == "PermanentStoreError")


def fault_row(fault: Fault, run_id: str) -> dict[str, Any]:
    """A `Fault` as a row of the FAULTS table, stamped with the run and the time."""
    return {
        "run_id": run_id,
        "kind": fault.kind,
        "item": fault.item,
        "name": fault.name,
        "file": fault.file,
        "row": fault.row,
        "field": fault.field,
        "what": fault.what,
        "received": fault.received,
        "accepted": fault.accepted,
        "hint": fault.hint,
        "transient": fault.transient,
        "recorded_at": datetime.now(UTC),
    }
