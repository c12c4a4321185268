"""The list of faults: bounded, and safe to print."""

from __future__ import annotations

import pytest

from manifests.parsing import fault_list
from manifests.parsing.fault_list import FaultList


def test_faults_are_bounded_in_number_and_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fault_list, "MAX_FAULTS", 3)
    faults = FaultList("m\x1b[2J")
    for row in (5, None, 4, 1, 2):
        faults.add("x" * 10_000, "\x1b[31m", "", "", row=row)
    assert [fault.row for fault in faults.all()] == [None, 4, 5, None] and len(faults) == 5
    assert "2 more faults" in str(faults.all()[-1])
    assert all("\x1b" not in str(fault) and len(str(fault)) < 700 for fault in faults.all())
