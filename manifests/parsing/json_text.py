"""JSON text to a tree of nodes: lists and objects are read here, to know their lines and repeated keys."""

from __future__ import annotations

import json
import re
from bisect import bisect_right

from manifests.parsing.fault_list import DocumentRefused, FaultList, glimpse
from manifests.parsing.nodes import MAX_DEPTH, MAX_DIGITS, MAX_VALUES, Node

_SPACE = re.compile(r"[ \t\r\n]*")


def parse_json(text: str, faults: FaultList) -> Node:
    """Build the tree of a JSON text.

    Raises:
        DocumentRefused: The text is not well formed or goes beyond a limit; the fault is in `faults`.
    """
    return _JsonBuilder(text, faults).document()


class _JsonBuilder:
    """Reads lists and objects itself, to know their lines; the scalars are left to the standard decoder."""

    def __init__(self, text: str, faults: FaultList) -> None:
        self._text = text
        self._faults = faults
        self._line_ends = [match.start() for match in re.finditer("\n", text)]
        self._decoder = json.JSONDecoder(parse_int=bounded_int)
        self._values = 0

    def document(self) -> Node:
        node, at = self._value(self._skip(0), 0)
        at = self._skip(at)
        if at < len(self._text):
            raise self._malformed(at, "the end of the text")
        return node

    def _row(self, at: int) -> int:
        return bisect_right(self._line_ends, at - 1) + 1

    def _skip(self, at: int) -> int:
        space = _SPACE.match(self._text, at)
        return space.end() if space else at

    def _malformed(self, at: int, accepted: str) -> DocumentRefused:
        received = glimpse(self._text[at : at + 13]) if at < len(self._text) else "the end of the text"
        return self._faults.refuse(
            "not well-formed JSON", received, accepted, "correct the text there", row=self._row(at)
        )

    def _value(self, at: int, depth: int) -> tuple[Node, int]:
        """Read the value that starts at `at`; return it and where it ends."""
        self._values += 1
        if depth > MAX_DEPTH or self._values > MAX_VALUES:
            received = f"more than {MAX_DEPTH} levels or {MAX_VALUES:,} values"
            hint = "write the manifest out plainly"
            raise self._faults.refuse("nested too deeply or too long", received, "less", hint, row=self._row(at))
        start = self._text[at : at + 1]
        if start == "{":
            return self._object(at, depth)
        if start == "[":
            return self._array(at, depth)
        return self._scalar(at)

    def _scalar(self, at: int) -> tuple[Node, int]:
        try:
            value, end = self._decoder.raw_decode(self._text, at)
        except json.JSONDecodeError as error:
            raise self._malformed(error.pos, "a value, with texts in double quotes") from error
        return Node(value, self._row(at)), end

    def _array(self, at: int, depth: int) -> tuple[Node, int]:
        items: list[Node] = []
        row, at = self._row(at), self._skip(at + 1)
        if self._text[at : at + 1] == "]":
            return Node(items, row), at + 1
        while True:
            item, at = self._value(at, depth + 1)
            items.append(item)
            at, closed = self._next(at, "]")
            if closed:
                return Node(items, row), at

    def _object(self, at: int, depth: int) -> tuple[Node, int]:
        fields: dict[str, Node] = {}
        repeated: list[tuple[str, int | None]] = []
        row, at = self._row(at), self._skip(at + 1)
        if self._text[at : at + 1] == "}":
            return Node(fields, row), at + 1
        while True:
            if self._text[at : at + 1] != '"':
                raise self._malformed(at, "a key in double quotes")
            key, at = self._scalar(at)
            at = self._skip(at)
            if self._text[at : at + 1] != ":":
                raise self._malformed(at, "a colon")
            node, at = self._value(self._skip(at + 1), depth + 1)
            text = str(key.value)
            if text in fields:
                repeated.append((text, key.row))
            else:
                fields[text] = Node(node.value, key.row, node.repeated)
            at, closed = self._next(at, "}")
            if closed:
                return Node(fields, row, tuple(repeated)), at

    def _next(self, at: int, closing: str) -> tuple[int, bool]:
        """Step over a comma or the closing bracket; return where, and whether it closed."""
        at = self._skip(at)
        mark = self._text[at : at + 1]
        if mark not in (",", closing) or not mark:
            raise self._malformed(at, f"a comma or {closing}")
        return (at + 1, True) if mark == closing else (self._skip(at + 1), False)


def bounded_int(digits: str) -> int | str:
    """Read an integer; hundreds of digits stay text, which no field takes for a number."""
    return int(digits) if len(digits) <= MAX_DIGITS else digits
