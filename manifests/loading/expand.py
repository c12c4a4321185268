"""Mixes and sweeps: from a pair as it is written to the pairs that are drawn.

A mix is a tuple of parts, each with a weight; weights need not sum to one. A sweep over ``mix`` goes in even steps
from the first of two parts to the second and keeps the sum of their weights. The last axis of a sweep runs along a
strip; the others say which strip.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from manifests.schema.entries import Part, Parts
from manifests.schema.rows import AXES, Sweep

_MIX = "mix"


def fault_of(sweep: Sweep, content: Parts, style: Parts, said: Mapping[str, Any]) -> str:
    """Return what keeps a pair from being swept so; empty for nothing."""
    needs = {"content_strength": content, "own_style": content, "style_strength": style}
    for name in AXES:
        if getattr(sweep, name) is None:
            continue
        if name in said:
            return f"{name} is both fixed and swept"
        if not needs.get(name, True):
            return f"sweep over {name} without {'style' if name == 'style_strength' else 'content'}"
    if sweep.mix is not None and not any(len(parts) == 2 for parts in (content, style)):
        return "sweep over a mix, but neither side is a mix of two"
    return ""


def expanded(content: Parts, style: Parts, sweep: Sweep | None) -> Iterator[dict[str, Any]]:
    """Yield the fields of `PairEntry` that say the sides, and those that a sweep adds, for each step."""
    axes: dict[str, list[float]] = {}
    for name in AXES if sweep else ():
        if (values := getattr(sweep, name)) is not None:
            axes[name] = list(values)
    if sweep and sweep.mix:
        axes[_MIX] = [step / (sweep.mix - 1) for step in range(sweep.mix)]
    for values in itertools.product(*axes.values()):
        step = dict(zip(axes, values, strict=True))
        share = step.pop(_MIX, None)
        fields: dict[str, Any] = dict(step)
        for label, parts in (("content", content), ("style", style)):
            fields |= _side(label, parts if share is None or len(parts) != 2 else _between(parts, share))
        if axes:
            told = [f"{name} {value:g}" for name, value in zip(axes, values, strict=True)]
            names = [" to ".join(_named(part) for part in parts) if _MIX in axes else _title(parts)
                     for parts in (content, style) if parts]  # fmt: skip
            fields |= {"sweep": ", ".join([" x ".join(names), *told[:-1]]), "step": told[-1]}
        yield fields


def _between(parts: Parts, share: float) -> Parts:
    """The two parts at a share of the way from the first to the second."""
    total = sum(part.weight for part in parts)
    weights = ((1 - share) * total, share * total)
    return tuple(Part(name=part.name, weight=weight) for part, weight in zip(parts, weights, strict=True))


def _side(label: str, parts: Parts) -> dict[str, Any]:
    """Fields of one side; what weighs nothing is left out, and one part of weight one is no mix."""
    kept = tuple(part for part in parts if part.weight)
    if not kept:
        return {label: None}
    if len(kept) == 1 and kept[0].weight == 1:
        return {label: kept[0].name}
    return {label: _title(kept), f"{label}_mix": kept}


def _title(parts: Parts) -> str:
    """What people call a mix: its parts with their weights."""
    if len(parts) == 1 and parts[0].weight == 1:
        return parts[0].name
    return " + ".join(f"{part.name} {part.weight:.3g}" for part in parts)


def _named(part: Part) -> str:
    return part.name
