"""From rows to a manifest: names are unique, pairs name what exists, nothing is drawn twice, all of it is bounded."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

from manifests.errors import counted
from manifests.loading.expand import expanded, fault_of
from manifests.loading.side import TOKENS, Side, stands_for
from manifests.parsing.fault_list import FaultList, shown
from manifests.parsing.nodes import Node
from manifests.parsing.records import suggest
from manifests.parsing.row_faults import RowFaults
from manifests.schema.addresses import Roots
from manifests.schema.entries import CHANGES_NO_PICTURE, Manifest, PairEntry, Parts, parts_of
from manifests.schema.rows import PairFields

MAX_PAIRS = 300_000
"""Pairs of one manifest, the grid expanded."""

MAX_SAMPLES = 1_000_000
"""Samples of one manifest: the candidates of all seeds of all pairs."""

_EXPANDED = {"prompt", "seeds"}  # written in several ways; each prompt is a pair of its own
_SAID_ONCE = tuple(name for name in PairFields.model_fields if name in PairEntry.model_fields.keys() - _EXPANDED)
_DRAWN = tuple(name for name in PairEntry.model_fields if name not in CHANGES_NO_PICTURE)

_MOST_SUGGESTIONS = 1000  # looking for what a name is close to takes time; after so many faults nobody reads them

NO_DEFAULTS = PairFields()
"""Where nothing is said once for all pairs."""


class Assembly:
    """A manifest being put together.

    Attributes:
        contents: The contents so far.
        styles: The styles so far.
        pairs: The pairs so far.
    """

    def __init__(self, roots: Roots, faults: FaultList) -> None:
        """Start empty."""
        self.contents = Side("content", roots)
        self.styles = Side("style", roots)
        self.pairs: list[PairEntry] = []
        self._drawn: dict[tuple[object, ...], dict[int, int | None]] = {}
        self._faults = faults

    def add_pair(
        self, content: Parts, style: Parts, fields: PairFields, defaults: PairFields, faults: RowFaults
    ) -> None:
        """Add a pair for each of a row's prompts and steps; none of them if one cannot be drawn or repeats a sample."""
        if not self.knows([part.name for part in content], [part.name for part in style], faults):
            return
        if sum(part.name in self.contents.clips for part in content) > 1:
            received, accepted = " and ".join(shown(part.name) for part in content), "a mix with one clip at most"
            hint = "mix the clip with a picture"
            faults.add("two clips in one mix", received, accepted, hint, field="pairs.content")
            return
        sweep = getattr(fields, "sweep", None) or getattr(defaults, "sweep", None)
        merged = _merged(fields, defaults)
        if sweep is not None and (fault := fault_of(sweep, content, style, merged[0])):
            _refuse_sweep(fault, faults, "pairs.sweep")
            return
        before = len(self.pairs)
        for said, frame in itertools.product(merged, self._frames(content)):
            for sides in expanded(frame, style, sweep):
                pair = PairEntry(**said, **sides, file=faults.file, row=faults.node.row)
                if not _is_whole(pair, faults) or not self._is_new(pair, faults):
                    self._take_back(before)
                    return
                self.pairs.append(pair)
                if len(self.pairs) > MAX_PAIRS:
                    return

    def _take_back(self, kept: int) -> None:
        """Leave no pair but the first so many; what the others would have drawn is free again."""
        for pair in self.pairs[kept:]:
            drawn = self._drawn[_drawing(pair)]
            for seed in pair.seeds:
                del drawn[seed]
        del self.pairs[kept:]

    def _frames(self, content: Parts) -> Iterator[Parts]:
        """The parts of a side, a clip among them replaced by each of its frames in turn."""
        clip = next((part.name for part in content if part.name in self.contents.clips), None)
        if clip is None:
            yield content
            return
        for frame in self.contents.clips[clip]:
            yield tuple(part.model_copy(update={"name": frame}) if part.name == clip else part for part in content)

    def knows(self, contents: Iterable[object], styles: Iterable[object], faults: RowFaults) -> bool:
        """Tell whether a pair names what exists, adding a fault for each name that does not."""
        return all(
            [self._is_known(side, name, faults) for side, names in ((self.contents, contents), (self.styles, styles))
             for name in names]
        )  # fmt: skip

    def add_grid(self, fields: PairFields, missing: str = "") -> None:
        """Add every content with every style, for each prompt.

        Args:
            fields: What is said of all pairs.
            missing: "content" or "style" where the prompts stand for that side.
        """
        contents: list[str | None] = [None] if missing == "content" else list(self.contents.entries)
        styles: list[str | None] = [None] if missing == "style" else list(self.styles.entries)
        sweep = getattr(fields, "sweep", None)
        merged = [said | {"file": self._faults.file} for said in _merged(fields, NO_DEFAULTS)]
        if not contents or not styles:
            return
        if sweep and (fault := fault_of(sweep, parts_of(contents[0]), parts_of(styles[0]), merged[0])):
            _refuse_sweep(fault, RowFaults(self._faults, Node(None)), "sweep")
            return
        steps = len(list(expanded(parts_of("any"), parts_of("any"), sweep)))
        if self._count_fits(len(contents) * len(styles) * len(merged) * steps):
            for content, style, said in itertools.product(contents, styles, merged):
                sides = expanded(parts_of(content), parts_of(style), sweep)
                self.pairs.extend(PairEntry(**said, **step) for step in sides)

    def manifest(self, head: dict[str, Any], source: str) -> Manifest | None:
        """Return the manifest; None after adding the fault that says why there is none.

        Args:
            head: What is said once: the fields of `Manifest` but its lists.
            source: Where it was read.
        """
        samples = sum(len(pair.seeds) * pair.candidates for pair in self.pairs)
        if not self._count_fits(len(self.pairs)):
            return None
        if samples > MAX_SAMPLES:
            self._faults.add("too many samples", f"{samples:,}", f"at most {MAX_SAMPLES:,}", "split the manifest")
            return None
        if not self.pairs:
            if not len(self._faults):
                self._faults.add("nothing to draw", "no pairs", "at least one content and one style", "add them")
            return None
        return self.rest(head, source).model_copy(update={"pairs": tuple(self.pairs)})

    def rest(self, head: dict[str, Any], source: str) -> Manifest:
        """Return what there is beside the pairs, also where that makes no manifest; see `manifest`."""
        contents, styles = tuple(self.contents.entries.values()), tuple(self.styles.entries.values())
        return Manifest(**head, contents=contents, styles=styles, pairs=(), source=source)

    def _count_fits(self, pairs: int) -> bool:
        if pairs > MAX_PAIRS:
            self._faults.add("too many pairs", f"{pairs:,}", f"at most {MAX_PAIRS:,}", "split the manifest")
        return pairs <= MAX_PAIRS

    def _is_known(self, side: Side, name: object, faults: RowFaults) -> bool:
        if not isinstance(name, str) or name in side.entries or name in side.clips:
            return True  # what is no text at all has its fault already
        if name in side.refused:
            what, hint = f"pair with a refused {side.label}", f"correct the row of that {side.label}"
        else:
            what = f"unknown {side.label}"
            hint = f"add it to the {side.label}s"
            if len(self._faults) < _MOST_SUGGESTIONS and len(side.entries) < _MOST_SUGGESTIONS:
                hint = suggest(name, (*side.entries, *side.clips), hint)
        accepted = f"one of {counted(len(side.entries), 'name')} of {side.label}s"
        faults.add(what, shown(name), accepted, hint, at=(side.label,), field=f"pairs.{side.label}", item=name)
        return False

    def _is_new(self, pair: PairEntry, faults: RowFaults) -> bool:
        """Tell whether no earlier pair draws a sample of this one, adding a fault if one does."""
        drawn = self._drawn.setdefault(_drawing(pair), {})
        twice = [seed for seed in pair.seeds if seed in drawn]
        if twice:
            sides = " with ".join(shown_name for shown_name in (pair.content, pair.style) if shown_name)
            received = f"{sides} and seed {twice[0]} again, as in row {drawn[twice[0]]}"
            hint = "remove the row, or give it other seeds"
            faults.add("sample drawn twice", received, "each sample once", hint)
            return False
        drawn.update(dict.fromkeys(pair.seeds, pair.row))
        return True


def _refuse_sweep(fault: str, faults: RowFaults, field: str) -> None:
    accepted, hint = "a sweep over what is free", "remove one of them, or the sweep"
    faults.add("impossible sweep", fault, accepted, hint, at=("sweep",), field=field)


def _is_whole(pair: PairEntry, faults: RowFaults) -> bool:
    """Tell whether a prompt stands for the side that a pair lacks, adding a fault if not."""
    colours = pair.colour_of or ("content" if pair.colour_by or pair.colour_amount else "")
    if colours and not getattr(pair, colours):
        received, accepted = f"the colours of a {colours}", "those of a picture of the pair"
        hint = f"correct colour_of, or add a {colours}"
        faults.add("colours of nothing", received, accepted, hint, field="pairs.colour_of")
        return False
    if pair.content and pair.style:
        return True
    missing = "style" if pair.content else "content"
    if stands_for(missing, pair.prompt):
        return True
    received = shown(pair.prompt) if pair.prompt else f"only {shown(pair.content or pair.style)}"
    accepted = f"a prompt (or prompts) that says it, without {TOKENS[missing]}"
    hint = f"add such a prompt, or a {missing}"
    faults.add(f"pair without a {missing}", received, accepted, hint, field="pairs.prompt")
    return False


def _drawing(pair: PairEntry) -> tuple[object, ...]:
    """All that a picture of a pair depends on, but its seed."""
    return tuple(getattr(pair, name) for name in _DRAWN)


def _merged(fields: PairFields, defaults: PairFields) -> list[dict[str, Any]]:
    """Return what a pair says, else what is said for all pairs, else nothing: once for each prompt."""
    said: dict[str, Any] = {"seeds": fields.all_seeds() or defaults.all_seeds()}
    for name in _SAID_ONCE:
        own = getattr(fields, name)
        said[name] = getattr(defaults, name) if own is None else own
    given = {name: value for name, value in said.items() if value is not None}
    own_prompts = fields.all_prompts()
    prompts = defaults.all_prompts() if own_prompts is None else own_prompts
    return [given] if prompts is None else [given | {"prompt": prompt} for prompt in prompts]
