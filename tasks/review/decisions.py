"""What people say about pictures: keep, reject, redo. Read from the page's file, checked, kept as Parquet.

The file is JSON::

    {"format": 1, "run_id": "demo-5d0c1e2f3a4b", "reviewer": "Ada",
     "decisions": [{"sample_id": "90aacddeeb0a1b81901426b4", "decision": "keep", "decided_at": "2026-11-22T08:15:00Z"}]}

Every review adds a file below ``runs/<run_id>/decisions/``; none is ever changed. Of several marks on one picture that
with the last ``decided_at`` counts, whoever wrote it and whichever file came first, so that two people who export in
turn do not undo each other's newer marks.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StrictStr, ValidationError

from manifests import ids
from manifests.errors import counted, printable
from manifests.faults import Fault
from manifests.parsing.fault_list import glimpse
from manifests.store.files import read_address
from manifests.store.parallel import in_parallel
from manifests.store.run_folder import RunFolder
from manifests.store.store import Store
from manifests.tables.review import DECISIONS_FILES
from tasks.errors import RunRefused
from tasks.run.plan import Plan

Decision = Literal["keep", "reject", "redo", "undecided"]

MAX_BYTES = 256 * 2**20
"""Of a decisions file; a mark takes about 120 bytes."""

_LISTED = 10  # faults told in full; of a million nobody reads more
_SURPLUS = 1000  # marks beyond one a picture before the rest is not looked at
_CLOCK_SLACK = timedelta(days=1)  # a reviewer's clock and time zone may be off, but not by more
_WHERE_FROM = "export the file again from the page of this run"


@dataclass(frozen=True)
class Mark:
    """One mark on one picture.

    Attributes:
        sample_id: the picture.
        decision: `undecided` takes an earlier mark back.
        reviewer: who; may be empty.
        decided_at: when, by the reviewer's clock, UTC.
        redo_sample_id: the picture to be drawn in its stead, where `decision` is `redo`.
    """

    sample_id: str
    decision: Decision
    reviewer: str
    decided_at: datetime
    redo_sample_id: str | None = None


def _instant(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError("no text")
    return datetime.fromisoformat(value)


def _in_utc(value: datetime) -> datetime:
    if value.tzinfo is None:
        raise ValueError("no time zone")
    if value > datetime.now(UTC) + _CLOCK_SLACK:
        raise ValueError("in the future")
    return value.astimezone(UTC)


class _MarkRow(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    sample_id: StrictStr = Field(description="the id of a picture of this run")
    decision: Decision = Field(description=", ".join(get_args(Decision)))
    decided_at: Annotated[datetime, BeforeValidator(_instant), AfterValidator(_in_utc)] = Field(
        description="an ISO 8601 time with time zone, not in the future, such as 2026-11-22T08:15:00Z"
    )


class _DecisionsFile(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    format: Literal[1] = Field(description="1")
    run_id: StrictStr = Field(description="the run that is reviewed")
    reviewer: Annotated[StrictStr, Field(max_length=200)] = Field("", description="a name of at most 200 characters")
    decisions: list[Any] = Field(description="a list of marks")


def read_marks(address: str, plan: Plan) -> list[Mark]:
    """Read the file that the page wrote.

    Args:
        address: a local path or s3://...
        plan: the run that it must be about.

    Raises:
        RunRefused: it does not fit; the first faults are listed and all counted, and nothing of the file counts.
        StoreError: it cannot be read.
    """
    return marks_of(read_address(address, MAX_BYTES), address, plan)


def marks_of(data: bytes, address: str, plan: Plan) -> list[Mark]:
    """Read the bytes of such a file, which came from somewhere.

    Raises:
        RunRefused: as `read_marks`.
    """
    try:
        body = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        fault = _fault(address, "", "no JSON", str(error), "a decisions file")
        raise RunRefused("the decisions file cannot be read", [fault]) from error
    found = _Found(address)
    reviewer = ""
    try:
        reviewer = _DecisionsFile.model_validate(body).reviewer
    except ValidationError as error:
        for told in error.errors():
            found.add(partial(_explain, address, told, ()))
    # What has the right form is checked for its sense as well: all faults at once.
    rows: list[tuple[int, _MarkRow]] = []
    listed = body.get("decisions") if isinstance(body, dict) else None
    marks = listed if isinstance(listed, list) else []
    if len(marks) > len(plan.samples) + _SURPLUS:
        found.add(lambda: _fault(address, "decisions", "more marks than pictures", str(len(marks)), "one a picture"))
        del marks[_SURPLUS:]
    for number, row in enumerate(marks):
        try:
            rows.append((number, _MarkRow.model_validate(row)))
        except ValidationError as error:
            if found.is_full:
                found.count += error.error_count()
                continue
            for told in error.errors():
                found.add(partial(_explain, address, told, ("decisions", number)))
    _check_sense(found, body, rows, plan)
    if found.count:
        first = f"; the first {len(found.faults)} are above" if found.count > len(found.faults) else ""
        raise RunRefused(
            f"nothing was recorded: {counted(found.count, 'fault')} in {printable(address)}{first}", found.faults
        )
    return [Mark(row.sample_id, row.decision, reviewer, row.decided_at) for _, row in rows]


class _Found:
    """The faults of one file: the first few in full, and how many there are."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.count = 0
        self.faults: list[Fault] = []

    @property
    def is_full(self) -> bool:
        return len(self.faults) >= _LISTED

    def add(self, fault: Callable[[], Fault]) -> None:
        """Count a fault, and make it if it is among the first."""
        self.count += 1
        if not self.is_full:
            self.faults.append(fault())


def _check_sense(found: _Found, body: object, rows: Sequence[tuple[int, _MarkRow]], plan: Plan) -> None:
    """Add faults of a file that is well formed: another run, unknown pictures, two marks on one."""

    def add(field: str, what: str, received: str, accepted: str) -> None:
        found.add(lambda: _fault(found.address, field, what, received, accepted))

    run_id = body.get("run_id") if isinstance(body, dict) else None
    if isinstance(run_id, str) and run_id != plan.run.run_id:
        add("run_id", "another run", run_id, plan.run.run_id)
    known = {sample.sample_id for sample in plan.samples}
    first: dict[str, int] = {}
    for number, row in rows:
        field = f"decisions[{number}].sample_id"
        if row.sample_id not in known:
            add(field, "unknown picture", row.sample_id, "a picture of the run's plan")
        elif (before := first.setdefault(row.sample_id, number)) != number:
            add(field, "two marks on one picture", row.sample_id, f"one; see decisions[{before}]")


def _explain(address: str, error: Mapping[str, Any], within: tuple[str | int, ...]) -> Fault:
    location = (*within, *error["loc"])
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f"{'.' if path else ''}{part[:40]}"
    model = _MarkRow if any(isinstance(part, int) for part in location) else _DecisionsFile
    field = model.model_fields.get(str(location[-1])) if location else None
    accepted = (field.description or "") if field else ", ".join(model.model_fields)
    if error["type"] == "extra_forbidden":  # what such a key holds is none of ours
        return _fault(address, path, "unknown key", "", accepted)
    missing = error["type"] == "missing"
    what = "key is missing" if missing else "wrong value"
    return _fault(address, path, what, "nothing" if missing else glimpse(error["input"], 40), accepted)


def _fault(address: str, field: str, what: str, received: str, accepted: str) -> Fault:
    shown = printable(received)[:120]
    return Fault("review", what, shown, accepted, _WHERE_FROM, file=address, field=printable(field)[:120])


def record_marks(store: Store, run_id: str, marks: Iterable[Mark]) -> str:
    """Keep marks for good; the same marks again are the same file.

    Returns:
        The key of the file.
    """
    some = list(marks)
    content = [[m.sample_id, m.decision, m.reviewer, m.decided_at.isoformat(), m.redo_sample_id] for m in some]
    newest = max((mark.decided_at for mark in some), default=datetime.now(UTC))
    file = DECISIONS_FILES.file(f"{newest:%Y%m%d-%H%M%S}-{ids.digest('decisions', content)}")
    recorded_at = datetime.now(UTC)
    rows = [vars(mark) | {"run_id": run_id, "recorded_at": recorded_at} for mark in some]
    run = RunFolder(store, run_id)
    run.write_once(file, rows)
    return run.key(file.name)


def load_marks(store: Store, run_id: str) -> dict[str, Mark]:
    """The mark that counts on each picture, by sample_id; `undecided` ones are left out."""
    last: dict[str, tuple[datetime, datetime, Mark]] = {}
    run = RunFolder(store, run_id)
    for table in in_parallel(store, run.read, run.files(DECISIONS_FILES)):
        for row in table.to_pylist():
            mark = Mark(**{name: row[name] for name in Mark.__dataclass_fields__})
            candidate = (mark.decided_at, row["recorded_at"], mark)
            if mark.sample_id not in last or candidate[:2] >= last[mark.sample_id][:2]:
                last[mark.sample_id] = candidate
    return {sample_id: mark for sample_id, (_, _, mark) in last.items() if mark.decision != "undecided"}


def with_redo(mark: Mark, sample_id: str) -> Mark:
    """The mark, with the picture that is to be drawn in its stead."""
    return replace(mark, redo_sample_id=sample_id)
