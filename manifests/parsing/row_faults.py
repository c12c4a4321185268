"""The faults of one row: a list of faults that knows where the row stands."""

from __future__ import annotations

from collections.abc import Sequence

from manifests.notes import Note
from manifests.parsing.fault_list import FaultList
from manifests.parsing.nodes import Node


class RowFaults:
    """A list of faults bound to a row, or to the document as a whole.

    Attributes:
        node: The row.
        file: The manifest, as people know it.
    """

    def __init__(self, faults: FaultList, node: Node) -> None:
        """Bind a list to a row, of which nothing is known to be wrong yet."""
        self.node = node
        self.file = faults.file
        self._faults = faults
        self._before = len(faults)

    @property
    def are_none(self) -> bool:
        """Whether nothing has been found wrong since the row was begun."""
        return len(self._faults) == self._before

    def add(
        self,
        what: str,
        received: str,
        accepted: str,
        hint: str,
        *,
        at: Sequence[str | int] = (),
        field: str = "",
        item: str = "",
        transient: bool = False,
    ) -> None:
        """Keep a fault, at the line of what `at` leads to within the row; `manifests.faults.Fault` has the rest."""
        line = self.node.find(at).row
        self._faults.add(what, received, accepted, hint, row=line, field=field, item=item, transient=transient)

    def again(self) -> RowFaults:
        """Return the same list bound to the same row, of which nothing is known to be wrong yet."""
        return RowFaults(self._faults, self.node)

    def note(self, text: str, item: str = "") -> None:
        """Keep what there is to know of the row."""
        self._faults.notes.append(Note(text, item, self.file, self.node.row))

    def skip(self, count: int) -> bool:
        """Count faults without their words where no more are kept; see `FaultList.skip`."""
        return self._faults.skip(count)

    def add_repeated(self, at: Sequence[str | int], field: str = "") -> None:
        """Keep a fault for each key that the mapping at a path was given again, at its own line.

        Args:
            at: The path within the row to the mapping.
            field: What its keys belong to; empty for nothing.
        """
        for key, line in self.node.find(at).repeated:
            name = f"{field}.{key}" if field else key
            self._faults.add("key given twice", key, "each key once", "remove one of them", row=line, field=name)
