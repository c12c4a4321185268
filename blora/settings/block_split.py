"""Which blocks of a denoiser hold content and which hold style, told by their names: the split of a base. No torch.

A block is named as in diffusers, ``up_blocks.0.attentions.1`` of SDXL or ``single_transformer_blocks.10`` of FLUX, and
several in a row as a stretch: ``single_transformer_blocks.0-9``, or ``single_transformer_blocks.10-`` for all that
follow. Published splits have names.

    split        base    content                                     style
    b-lora       SDXL    up_blocks.0.attentions.0                    up_blocks.0.attentions.1
    splitflux    FLUX    single_transformer_blocks.0-9               single_transformer_blocks.10-
    b-lora-flux  FLUX    transformer_blocks.9-18                     transformer_blocks.0-8

b-lora: arXiv 2403.14572, section 4.1. splitflux: arXiv 2511.15258, of whose 57 blocks the first 19 have two streams;
20 to 29 hold content and 30 to 57 style. Read were its abstract, and notes on the rest (zhaoyang97/Paper-Notes-en).
b-lora-flux: betyavan/b-lora-flux @ e8717c0, ``configs/eval/mixing.yaml``, by which halves meet. Its trainings name
blocks by a part of their name, as ai-toolkit does, so that "transformer_blocks.1" also takes single-stream blocks in.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import (
    AfterValidator,
    Field,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from blora.settings.fields import Frozen, one_fault

__all__ = [
    "SPLITS",
    "BlockSplit",
    "Blocks",
    "Half",
    "RankConstraint",
    "SplitName",
    "Stretch",
    "Stretches",
    "block_name",
    "own_split",
    "shown_split",
    "splits_apart",
]

Half = Literal["content", "style"]
"""The two halves of an adapter."""

_STEM: Final = r"(?P<stem>(?:(?:down|up)_blocks\.\d+|mid_block)\.attentions|(?:single_)?transformer_blocks)"
_NUMBER: Final = r"(?:0|[1-9]\d{0,3})"
_STRETCH: Final = re.compile(rf"{_STEM}\.(?P<first>{_NUMBER})(?P<on>-(?P<last>{_NUMBER})?)?")
_OF_LAYER: Final = re.compile(rf"{_STEM}\.(?P<number>{_NUMBER})\.")
_SPELLED: Final = "up_blocks.0.attentions.1, or single_transformer_blocks.0-9 (10- for all from there)"


@dataclass(frozen=True, order=True)
class Stretch:
    """Blocks in a row.

    Attributes:
        stem: What their names have in common, such as ``single_transformer_blocks``.
        first: The first one's number.
        last: The last one's; None for all that there are.
    """

    stem: str
    first: int
    last: int | None

    @staticmethod
    @lru_cache(maxsize=1024)
    def read(name: str) -> Stretch:
        """Read a name as this module's head spells it; raises ValueError."""
        match = _STRETCH.fullmatch(name)
        if match is None:
            raise ValueError(f"blocks such as {_SPELLED}")
        first, last = int(match["first"]), match["last"]
        end = int(last) if last else None if match["on"] else first
        if end is not None and end < first:
            raise ValueError(f"a stretch that begins with its lower number, not {name}")
        return Stretch(match["stem"], first, end)

    def __str__(self) -> str:
        """Return its name."""
        on = "" if self.last == self.first else "-" if self.last is None else f"-{self.last}"
        return f"{self.stem}.{self.first}{on}"

    def holds(self, layer: str) -> bool:
        """Whether a layer, by its whole name, lies in one of the blocks."""
        match = _OF_LAYER.match(layer)
        return match is not None and match["stem"] == self.stem and self.holds_number(int(match["number"]))

    def holds_number(self, number: int) -> bool:
        """Whether a block of this stem is one of them."""
        return self.first <= number and (self.last is None or number <= self.last)

    def lies_in(self, whole: Stretch) -> bool:
        """Whether all of its blocks are among others; of one without an end, whether it begins there."""
        ends = self.last is None or whole.holds_number(self.last)
        return self.stem == whole.stem and whole.holds_number(self.first) and ends

    def meets(self, other: Stretch) -> bool:
        """Whether two stretches have a block in common."""
        return self.stem == other.stem and (self.holds_number(other.first) or other.holds_number(self.first))


def _merged(names: tuple[str, ...]) -> tuple[str, ...]:
    """The same blocks, each once, in as few stretches as there can be: equal choices are then equal."""
    merged: list[Stretch] = []
    for stretch in sorted(map(Stretch.read, names), key=lambda one: (one.stem, one.first)):
        before = merged[-1] if merged else None
        if (
            before is None
            or before.stem != stretch.stem
            or (before.last is not None and stretch.first > before.last + 1)
        ):
            merged.append(stretch)
        else:
            last = None if None in (before.last, stretch.last) else max(before.last or 0, stretch.last or 0)
            merged[-1] = Stretch(before.stem, before.first, last)
    return tuple(map(str, merged))


Stretches = Annotated[tuple[str, ...], Field(min_length=1, max_length=200), AfterValidator(_merged)]
"""Names of blocks and of stretches."""


class RankConstraint(Frozen):
    """Blocks whose updates have a smaller rank and count for more, so that less of one half leaks into the other.

    Source: SplitFlux, arXiv 2511.15258, "rank-constrained adaptation": an update alpha * B @ A of rank r / alpha, best
    with alpha 2 of rank 64 on its blocks 30 and 31, single_transformer_blocks.10-11, where content meets style; alpha 4
    and blocks 30 to 35 were worse. The paper's text could not be had: this is told by notes on it
    (zhaoyang97/Paper-Notes-en), and agrees with its 43.65 million weights, of 44.83 without it.
    """

    blocks: Stretches
    """Blocks of either half."""
    factor: int = Field(default=2, ge=2, le=64)
    """By which the rank is divided and the update multiplied."""

    def holds(self, layer: str) -> bool:
        """Whether a layer lies in one of the blocks."""
        return any(Stretch.read(name).holds(layer) for name in self.blocks)


class BlockSplit(Frozen):
    """The blocks of each half."""

    content: Stretches
    """Blocks of the content half."""
    style: Stretches
    """Blocks of the style half."""

    @model_validator(mode="after")
    def _halves_differ(self) -> BlockSplit:
        if met := self.shared(self):
            raise ValueError(f"content and style without a block in common; both have {met}")
        if len({stretch.stem.endswith("attentions") for half in get_args(Half) for stretch in self.of(half)}) > 1:
            raise ValueError("blocks of one kind of base: SDXL's have attentions in their names, FLUX's have not")
        return self

    def of(self, half: Half) -> tuple[Stretch, ...]:
        """Return the stretches of a half."""
        return tuple(map(Stretch.read, getattr(self, half)))

    def half_of(self, layer: str) -> Half | None:
        """Return the half that a layer belongs to, by its whole name, or None."""
        halves: tuple[Half, ...] = get_args(Half)
        return next((half for half in halves if any(stretch.holds(layer) for stretch in self.of(half))), None)

    def shared(self, style: BlockSplit) -> str:
        """Name what these content blocks have in common with another split's style blocks; empty for nothing."""
        met = [str(ours) for ours in self.of("content") if any(ours.meets(theirs) for theirs in style.of("style"))]
        return ", ".join(met)

    @property
    def is_flux(self) -> bool:
        """Whether the blocks are named as FLUX's are."""
        return not self.of("content")[0].stem.endswith("attentions")


SplitName = Literal["b-lora", "splitflux", "b-lora-flux"]
"""The splits that have a name."""

SPLITS: Final[Mapping[SplitName, BlockSplit]] = MappingProxyType(
    {
        "b-lora": BlockSplit(content=("up_blocks.0.attentions.0",), style=("up_blocks.0.attentions.1",)),
        "splitflux": BlockSplit(content=("single_transformer_blocks.0-9",), style=("single_transformer_blocks.10-",)),
        "b-lora-flux": BlockSplit(content=("transformer_blocks.9-18",), style=("transformer_blocks.0-8",)),
    }
)
"""Published splits; the first is SDXL's own, and the second FLUX's."""


def block_name(layer: str) -> str:
    """Return the block that a layer lies in, by the layer's whole name; empty for none."""
    match = _OF_LAYER.match(layer)
    return f"{match['stem']}.{match['number']}" if match else ""


def own_split(*, flux: bool) -> BlockSplit:
    """Return the split of a base where nobody says another one."""
    return SPLITS["splitflux" if flux else "b-lora"]


def splits_apart(content: Sequence[BlockSplit], style: Sequence[BlockSplit]) -> tuple[str, str] | None:
    """Return why adapters of some splits cannot be drawn together: what, and what was received; None if they can.

    Args:
        content: Of the adapters whose content halves are mixed.
        style: Of those whose style halves are.
    """
    for half, blocks in (("content", [one.content for one in content]), ("style", [one.style for one in style])):
        if len(distinct := list(dict.fromkeys(blocks))) > 1:
            return f"a mix of different {half} blocks", " and ".join(", ".join(one) for one in distinct)
    if content and style and (met := content[0].shared(style[0])):
        return "content and style of splits that overlap", f"content {met} beside style {', '.join(style[0].style)}"
    return None


def shown_split(split: BlockSplit) -> str:
    """Name a split in a message."""
    known = next((name for name, one in SPLITS.items() if one == split), "")
    blocks = f"content {', '.join(split.content)}; style {', '.join(split.style)}"
    return f"{known} ({blocks})" if known else blocks


_known_or_named: Final = one_fault(f"{', '.join(SPLITS)}, or {{content: [...], style: [...]}} with names of blocks")


def _of_one_kind(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    """Report what is wrong with a mapping by its own fields, and of anything else what there may be, once."""
    if isinstance(value, Mapping):
        return BlockSplit.model_validate(value)
    return _known_or_named(value, check)


Blocks = Annotated[BlockSplit | SplitName | None, WrapValidator(_of_one_kind)]
"""A split as settings say it: by its name, by its blocks, or none, for the base's own."""
