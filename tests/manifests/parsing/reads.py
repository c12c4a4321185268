"""Bytes read by each of the parsers, for the tests beside this file."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.faults import Fault
from manifests.parsing.csv_text import read_csv
from manifests.parsing.fault_list import DocumentRefused, FaultList
from manifests.parsing.nodes import Node
from manifests.parsing.parquet_file import read_parquet
from manifests.parsing.records import Record

Parser = Callable[[str, FaultList], Node]
COLUMNS = {"content": "text", "style": "text", "content_strength": "number", "seeds": "integers"}


def refused(read: Callable[[FaultList], Any]) -> Fault:
    """The one fault with which a document is refused."""
    faults = FaultList("m")
    with pytest.raises(DocumentRefused):
        read(faults)
    (fault,) = faults.all()
    assert fault.kind == "manifest" and fault.received and fault.accepted and fault.hint
    return fault


def parsed(parse: Parser, text: str) -> Node:
    faults = FaultList("m")
    node = parse(text, faults)
    assert faults.all() == ()
    return node


def csv(data: bytes) -> tuple[list[Record], tuple[Fault, ...]]:
    faults = FaultList("m.csv")
    return list(read_csv(data, COLUMNS, faults)), faults.all()


def parquet(data: bytes) -> list[Record]:
    faults = FaultList("m.parquet")
    rows = list(read_parquet(data, COLUMNS, faults))
    assert faults.all() == ()
    return rows


def parquet_bytes(table: pa.Table | dict[str, Any], **options: Any) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table(table) if isinstance(table, dict) else table, out, **options)
    return out.getvalue()
