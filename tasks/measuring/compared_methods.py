"""What other methods' adapters and pictures are called, and which pictures of a run they have a counterpart of."""

from __future__ import annotations

from typing import Final

from manifests import ids, layout
from manifests.tables.columns import TableFolder
from manifests.tables.measuring import METHOD_SCORES
from tasks.run.plan import Plan, PlannedSample

METHODS: Final = ("blora", "all_attention", "prompt", "magenta")
"""In the order in which they are shown; see `tasks.worker.methods`."""

TRAINED: Final = frozenset({"all_attention"})
"""Those that train adapters of their own."""

_RECIPE: Final = 1
"""Counts changes of `tasks.worker.methods` that alter a picture."""


def check_methods(asked: tuple[str, ...]) -> tuple[str, ...]:
    """Return methods in the order of `METHODS`; blora, which the others are compared with, is always among them.

    Raises:
        ValueError: an unknown method, or none beside blora.
    """
    unknown = [name for name in asked if name not in METHODS]
    if unknown or not set(asked) - {"blora"}:
        received = ", ".join(unknown or asked) or "none"
        raise ValueError(f"--methods: received {received}; accepted: some of {', '.join(METHODS[1:])}")
    return tuple(name for name in METHODS if name in asked or name == "blora")


def comparable(sample: PlannedSample) -> bool:
    """Whether a picture is of one content picture and one style picture, with the colours that came."""
    sides = (sample.parts("content"), sample.parts("style"))
    return all(len(parts) == 1 for parts in sides) and not (
        sample.content_mix or sample.style_mix or sample.colour_of or sample.content_prompt
    )


def adapter_id_of(method: str, adapter_id: str) -> str:
    """Name the adapter that a method trains where B-LoRA trains this one."""
    return ids.digest("method adapter", _RECIPE, method, adapter_id)


def sample_id_of(method: str, sample: PlannedSample) -> str:
    """Name the picture that a method draws where B-LoRA draws this one."""
    words = [sample.text, sample.content_name, sample.style_name] if method == "prompt" else []
    return ids.digest("method sample", _RECIPE, method, sample.sample_id, words)


def methods_key(plan: Plan, name: str) -> str:
    """Where a file of the comparison lies, or a method's folder."""
    return layout.run_key(plan.run.run_id, f"methods/{name}")


def method_file(method: str, name: str) -> str:
    """Name a method's file within the run's folder."""
    return f"methods/{method}/{name}"


def method_key(plan: Plan, method: str, name: str) -> str:
    """Where a method's file lies."""
    return layout.run_key(plan.run.run_id, method_file(method, name))


def method_scores_files(method: str) -> TableFolder:
    """Name the scores of a method's pictures, by shard."""
    return TableFolder(f"methods/{method}", METHOD_SCORES)


def sample_key_of(plan: Plan, method: str, sample: PlannedSample) -> str:
    """Where the picture lies that a method draws."""
    return sample.key if method == "blora" else method_key(plan, method, f"{sample_id_of(method, sample)}.png")
