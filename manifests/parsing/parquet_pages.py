"""What the pages of a Parquet file say of themselves: reading trusts their headers, whatever the footer declares.

A page header is a struct in Thrift's compact protocol, of which only the sizes are wanted here; the rest is stepped
over. pyarrow reads it as well, but only on the way to unpacking the page.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

_BOOLEANS, _BYTE, _INTEGERS, _DOUBLE, _BINARY, _LISTS, _STRUCT = (1, 2), 3, (4, 5, 6), 7, 8, (9, 10), 12
_DATA_PAGES = (5, 8)  # fields that hold the header of a data page of version 1 and 2
_DICTIONARY = 7
_MAX_DEPTH = 8


class ParquetPage(NamedTuple):
    """One page of a column, as its header has it.

    Attributes:
        unpacked: Its bytes once unpacked.
        values: Its values, nulls included; none of a dictionary.
        distinct: The texts or numbers of a dictionary; none of other pages.
    """

    unpacked: int
    values: int
    distinct: int


def pages_between(data: bytes, start: int, end: int) -> Iterator[ParquetPage]:
    """Yield the pages of one column of one row group, unpacking none.

    Raises:
        ValueError: There is no page header where one should be.
    """
    at = start
    while at < end:
        reader = _Reader(data, at)
        try:
            fields = reader.numbers()
        except IndexError as error:
            raise ValueError("a page header breaks off") from error
        unpacked, packed = fields.get((2,), -1), fields.get((3,), -1)
        values = max((fields.get((kind, 1), 0) for kind in _DATA_PAGES), default=0)
        if unpacked < 0 or packed < 0 or values < 0:
            raise ValueError("a page without a size")
        yield ParquetPage(unpacked, values, max(fields.get((_DICTIONARY, 1), 0), 0))
        at = reader.at + packed


class _Reader:
    """Steps through one struct of Thrift's compact protocol."""

    def __init__(self, data: bytes, at: int) -> None:
        self.at = at
        self._data = data

    def numbers(self, depth: int = 0) -> dict[tuple[int, ...], int]:
        """Return the integers of the struct that begins here, by the path of their field numbers."""
        if depth > _MAX_DEPTH:
            raise ValueError("a page header nested too deeply")
        found: dict[tuple[int, ...], int] = {}
        field = 0
        while head := self._byte():
            delta, kind = head >> 4, head & 15
            field = field + delta if delta else self._integer()
            if kind in _INTEGERS:
                found[(field,)] = self._integer()
            elif kind == _STRUCT:
                found |= {(field, *path): value for path, value in self.numbers(depth + 1).items()}
            elif kind not in _BOOLEANS:  # whose value is their kind
                self._skip(kind, depth)
        return found

    def _skip(self, kind: int, depth: int) -> None:
        if kind in (*_BOOLEANS, _BYTE):
            self.at += 1
        elif kind in _INTEGERS:
            self._integer()
        elif kind == _DOUBLE:
            self.at += 8
        elif kind == _BINARY:
            length = self._varint()
            self.at += length
        elif kind == _STRUCT:
            self.numbers(depth + 1)
        elif kind in _LISTS:
            head = self._byte()
            for _ in range(head >> 4 if head >> 4 < 15 else self._varint()):
                self._byte_there()
                self._skip(head & 15, depth + 1)
        else:
            raise ValueError(f"a page header with a field of kind {kind}")

    def _byte(self) -> int:
        self.at += 1
        return self._data[self.at - 1]

    def _byte_there(self) -> None:
        self._data[self.at]  # raises at the end, so that no list goes on behind it

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value
            if shift > 63:
                raise ValueError("a number too long for a page header")

    def _integer(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)
