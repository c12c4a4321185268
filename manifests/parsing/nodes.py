"""The tree of a document: values that know their lines, and the limits that hold for every kind of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from manifests.parsing.fault_list import FaultList, shown

MAX_DEPTH = 20
"""Mappings and lists inside one another; manifests need four."""

MAX_VALUES = 3_000_000
"""Values in one document; 200,000 pairs with all their fields are about two million."""

MAX_DIGITS = 40
"""Digits of an integer; a longer one stays text, which no field takes for a number."""

_HEAD_CHARS = 4096  # in which zero bytes tell what is no text

Scalar: TypeAlias = "str | int | float | bool | None"


@dataclass(frozen=True, slots=True)
class Node:
    """A value and where it stands.

    Attributes:
        value: A scalar, a list of nodes, or a mapping of texts to nodes.
        row: 1-based line of the value, or of its key where it has one; None where there is no text.
        repeated: Keys of this mapping that were given again, each with its line; the first one counts.
    """

    value: Scalar | list[Node] | dict[str, Node]
    row: int | None = None
    repeated: tuple[tuple[str, int | None], ...] = ()

    def plain(self) -> Any:
        """Return the value as ordinary dicts, lists and scalars."""
        if isinstance(self.value, list):
            return [item.plain() for item in self.value]
        if isinstance(self.value, dict):
            return {key: item.plain() for key, item in self.value.items()}
        return self.value

    def find(self, path: Sequence[str | int]) -> Node:
        """Return the node at `path`, or the last one on the way there that exists."""
        node = self
        for step in path:
            if isinstance(node.value, dict) and step in node.value:
                node = node.value[str(step)]
            elif isinstance(node.value, list) and isinstance(step, int) and 0 <= step < len(node.value):
                node = node.value[step]
            else:
                break
        return node


def decode_text(data: bytes, faults: FaultList, errors: str = "strict") -> str:
    """Return the text of a manifest, without byte order mark.

    Raises:
        DocumentRefused: It is neither UTF-8 (unless `errors` says what to do then) nor UTF-16 with its byte order mark,
            or there is no text at all.
    """
    is_wide = data.startswith((b"\xff\xfe", b"\xfe\xff"))  # Excel's "Unicode text"
    try:
        text = data.decode("utf-16") if is_wide else data.decode("utf-8-sig", errors)
    except UnicodeDecodeError as error:
        if is_wide:
            received = f"UTF-16 that breaks off at byte {error.start:,}"
            raise faults.refuse("not UTF-8", received, "UTF-8", "save the file as UTF-8") from error
        row = data.count(b"\n", 0, error.start) + 1
        received = f"the byte {data[error.start]:#04x}, {chr(data[error.start])!r} in Latin-1"
        raise faults.refuse("not UTF-8", received, "UTF-8", "save the file as UTF-8", row=row) from error
    if "\0" in text[:_HEAD_CHARS]:
        received, hint = "zero bytes, as in UTF-16 without a mark or UTF-32", "save the file as UTF-8"
        raise faults.refuse("not UTF-8", received, "UTF-8", hint)
    if not text.strip():
        raise faults.refuse("empty manifest", f"{len(data)} bytes without text", "a manifest", "see `blora validate`")
    return text


def from_mapping(value: object, faults: FaultList, depth: int = 0) -> Node:
    """Build the tree of an inline manifest: a form, an API call; there are no lines to point at.

    Raises:
        DocumentRefused: It is nested deeper than `MAX_DEPTH`, or has keys that are no texts.
    """
    if depth > MAX_DEPTH:
        raise faults.refuse("nested too deeply", f"more than {MAX_DEPTH} levels", f"{MAX_DEPTH} levels", "flatten it")
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise faults.refuse("key is no text", shown(list(value)), "texts as keys", "use texts as keys")
        return Node({key: from_mapping(item, faults, depth + 1) for key, item in value.items()})
    if isinstance(value, list | tuple):
        return Node([from_mapping(item, faults, depth + 1) for item in value])
    if value is None or isinstance(value, str | float) or (isinstance(value, int) and abs(value) < 10**MAX_DIGITS):
        return Node(value)
    raise faults.refuse(
        "value of an unknown kind", type(value).__name__, "texts, numbers, lists, mappings", "convert it"
    )
