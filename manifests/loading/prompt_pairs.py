"""A file of prompt pairs for the block probe: CSV with the columns ``kind``, ``p`` and ``q``, every fault at once.

    kind,p,q
    content,A photo of a car,A photo of a dog
    style,A photo of a red car,A photo of a blue car

``kind`` says what the two prompts differ in, the object (content) or the colour or look (style). A pair that comes
twice, or whose prompts are the same, is refused: it would count for more, or for nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from manifests.errors import StoreError
from manifests.faults import Fault
from manifests.images.file_kind import kind_of
from manifests.parsing.csv_text import read_csv
from manifests.parsing.fault_list import DocumentRefused, FaultList, shown
from manifests.parsing.nodes import Node
from manifests.parsing.records import Record
from manifests.parsing.row_faults import RowFaults
from manifests.schema.addresses import shown_address
from manifests.store.files import read_address

__all__ = ["MAX_PROMPTS_BYTES", "PromptPair", "load_prompts"]

MAX_PROMPTS_BYTES = 8 * 2**20
"""Size of a file of prompts (8 MiB)."""

MAX_PROMPT_CHARS = 2000

COLUMNS = ("kind", "p", "q")
KINDS = ("content", "style")


@dataclass(frozen=True)
class PromptPair:
    """One good row.

    Attributes:
        kind: "content" or "style".
        p: The prompt of all blocks but one.
        q: The prompt of that one.
    """

    kind: str
    p: str
    q: str


def load_prompts(address: str) -> tuple[tuple[PromptPair, ...], tuple[Fault, ...]]:
    """Read a file of prompts; whatever is wrong with it is a fault, never an exception.

    Args:
        address: A local path or s3:// address.

    Returns:
        The good rows in their order, and all faults.
    """
    faults = FaultList(shown_address(address))
    good: dict[PromptPair, int] = {}
    try:
        data = read_address(address, MAX_PROMPTS_BYTES)
        if kind := kind_of(data):
            raise faults.refuse("not a CSV file", f"a file of kind {kind}", "CSV", "export it as CSV")
        for record in read_csv(data, COLUMNS, faults):
            pair = _pair(record, RowFaults(faults, Node(None, record.row)))
            if pair in good:
                received, accepted = f"the pair of row {good[pair]}", "each pair once"
                faults.add("pair given twice", received, accepted, "remove it", row=record.row)
            elif pair:
                good[pair] = record.row
    except StoreError as error:
        hint = error.hint or "correct the address or the file"
        faults.add(error.what, error.received, error.accepted, hint, transient=error.transient)
    except DocumentRefused:
        good = {}
    if not good and not len(faults):
        faults.add("no prompts", "an empty file", f"rows under {','.join(COLUMNS)}", "add a row")
    return tuple(good), faults.all()


def _pair(record: Record, faults: RowFaults) -> PromptPair | None:
    """Return the row's pair, or None where it has faults."""
    cells = {name: str(record.cells.get(name, "")) for name in COLUMNS}
    for name, text in cells.items():
        if not text:
            faults.add("missing value", "an empty cell", "a text", "fill it in", field=name)
        elif len(text) > MAX_PROMPT_CHARS:
            received, accepted = f"{len(text)} characters", f"at most {MAX_PROMPT_CHARS}"
            faults.add("too long", received, accepted, "shorten it", field=name)
    if cells["kind"] and cells["kind"] not in KINDS:
        received, accepted = shown(cells["kind"]), " or ".join(KINDS)
        faults.add("unknown kind", received, accepted, "say what differs", field="kind")
    if cells["p"] and cells["p"] == cells["q"]:
        received = shown(cells["q"])
        faults.add("the prompts are the same", received, "another prompt than p", "", field="q")
    return PromptPair(**cells) if faults.are_none else None
