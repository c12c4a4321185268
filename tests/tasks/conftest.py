"""What tests of housekeeping share: a clock that is ahead, and what goes."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from manifests.store.store import Store
from tasks.operations import gc

DAY = timedelta(days=1)


@pytest.fixture
def tomorrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Move housekeeping's clock by two days, so that what is there is at rest."""

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.now(tz) + 2 * DAY

    monkeypatch.setattr(gc, "datetime", Clock)


def compact(store: Store) -> list[str]:
    """Drop what housekeeping drops of score parts; the names of the runs."""
    found = gc.find_waste(store, DAY)
    waste = tuple(one for one in found.waste if one.kind == "score parts")
    gone = sum(number for _, number in gc.delete_waste(store, replace(found, waste=waste)))
    assert gone == sum(len(one.keys) for one in waste)
    return [name for one in waste for name in one.names]
