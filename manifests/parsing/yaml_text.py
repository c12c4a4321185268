"""YAML text to a tree of nodes, from parser events and without recursion.

Nothing is ever constructed from tags, and the depth, the values and what aliases repeat are bounded on the way.
libyaml's own composer recurses: a few hundred kilobytes of `[` overflow its stack, and that ends the process.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from manifests.parsing.fault_list import DocumentRefused, FaultList, glimpse, shown
from manifests.parsing.nodes import MAX_DEPTH, MAX_DIGITS, MAX_VALUES, Node, Scalar

MAX_ALIASED_VALUES = 1_000_000
"""Values that aliases may repeat, all together."""

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG = "tag:yaml.org,2002:"
_PLAIN_TAGS = tuple(_TAG + name for name in ("str", "int", "float", "bool", "null", "seq", "map"))
_NOT_PRINTABLE = re.compile(r"[^\t\n\r -~\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_NULL = re.compile(r"~|null|Null|NULL|")
_TRUE = re.compile(r"true|True|TRUE")
_FALSE = re.compile(r"false|False|FALSE")
_INT = re.compile(rf"[-+]?[0-9]{{1,{MAX_DIGITS}}}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]{1,400}|[0-9]{1,400}(\.[0-9]{0,400})?)([eE][-+]?[0-9]{1,10})?")
_INFINITE = re.compile(r"([-+]?)\.(inf|Inf|INF)")
_NAN = re.compile(r"\.(nan|NaN|NAN)")


def parse_yaml(text: str, faults: FaultList) -> Node:
    """Build the tree of a YAML text.

    Raises:
        DocumentRefused: The text is not well formed or goes beyond a limit; the fault is in `faults`.
    """
    if stray := _NOT_PRINTABLE.search(text):
        line = text.count("\n", 0, stray.start()) + 1
        raise faults.refuse("not well-formed YAML", shown(stray[0]), "printable characters", "remove it", row=line)
    builder = _YamlBuilder(faults)
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            builder.take(event)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        problem = getattr(error, "problem", None) or str(error)
        row = None if mark is None else mark.line + 1
        raise faults.refuse("not well-formed YAML", problem, "YAML", "correct the text there", row=row) from error
    if builder.root is None:
        raise faults.refuse("empty manifest", "YAML without a document", "a mapping", "see `blora validate`")
    return builder.root


@dataclass(slots=True)
class _Open:
    """A mapping or list that is not closed yet."""

    row: int
    anchor: str | None
    items: list[Node] | None  # None for a mapping
    fields: dict[str, Node] = field(default_factory=dict)
    merged: list[Node] = field(default_factory=list)
    repeated: list[tuple[str, int | None]] = field(default_factory=list)
    key: tuple[str, int, bool] | None = None  # text, row, whether it is the merge key
    size: int = 1


class _YamlBuilder:
    """Turns parser events into nodes."""

    def __init__(self, faults: FaultList) -> None:
        self.root: Node | None = None
        self._faults = faults
        self._open: list[_Open] = []
        self._anchors: dict[str, tuple[Node, int]] = {}
        self._values = self._aliased = 0

    def take(self, event: Any) -> None:
        """Take the next event of the parser."""
        row = event.start_mark.line + 1
        if isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            self._check_tag(event.tag, row)
            if len(self._open) >= MAX_DEPTH:
                raise self._refuse("nested too deeply", f"more than {MAX_DEPTH} levels", f"{MAX_DEPTH} levels", row)
            is_list = isinstance(event, yaml.SequenceStartEvent)
            self._open.append(_Open(row, event.anchor, [] if is_list else None))
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            self._close()
        elif isinstance(event, yaml.ScalarEvent):
            self._scalar(event, row)
        elif isinstance(event, yaml.AliasEvent):
            self._alias(str(event.anchor), row)
        elif isinstance(event, yaml.DocumentStartEvent) and self.root is not None:
            raise self._refuse("several documents in one file", "a second document", "one document", row)

    def _refuse(self, what: str, received: str, accepted: str, row: int) -> DocumentRefused:
        return self._faults.refuse(what, received, accepted, "write the manifest out plainly", row=row)

    def _check_tag(self, tag: str | None, row: int) -> None:
        if tag not in (None, "!", *_PLAIN_TAGS):
            raise self._refuse(
                "YAML tag not accepted",
                glimpse((tag or "").replace(_TAG, "!!"), 16),
                "plain texts, numbers, lists and mappings",
                row,
            )

    def _scalar(self, event: Any, row: int) -> None:
        self._check_tag(event.tag, row)
        top = self._open[-1] if self._open else None
        if top is not None and top.items is None and top.key is None:
            top.key = (event.value, row, event.value == "<<" and event.implicit[0])
            return
        is_text = event.tag in ("!", _TAG + "str") or (event.tag is None and not event.implicit[0])
        self._add(Node(event.value if is_text else _resolve(event.value), row), 1, event.anchor)

    def _alias(self, name: str, row: int) -> None:
        if name not in self._anchors:
            raise self._refuse("YAML alias of nothing before it", f"*{glimpse(name)}", "an anchor written before", row)
        node, size = self._anchors[name]
        self._aliased += size
        if self._aliased > MAX_ALIASED_VALUES:
            raise self._refuse(
                "YAML aliases explode", f"more than {MAX_ALIASED_VALUES:,} values", f"{MAX_ALIASED_VALUES:,}", row
            )
        self._add(Node(node.value, row, node.repeated), size, None)

    def _close(self) -> None:
        done = self._open.pop()
        for source in done.merged:  # keys written out win over merged ones, earlier merges over later ones
            for key, node in source.value.items() if isinstance(source.value, dict) else ():
                done.fields.setdefault(key, node)
        value = done.fields if done.items is None else done.items
        self._add(Node(value, done.row, tuple(done.repeated)), done.size, done.anchor)

    def _add(self, node: Node, size: int, anchor: str | None) -> None:
        self._values += 1
        if self._values > MAX_VALUES:
            raise self._refuse("too many values", f"more than {MAX_VALUES:,}", f"{MAX_VALUES:,}", node.row or 1)
        if anchor is not None:
            self._anchors[anchor] = (node, size)
        if not self._open:
            self.root = node
            return
        top = self._open[-1]
        top.size += size
        if top.items is not None:
            top.items.append(node)
        elif top.key is None:
            received = "a list, mapping or alias as a key"
            raise self._refuse("key is no text", received, "texts as keys", node.row or top.row)
        else:
            self._add_field(top, top.key, node)

    def _add_field(self, top: _Open, key: tuple[str, int, bool], node: Node) -> None:
        text, row, is_merge = key
        top.key = None
        if is_merge:
            sources = node.value if isinstance(node.value, list) else [node]
            if not all(isinstance(source.value, dict) for source in sources):
                raise self._refuse("merge key << of no mapping", glimpse(node.plain()), "an alias of a mapping", row)
            top.merged.extend(sources)
        elif text in top.fields:
            top.repeated.append((text, row))
        else:
            top.fields[text] = Node(node.value, row, node.repeated)


def _resolve(text: str) -> Scalar:
    """Read a plain YAML scalar by the core schema of YAML 1.2, without its octal and hexadecimal numbers."""
    if _NULL.fullmatch(text):
        return None
    if _TRUE.fullmatch(text) or _FALSE.fullmatch(text):
        return text.lower() == "true"
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    if infinite := _INFINITE.fullmatch(text):
        return -math.inf if infinite[1] == "-" else math.inf
    return math.nan if _NAN.fullmatch(text) else text
